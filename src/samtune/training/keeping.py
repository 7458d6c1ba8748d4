"""Prompts that the base answers well and that a training must not make the model forget.

They are measured in every validation, and weights that lose too much of them are not chosen. If
someone names them, or kinds of prompts have no strengths of their own
(:mod:`samtune.training.kinds`), training also uses them on its images, and compares the answers
with the base's own answers (learning without forgetting, see :mod:`samtune.training.agreement`) or
with the targets (rehearsal; Ratcliff 1990, doi:10.1037/0033-295X.97.2.285). Else that would only
slow down what is trained, since the base itself can answer the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from samtune.data import SegmentationDataset
from samtune.errors import InputError
from samtune.metrics.prompt_names import key_of
from samtune.model.finetuned import FineTuned
from samtune.prompts import PromptModes, kind_of
from samtune.training.kinds import chooses_kinds
from samtune.training.schedule import AUTO, NONE, FitConfig, asked_in_rounds, check_keep

USUAL = ("box", "point")
"""The prompts that ``train.keep=auto`` looks at."""
WELL = 0.5
"""The zero-shot IoU on the validation images from which on such a prompt is kept."""


@dataclass(frozen=True)
class Keeping:
    """The prompt modes that one training keeps and watches."""

    setting: str | tuple[str, ...]
    """``auto``, ``none``, or the modes that somebody named."""
    trained_modes: PromptModes
    """The modes that are trained for."""
    rehearsal: float = 1.0
    """The weight of the loss of the modes to keep; with 0 they are only measured."""

    @staticmethod
    def of(config: FitConfig, model: FineTuned, train: SegmentationDataset) -> Keeping:
        """The prompts to keep for a model and its training images, by the settings.

        Raises:
            InputError: Prompts are named that the model cannot tell apart, see :func:`check_keep`.
        """
        setting = check_keep(config.keep)
        takes = model.decoder.prompted and not train.class_maps
        if not takes and isinstance(setting, tuple):
            raise InputError(
                f"train.keep={','.join(setting)}: the decoder {model.decoder.name} gives the same "
                "answer for all prompts; set train.keep=none"
            )
        setting = setting if takes else NONE
        return Keeping(setting, train.modes, rehearsal_weight(config, model, setting))

    def rehearsed(self, kept_modes: Sequence[str]) -> tuple[str, ...]:
        """The modes to keep that training uses too."""
        return tuple(kept_modes) if self.rehearsal else ()

    def looked_at(self) -> tuple[str, ...]:
        """The modes that are measured before the first step."""
        usual = self._untrained(USUAL) if self.setting == AUTO else ()
        return tuple(dict.fromkeys((*usual, *self.watched(self.modes_to_keep({})))))

    def modes_to_keep(self, zero_shot: Mapping[str, Any]) -> tuple[str, ...]:
        """The modes to keep.

        Args:
            zero_shot: The validation of the base; empty without one.
        """
        if self.setting == NONE:
            return ()
        if self.setting == AUTO:
            usual = self._untrained(USUAL)
            return tuple(m for m in usual if zero_shot.get(key_of("iou", m), 0.0) >= WELL)
        return tuple(mode for mode in self.setting if mode not in self.trained_modes)

    def watched(self, kept_modes: Sequence[str]) -> tuple[str, ...]:
        """The modes that every validation measures: those to keep, and those that are trained."""
        if self.setting == NONE:
            return ()
        named = self.setting if isinstance(self.setting, tuple) else ()
        trained = (mode for mode in self.trained_modes if not asked_in_rounds(mode))
        return tuple(dict.fromkeys((*kept_modes, *named, *trained)))

    def _untrained(self, modes: Sequence[str]) -> tuple[str, ...]:
        return tuple(mode for mode in modes if kind_of(mode) not in self.trained_modes.kinds)


def rehearsal_weight(config: FitConfig, model: FineTuned, setting: str | tuple[str, ...]) -> float:
    """The value of ``train.rehearsal`` with ``auto`` resolved.

    Args:
        config: How training goes.
        model: The model that is trained.
        setting: The value of ``train.keep`` that holds for the model.
    """
    if config.rehearsal != AUTO:
        return float(config.rehearsal)
    of_their_own = setting == AUTO and chooses_kinds(config, model)
    return 0.0 if of_their_own else 1.0
