"""The result of a training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class FitResult:
    """The outcome of a training; the model itself holds the best weights."""

    steps: int
    best: dict[str, Any] | None
    """The validation of the chosen weights: its ``step``, metrics and ``strength``, which is 0 if
    nothing beat the base; ``None`` if there was nothing to measure."""
    seconds: float
    peak_memory_bytes: int
    """The most memory in use: the device's if it has its own, else the process's."""
    left_out: int = 0
    """Number of this process's images that did not fit into ``config.feature_cache``."""
    zero_shot: dict[str, Any] | None = None
    """The validation of the base, before the first step; ``None`` without validation images."""
    kept_modes: tuple[str, ...] = ()
    """The prompt modes that were rehearsed."""
    watched_modes: tuple[str, ...] = ()
    """The prompt modes that were measured in every validation besides those of the metric."""
    top: dict[str, Any] | None = None
    """The best validation of trained weights, whatever they forgot."""
    weights: str = ""
    """The weights of the curve: those of a step, or the mean of several."""
    curve: tuple[dict[str, Any], ...] = ()
    """The validations of these weights by ``strength``, from 0, the base, to 1; none if nothing
    but 1 is a candidate."""
    no_base: str = ""
    """The reason why the base was no candidate, as a clause; empty if it was one."""
