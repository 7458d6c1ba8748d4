"""The result of a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from samtune.model.strength import Strength

_FEW = 4
End = Literal["steps", "time", "patience", "stop"]
"""The reasons why a training ends: its steps or its time are over, or patience, or a callback."""


@dataclass(frozen=True)
class FitResult:
    """The outcome of a training; the model itself holds the best weights."""

    steps: int
    best: dict[str, Any] | None
    """The validation of the chosen weights: its ``step``, metrics and ``strength``, which is 0 if
    nothing beat the base, with ``strengths`` if kinds of prompts have their own; ``None`` if there
    was nothing to measure."""
    seconds: float
    peak_memory_bytes: int
    """The most memory in use: the device's if it has its own, else the process's."""
    left_out: int = 0
    """Number of this process's images that did not fit into ``config.feature_cache``."""
    damaged: int = 0
    """Number of cached images on disk that were damaged, and computed anew."""
    cache_failure: str = ""
    """The reason why nothing more was cached on disk; empty if nothing went wrong."""
    samples_left_out: int = 0
    """Number of images for which ``data.disk_cache`` had no room, or that could not be written."""
    zero_shot: dict[str, Any] | None = None
    """The validation of the base, before the first step; ``None`` without validation images."""
    kept_modes: tuple[str, ...] = ()
    """The prompt modes that must not get worse, see ``train.keep``."""
    rehearsed_modes: tuple[str, ...] = ()
    """The kept modes that training used too."""
    watched_modes: tuple[str, ...] = ()
    """The prompt modes that were measured in every validation besides those of the metric."""
    top: dict[str, Any] | None = None
    """The best validation of trained weights, whatever they forgot."""
    weights: str = ""
    """The weights of the curve: those of a step, or the mean of several."""
    curve: tuple[dict[str, Any], ...] = ()
    """The validations of these weights by ``strength``, from 0, the base, to 1; none if nothing
    but 1 is a candidate."""
    end: End = "steps"
    """The reason why it ended."""
    no_base: str = ""
    """The reason why the base was no candidate, as a clause; empty if it was one."""

    def __str__(self) -> str:
        steps = f"{self.steps} step{'' if self.steps == 1 else 's'} in {self.seconds:.3g} s"
        if self.best is None:
            return f"{steps}; nothing was validated, and the last weights stay"
        if not Strength.read(self.best) and self.zero_shot is not None:
            return (
                f"{steps}; nothing validated better than the base ({in_words(self.zero_shot)}), so "
                "the model answers as the base, with strength 0"
            )
        base = f" (zero-shot {in_words(self.zero_shot)})" if self.zero_shot else ""
        return f"{steps}; the best is step {self.best['step']}: {in_words(self.best)}{base}"


def in_words(row: Mapping[str, Any]) -> str:
    """The first metrics of a validation in a line, as ``iou 0.812, dice 0.894``."""
    values = [
        f"{name} {value:.3f}"
        for name, value in row.items()
        if isinstance(value, float) and name != "strength" and not name.endswith("_pooled")
    ]
    return ", ".join(values[:_FEW])
