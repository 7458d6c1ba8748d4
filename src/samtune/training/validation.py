"""The validation of a training: the same images, asked in one or several prompt modes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from samtune.data import SegmentationDataset
from samtune.evaluation.streaming import evaluate_prompts
from samtune.metrics.config import EvalConfig
from samtune.metrics.contract import ALWAYS
from samtune.model.finetuned import FineTuned
from samtune.training.criterion import Criterion, key_of
from samtune.training.schedule import FitConfig

Row = dict[str, Any]
"""The numbers of one validation: metrics by name, those of a prompt mode as ``iou@point``."""
OF_MODES = ("iou", "dice")
"""Measured of every prompt mode."""


class Validation:
    """Measures a model on the validation images.

    Args:
        val: Made with ``train=False``.
        config: How the training goes.
        measuring: How metrics are measured; which ones it names makes no difference.
    """

    def __init__(self, val: SegmentationDataset, config: FitConfig, measuring: EvalConfig) -> None:
        self.val, self.config = val, config
        self.criterion = Criterion.parse(config.metric)
        self.measuring = replace(measuring, metrics=self.criterion.measures)

    @property
    def own_mode(self) -> str | None:
        """The prompt mode of its images as they were given, unless they have several."""
        return self.val.modes.names[0] if len(self.val.modes) == 1 else None

    def measure(self, model: FineTuned, modes: Sequence[str]) -> Row:
        """The numbers of a model at its strength, in the prompt modes that count.

        Args:
            model: Left in evaluation mode.
            modes: Which are measured besides those of the criterion.
        """
        c, val = self.config, self.val.in_frame(model.input.size, model.mask_size)
        names = tuple(dict.fromkeys((*self.criterion.modes, *modes)))
        evaluations = evaluate_prompts(
            model,
            [val, *(each for mode in names if (each := val.asked_in(mode)) is not val)],
            batch_size=c.batch_size,
            precision=c.precision,
            multimask=c.multimask,
            workers=val.data.workers,
            measuring=self.measuring,
        )
        measures, first = self.criterion.measures, evaluations[0].metrics
        row = {key: first[key] for key in dict.fromkeys((*ALWAYS, *measures))}
        others = iter(evaluations[1:])
        for mode in names:
            metrics = first if mode == self.own_mode else next(others).metrics
            keys = dict.fromkeys((*OF_MODES, *measures))
            row |= {key_of(key, mode): metrics[key] for key in keys}
        return row | {str(self.criterion): self.criterion.value(row)}
