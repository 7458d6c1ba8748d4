"""IoU and Dice of predicted masks, streamed.

Importing this module imports torchmetrics, which takes seconds; import it only when needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from samtune.metrics.areas import areas_of, scores_of
from samtune.metrics.streamed import Rows, Streamed

OBJECTS, EMPTY, OVERLAP, PREDICTED, TARGET = range(5)
MEANS = ("iou", "dice", "iou_pooled", "dice_pooled")


def iou_dice(
    predicted: Tensor, target: Tensor, valid: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """IoU and Dice of each mask.

    Args:
        predicted: ``(N, h, w)`` bool.
        target: ``(N, h, w)`` bool.
        valid: ``(h, w)`` or ``(N, h, w)`` bool; ``None`` means everywhere.

    Returns:
        Two ``(N,)`` float64 in [0, 1]; 1 if both masks are empty on the valid pixels, 0 if only one
        is.

    Raises:
        ValueError: Masks that are not bool or differ in shape.
    """
    return scores_of(areas_of(predicted, target, valid))


class MaskMetrics(Streamed):
    """Mean and pooled IoU and Dice over any number of masks, overall and by class.

    The result does not depend on how the masks are split into updates or over processes: only sums
    are kept, and ``compute`` adds them up over all processes. :mod:`samtune.metrics.contract`
    defines the averages.

    Args:
        max_classes: Number of class indices, one more than the highest; memory is 56 bytes per
            class.
        **kwargs: torchmetrics' own options.
    """

    higher_is_better: bool = True
    class_states = ("counts", "sums")

    counts: Tensor
    """``(max_classes + 1, 5)`` int64, one row per class and a last one for masks without a class:
    the number of masks and of empty targets, and the pixels of overlap, prediction and target."""
    sums: Tensor
    """``(max_classes + 1, 2)`` float64, with the same rows: summed IoU and Dice."""

    def __init__(self, max_classes: int = 1024, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_classes = max_classes
        rows = max_classes + 1
        self.add_state("counts", torch.zeros(rows, 5, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("sums", torch.zeros(rows, 2, dtype=torch.float64), dist_reduce_fx="sum")

    def update(
        self,
        predicted: Tensor,
        target: Tensor,
        valid: Tensor | None = None,
        classes: Tensor | None = None,
    ) -> None:
        """Adds the masks of one image, or of several of one size.

        Args:
            predicted: ``(N, h0, w0)`` bool at the original resolution; N may be 0.
            target: ``(N, h0, w0)`` bool.
            valid: ``(h0, w0)`` or ``(N, h0, w0)`` bool, false where the label is ignored.
            classes: ``(N,)`` int64 class of each mask, from 0.

        Raises:
            ValueError: Masks that are not bool or differ in shape, or a class out of range.
        """
        self.add(areas_of(predicted, target, valid), classes)

    def add(self, areas: Tensor, classes: Tensor | None = None) -> None:
        """Adds masks by their pixel counts of overlap, prediction and target, ``(N, 3)`` int64.

        Raises:
            ValueError: A class out of range.
        """
        rows = self._rows(classes, areas)
        iou, dice = scores_of(areas)
        objects, empty = torch.ones_like(areas[:, 0]), (areas[:, 2] == 0).long()
        counts = torch.cat([torch.stack([objects, empty], 1), areas], 1)
        self.counts.index_add_(0, rows, counts.to(self.counts.device))
        scores = torch.stack([iou, dice], 1).to(self.sums.device)
        self.sums.index_add_(0, rows, scores)

    def values(self, sums: Mapping[str, Tensor], rows: Rows | None = None) -> dict[str, Tensor]:
        """The metrics from R sums at once, and under ``class_iou`` etc. ``(R, classes)``."""
        counts, scores = sums["counts"].double(), sums["sums"]
        by_class = _means(counts[:, :-1], scores[:, :-1])
        whole = _means(counts.sum(1), scores.sum(1))
        return whole | {f"class_{name}": value for name, value in by_class.items()}

    def compute(self) -> dict[str, Any]:
        """The metrics so far, over all processes, as Python values.

        Returns:
            ``iou``, ``dice``, ``iou_pooled``, ``dice_pooled`` (fractions; NaN without any mask),
            ``objects``, ``empty`` (counts), and ``by_class``, which maps every class index that
            occurs to the same six.
        """
        means = self.values(self.so_far())
        counts = self.counts.cpu()
        total = counts.sum(0)
        result: dict[str, Any] = {name: float(means[name]) for name in MEANS}
        result |= {"objects": int(total[OBJECTS]), "empty": int(total[EMPTY])}
        by_class = {
            row: {name: float(means[f"class_{name}"][0, row]) for name in MEANS}
            | {"objects": int(counts[row, OBJECTS]), "empty": int(counts[row, EMPTY])}
            for row in counts[:-1, OBJECTS].nonzero()[:, 0].tolist()
        }
        return {**result, "by_class": by_class}

    def _rows(self, classes: Tensor | None, areas: Tensor) -> Tensor:
        device = self.counts.device
        if classes is None:
            return torch.full((len(areas),), self.max_classes, device=device)
        if classes.shape != areas.shape[:1]:
            raise ValueError(
                f"{tuple(classes.shape)} classes for {len(areas)} masks: give one per mask"
            )
        if len(classes) and not 0 <= int(classes.min()) <= int(classes.max()) < self.max_classes:
            raise ValueError(
                f"classes {int(classes.min())} to {int(classes.max())} must lie in 0 to "
                f"{self.max_classes - 1}: raise max_classes"
            )
        return classes.to(device).long()


def _means(counts: Tensor, scores: Tensor) -> dict[str, Tensor]:
    """Mean and pooled IoU and Dice from counts ``(..., 5)`` and scores ``(..., 2)``, by name."""
    objects = counts[..., OBJECTS]
    pooled = [
        torch.where(objects > 0, score, torch.nan) for score in scores_of(counts[..., OVERLAP:])
    ]
    means = [scores[..., k] / objects for k in range(2)]  # 0 of 0 is NaN
    return dict(zip(MEANS, (*means, *pooled), strict=True))
