"""Instances: COCO's average precision, and mean segmentation accuracy as cell segmentation has it.

Of each prompted mask only its score and which thresholds it passed are kept, so that memory grows
by a few numbers a mask and never by its pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samtune.metrics.boundaries import need_scipy
from samtune.metrics.image_result import ImageResult
from samtune.metrics.regions import AREAS
from samtune.metrics.streamed import RowMetric, Rows, Streamed

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
RANGES = ((0.0, 1e10), (0.0, AREAS[0]), (AREAS[0], AREAS[1]), (AREAS[1], 1e10))
"""Pixels of area, both ends included as in COCO: all, small, medium, large."""
MOST = 100
"""Masks of an image and class that count, the highest scores first."""
FIELDS = 4 + 2 * len(RANGES)

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class AveragePrecision(RowMetric):
    """COCO's average precision (Lin et al. 2014, arXiv:1405.0312) of scored masks.

    Args:
        max_classes: One more than the highest class index.
        **kwargs: torchmetrics' own options.
    """

    fields = FIELDS
    rows: Any
    """Of each mask: image, place in it, class, score, and for each range of area which thresholds
    it passed and at which it is not counted, as bits."""
    targets: Tensor
    """``(max_classes, 4)``: targets of each class and range of area."""

    def __init__(self, max_classes: int = 1024, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_classes = max_classes
        self.add_sums(targets=(max_classes, len(RANGES)))

    def update(self, image: ImageResult) -> None:
        """Adds one image.

        Raises:
            ValueError: Masks without scores, or a class out of range.
        """
        predicted, target = (m.cpu().numpy() for m in image.without_ignored())
        if image.scores is None:
            raise ValueError(
                "no scores: give ImageResult(scores=...), the estimated IoU of each mask"
            )
        scores = image.scores.double().cpu().numpy()
        classes = (
            np.zeros(len(target), int) if image.classes is None else image.classes.cpu().numpy()
        )
        if len(classes) and not 0 <= classes.min() <= classes.max() < self.max_classes:
            raise ValueError(f"classes {classes.tolist()} must lie in 0 to {self.max_classes - 1}")
        for index in np.unique(classes):
            mine = classes == index
            real = mine & target.any((1, 2))
            order = np.flatnonzero(mine)[np.argsort(-scores[mine], kind="stable")][:MOST]
            fates = _fates(predicted[order], target[real])
            for place, (which, fate) in enumerate(zip(order, fates, strict=True)):
                row = [image.index, place, index, scores[which], *fate]
                self.keep(torch.tensor(row, dtype=torch.float64))
            area = target[real].sum((1, 2))[:, None]
            low, high = np.array(RANGES).T
            inside = ((area >= low) & (area <= high)).sum(0)
            self.targets[index] += torch.from_numpy(inside).to(self.targets)

    def values(self, sums: Mapping[str, Tensor], rows: Rows | None = None) -> dict[str, Tensor]:
        """The numbers of R sums at once, see :meth:`Streamed.values`."""
        assert rows is not None
        # COCO's order: by score, ties by image and place there
        keys = rows.table[:, [1, 0, 3]].T.numpy() * [[1], [1], [-1]]
        order = torch.from_numpy(np.lexsort(tuple(keys)))
        table, times, targets = rows.table[order], rows.times[:, order], sums["targets"]
        classes = targets.sum((0, 2)).nonzero()[:, 0]
        targets = targets[:, classes]
        shape = (len(RANGES), len(THRESHOLDS), len(classes), len(times))
        precision = torch.full(shape, torch.nan, dtype=torch.float64)
        for index, size in targets.sum(0).nonzero().tolist():
            mine = table[:, 2] == classes[index]
            passed, left_out = (_bits(table[mine, 4 + 2 * size + k].numpy()) for k in (0, 1))
            for t in range(len(THRESHOLDS)):
                counted = torch.from_numpy(~left_out[:, t])
                hits = torch.from_numpy(passed[:, t])[counted]
                there = times[:, mine][:, counted]
                precision[size, t, index] = _precision(hits, there, targets[:, index, size])
        flat = precision.flatten(1, 2)  # a range's thresholds and classes
        sizes = ("ap", "ap_small", "ap_medium", "ap_large")
        result = {name: flat[size].nanmean(0) for size, name in enumerate(sizes)}
        return result | {"ap50": precision[0, 0].nanmean(0), "ap75": precision[0, 5].nanmean(0)}


class SegmentationAccuracy(Streamed):
    """``TP / (TP + FP + FN)`` of one-to-one matches, over IoU thresholds 0.5 to 0.95 and images.

    The score of the 2018 Data Science Bowl (Caicedo et al. 2019, doi:10.1038/s41592-019-0612-7).
    Masks may overlap, so that the largest number of matches is looked for.

    Args:
        **kwargs: torchmetrics' own options.

    Raises:
        InputError: scipy is missing.
    """

    sums: Tensor
    """``(2,)``: how many images, and their summed score."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        need_scipy("msa")
        self.add_sums(sums=(2,))

    def update(self, image: ImageResult) -> None:
        """Adds one image."""
        predicted, target = (m[m.flatten(1).any(1)].cpu().numpy() for m in image.without_ignored())
        if len(predicted) or len(target):
            score = segmentation_accuracy(predicted, target)
            self.sums += torch.tensor([1.0, score], dtype=torch.float64).to(self.sums.device)

    def values(self, sums: Mapping[str, Tensor], rows: Rows | None = None) -> dict[str, Tensor]:
        """The numbers of R sums at once, see :meth:`Streamed.values`."""
        return {"msa": sums["sums"][:, 1] / sums["sums"][:, 0]}


def segmentation_accuracy(predicted: Bools, target: Bools) -> float:
    """The mean over thresholds for one image.

    Args:
        predicted: ``(D, h, w)``, none empty.
        target: ``(G, h, w)``, none empty; D or G is not 0.
    """
    from scipy.optimize import linear_sum_assignment

    iou = overlaps(predicted, target)
    scores = []
    for threshold in THRESHOLDS:
        near = iou >= threshold
        hits = int(near[linear_sum_assignment(near, maximize=True)].sum())
        scores.append(hits / (len(predicted) + len(target) - hits))
    return float(np.mean(scores))


def overlaps(predicted: Bools, target: Bools) -> Floats:
    """IoU of every predicted mask with every target: ``(D, h, w)`` and ``(G, h, w)`` to (D, G)."""
    from pycocotools import mask as coco

    if not len(predicted) or not len(target):
        return np.zeros((len(predicted), len(target)))
    packed = [
        coco.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))
        for masks in (predicted, target)
    ]
    return np.asarray(coco.iou(*packed, [0] * len(target)), np.float64)


def _fates(predicted: Bools, target: Bools) -> NDArray[np.int64]:
    """What becomes of each of an image's masks of one class, by falling score.

    Returns:
        ``(D, 8)``: for each range of area the thresholds passed and those without a count, as bits.
    """
    iou = overlaps(predicted, target)
    areas = [masks.sum((1, 2)) for masks in (predicted, target)]
    out = np.zeros((len(predicted), 2 * len(RANGES)), np.int64)
    for size, (low, high) in enumerate(RANGES):
        outside, ignored = ((area < low) | (area > high) for area in areas)
        for bit, threshold in enumerate(THRESHOLDS):
            passed, left_out = _match(iou, ignored, outside, threshold)
            out[:, 2 * size] |= passed.astype(np.int64) << bit
            out[:, 2 * size + 1] |= left_out.astype(np.int64) << bit
    return out


def _match(iou: Floats, ignored: Bools, outside: Bools, threshold: float) -> tuple[Bools, Bools]:
    """Each mask takes the nearest target left, one that counts before one that does not."""
    passed, left_out = np.zeros(len(iou), bool), outside.copy()
    free = np.ones(iou.shape[1], bool)
    for mask, row in enumerate(iou):
        for kind in (~ignored, ignored):
            near = np.flatnonzero(free & kind & (row >= min(threshold, 1 - 1e-10)))
            if len(near):
                best = near[row[near] == row[near].max()][-1]  # COCO takes the last of equals
                free[best] = False
                passed[mask], left_out[mask] = True, ignored[best]
                break
    return passed, left_out


def _precision(passed: Tensor, times: Tensor, targets: Tensor) -> Tensor:
    """The mean precision at 101 recalls, each the best at that recall or above: ``(R,)``.

    Args:
        passed: ``(n,)`` bool, by falling score.
        times: ``(R, n)``: how often each counts. Copies of one lie beside each other: what is best
            after the last of them is best after each.
        targets: ``(R,)``; the result is NaN where there is none.
    """
    hits, misses = (times * passed).cumsum(1), (times * ~passed).cumsum(1)
    precision = hits / (hits + misses + np.spacing(1))
    precision = precision.flip(1).cummax(1).values.flip(1) if len(passed) else precision
    wanted = torch.from_numpy(RECALLS).expand(len(times), -1).contiguous()
    at = torch.searchsorted((hits / targets[:, None]).contiguous(), wanted)
    ended = torch.cat([precision, precision.new_zeros(len(times), 1)], 1)
    return torch.where(targets > 0, ended.gather(1, at).mean(1), torch.nan)


def _bits(values: Floats) -> Bools:
    return (values.astype(np.int64)[:, None] >> np.arange(len(THRESHOLDS))) & 1 == 1
