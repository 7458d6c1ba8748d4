"""The result of an evaluation: its metrics, image by image, and their variation with the images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from samtune.evaluation.uncertainty import Draws
from samtune.metrics.measures import ALWAYS


@dataclass(frozen=True, repr=False)
class Evaluation:
    """The results of an evaluation."""

    metrics: dict[str, Any]
    """The values of :meth:`samtune.metrics.MaskMetrics.compute`, and of other metrics by name."""
    images: int
    items: list[dict[str, Any]] = field(default_factory=list)
    """One row per image: ``index``, ``name``, ``objects``, mean ``iou`` and ``dice``; of automatic
    modes also the number of ``masks``, and of ``matches`` with an IoU of a half or more."""
    by_click: list[dict[str, Any]] = field(default_factory=list)
    """The metrics after each click, if there are several; ``metrics`` are those after the last."""
    guesses: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The metrics of masks that need no model, by the guess's name."""
    draws: Draws | None = None
    """The metrics of draws of the images, for intervals."""
    click_draws: Sequence[Draws] = ()
    """The metrics of draws after each click."""
    guess_draws: dict[str, Draws] = field(default_factory=dict)
    """The metrics of draws for each guess."""
    images_per_second: float | None = None
    """Images per second that the model answers, over all processes, without reading and measuring.
    """
    by_prompt: dict[str, Evaluation] = field(default_factory=dict)
    """One evaluation for each prompt mode, if there are several; all else here is of the first.
    """

    def __repr__(self) -> str:
        """A line for each prompt mode: the means over all objects, and other metrics if asked."""
        rows = self.by_prompt or {"": self}
        others = [key for key, value in self.metrics.items() if isinstance(value, float)]
        others = [key for key in others if key not in ALWAYS]
        mean = "means" if others else "mean over objects"  # others may be over images
        names = [mode or mean for mode in rows]
        wide = max(map(len, names))
        titles = {"iou": "IoU", "dice": "Dice", **{key: key for key in others}}
        widths = {key: max(6, len(title)) for key, title in titles.items()}
        head = "  ".join(f"{title:>{widths[key]}}" for key, title in titles.items())
        lines = [f"{'':<{wide}}  {head}"]
        for name, row in zip(names, rows.values(), strict=True):
            values = {key: row.metrics.get(key, math.nan) for key in titles}
            numbers = "  ".join(f"{value:{widths[key]}.3f}" for key, value in values.items())
            lines.append(f"{name:<{wide}}  {numbers}")
        images = "1 image" if self.images == 1 else f"{self.images} images"
        return "\n".join([f"Evaluation of {images}", *lines])


def image_row(index: int, name: str, areas: Tensor) -> dict[str, Any]:
    """An image's row, see :class:`Evaluation`.

    Args:
        index: The index of the image in the data set.
        name: The name of the image.
        areas: ``(N, 3)``: pixels of overlap, mask and target of each of its objects.
    """
    from samtune.metrics.areas import scores_of

    means = [float(s.mean()) if len(s) else math.nan for s in scores_of(areas)]
    row = {"index": index, "name": name, "objects": len(areas)}
    return {**row, "iou": means[0], "dice": means[1]}
