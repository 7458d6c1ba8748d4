"""The uncertainty of an evaluation: its metrics for draws of its images, and their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from samtune.metrics.contract import MEASURES
from samtune.metrics.intervals import Floats, interval

if TYPE_CHECKING:
    from samtune.metrics.per_image import Resampling

Ends = list[float] | None
"""Lower and upper end of an interval; ``None`` if there is none."""


@dataclass(frozen=True)
class Draws:
    """The metrics of an evaluation, each for many draws of its images.

    For the same number of images the draws are the same for every model and guess, so differences
    are paired.
    """

    masks: Resampling
    """The draws of IoU and Dice, which every evaluation has."""
    families: Mapping[str, Resampling] = field(default_factory=dict)
    """The draws of the other metrics, by family."""
    names: tuple[str, ...] = ()
    """The names of the other metrics."""

    @property
    def images(self) -> int:
        """Number of images per draw."""
        return self.masks.units

    @cached_property
    def values(self) -> dict[str, Floats]:
        """The values ``(draws,)`` of each metric."""
        plain = {name: each for name, each in self.masks.values.items() if each.ndim == 1}
        for name in self.names:
            measure = MEASURES[name]
            plain[name] = self.families[measure.family].values[measure.key]
        return plain

    @cached_property
    def by_class(self) -> dict[int, dict[str, Floats]]:
        """The values ``(draws,)`` of each metric, by class that any image has."""
        by_name = {
            name.removeprefix("class_"): each
            for name, each in self.masks.values.items()
            if each.ndim == 2
        }
        return {
            index: {name: each[:, k] for name, each in by_name.items()}
            for k, index in enumerate(self.masks.classes)
        }


def intervals(values: Mapping[str, Floats], images: int) -> dict[str, Ends]:
    """The interval of each metric.

    Args:
        values: By metric ``(draws,)``.
        images: Number of images per draw.
    """
    return {name: interval(each, images) for name, each in values.items()}


def difference(after: Mapping[str, Floats], before: Mapping[str, Floats]) -> dict[str, Floats]:
    """The gain of each metric from one side to the other, for the same draws of images."""
    gains = {}
    for name in (name for name in after if name in before):
        count = min(len(after[name]), len(before[name]))
        gains[name] = np.subtract(after[name][:count], before[name][:count])
    return gains


def intervals_beside(
    sides: Mapping[str, Mapping[str, Floats]],
    guesses: Mapping[str, Mapping[str, Floats]],
    names: Sequence[str],
    images: int,
) -> dict[str, Any]:
    """Intervals of a table row: of its sides, their difference, and the guesses.

    Args:
        sides: ``zero_shot`` and ``tuned``, each by metric ``(draws,)``; either may be missing.
        guesses: The same by the guess's name.
        names: The metrics of the table.
        images: Number of images per draw.

    Returns:
        By side the interval of each metric; ``difference``, tuned minus zero-shot; for ``guesses``
        by name, and ``above_guesses``: tuned minus the guess, or zero-shot if nothing was tuned.
    """

    def of(values: Mapping[str, Floats]) -> dict[str, Ends]:
        return intervals({name: values[name] for name in names if name in values}, images)

    row: dict[str, Any] = {side: of(values) for side, values in sides.items()}
    if {"zero_shot", "tuned"} <= set(sides):
        row["difference"] = of(difference(sides["tuned"], sides["zero_shot"]))
    if guesses and sides:
        last = sides.get("tuned", sides.get("zero_shot", {}))
        row["guesses"] = {name: of(values) for name, values in guesses.items()}
        row["above_guesses"] = {
            name: of(difference(last, values)) for name, values in guesses.items()
        }
    return row
