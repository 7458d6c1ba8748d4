"""Instances: average precision, segmentation accuracy, panoptic quality, Jaccard index and counts.

For each mask only its score and the thresholds that it passed are kept, so memory grows by a few
numbers per mask.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samtune.metrics.boundaries import need_scipy
from samtune.metrics.image_result import ImageResult
from samtune.metrics.instance_result import Floats, InstanceResult, Overlaps, Whole
from samtune.metrics.matching import (
    best_sum_pairs,
    by_falling_score,
    candidates_of,
    closest_pairs,
    largest_number,
)
from samtune.metrics.regions import AREAS
from samtune.metrics.streamed import RowMetric, Rows, Streamed

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
RANGES = ((0.0, 1e10), (0.0, AREAS[0]), (AREAS[0], AREAS[1]), (AREAS[1], 1e10))
"""Pixels of area, both ends included as in COCO: all, small, medium, large."""
SIZES = ("", "_small", "_medium", "_large")
"""Endings of the names of the metrics by size."""
FIELDS = 4 + 2 * len(RANGES)
HALF = 0.5
"""The IoU that matches of panoptic quality exceed."""

Bools = NDArray[np.bool_]


def instances_of(image: ImageResult | InstanceResult) -> InstanceResult:
    """The instances of an image; of prompted masks each mask is one."""
    return image.instances if isinstance(image, ImageResult) else image


class AveragePrecision(RowMetric):
    """COCO's average precision (Lin et al. 2014, arXiv:1405.0312) of scored masks.

    Args:
        max_classes: Number of class indices: one more than the highest.
        **kwargs: torchmetrics' own options.
    """

    fields = FIELDS
    rows: Any
    """One row per mask: image, position in it, class, score, and by range of area, as bits, the
    thresholds that it passed and those at which it is not counted."""
    targets: Tensor
    """``(max_classes, 4)``: targets per class and range of area."""

    def __init__(self, max_classes: int = 1024, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_classes = max_classes
        self.add_sums(targets=(max_classes, len(RANGES)))

    def update(self, image: ImageResult | InstanceResult) -> None:
        """Adds one image.

        Raises:
            ValueError: Masks without scores, or a class out of range.
        """
        result = instances_of(image)
        if result.scores is None:
            raise ValueError(
                "no scores: give ImageResult(scores=...), the estimated IoU of each mask"
            )
        overlaps, classes = result.overlaps, result.classes
        for each in classes:
            if len(each) and not 0 <= each.min() <= each.max() < self.max_classes:
                raise ValueError(f"classes {each.tolist()} must lie in 0 to {self.max_classes - 1}")
        for index in np.unique(np.concatenate(classes)):
            mine, real = classes[0] == index, (classes[1] == index) & (overlaps.target > 0)
            order = np.argsort(-result.scores[mine], kind="stable")[: result.limit]
            some = np.zeros(len(mine), bool)
            some[np.flatnonzero(mine)[order]] = True
            rank = np.argsort(-result.scores[some], kind="stable")
            fates = _fates(overlaps.only(some, real).in_order(rank))
            rows = np.zeros((len(rank), self.fields))
            rows[:, 0], rows[:, 1], rows[:, 2] = result.index, np.arange(len(rank)), index
            rows[:, 3], rows[:, 4:] = result.scores[some][rank], fates
            for row in torch.from_numpy(rows):
                self.keep(row)
            area = overlaps.target[real][:, None]
            low, high = np.array(RANGES).T
            inside = ((area >= low) & (area <= high)).sum(0)
            self.targets[index] += torch.from_numpy(inside).to(self.targets)

    def values(self, sums: Mapping[str, Tensor], rows: Rows | None = None) -> dict[str, Tensor]:
        """The numbers of R sums at once, see :meth:`Streamed.values`."""
        if rows is None:  # no image has a mask
            draws = len(sums["targets"])
            rows = Rows(torch.zeros(0, self.fields).double(), torch.zeros(draws, 0).double())
        # COCO's order: by score, ties by image and position in it
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


class InstanceScores(Streamed):
    """Segmentation accuracy, panoptic quality, aggregated Jaccard index and counts.

    :mod:`samtune.metrics.contract` defines them. By size a match and a target count for the
    target's size, and a mask without a match for its own.

    Args:
        metrics: The names that are wanted; ``aji_plus`` needs scipy.
        max_classes: Number of class indices: one more than the highest.
        **kwargs: torchmetrics' own options.

    Raises:
        InputError: scipy is missing.
    """

    class_states = ("panoptic",)

    accuracy: Tensor
    """``(4, 4)``: for each size the number of images, and their summed accuracy: over thresholds,
    at 0.5, at 0.75."""
    panoptic: Tensor
    """``(max_classes, 4, 4)``: for each class and size matches, their summed IoU, masks without a
    match, targets without one."""
    jaccard: Tensor
    """``(5, 2)``: images and their summed index, for each size, and with the best matches."""
    counts: Tensor
    """``(4, 5)``: for each size images, the summed difference of counts, its magnitude; images with
    targets, and their summed relative difference."""

    def __init__(
        self, metrics: Collection[str] = (), max_classes: int = 1024, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.best_matches = "aji_plus" in metrics
        if self.best_matches:
            need_scipy("aji_plus")
        self.max_classes, sizes = max_classes, len(SIZES)
        self.add_sums(
            accuracy=(sizes, 4),
            panoptic=(max_classes, sizes, 4),
            jaccard=(sizes + 1, 2),
            counts=(sizes, 5),
        )

    def update(self, image: ImageResult | InstanceResult) -> None:
        """Adds one image."""
        result = instances_of(image)
        overlaps = result.overlaps.that_count()
        sizes = Sizes(overlaps)
        accuracy, jaccard = _accuracy(overlaps, sizes), np.zeros((len(SIZES) + 1, 2))
        jaccard[:-1] = _jaccard(overlaps, sizes)
        if self.best_matches:
            jaccard[-1] = _best_jaccard(overlaps)
        for name, sums in (
            ("accuracy", accuracy), ("jaccard", jaccard), ("counts", sizes.differences())
        ):  # fmt: skip
            state = getattr(self, name)
            state += torch.from_numpy(sums).to(state)
        classes = result.classes
        for index in np.unique(np.concatenate(classes)):
            part = result.overlaps.only(*(each == index for each in classes)).that_count()
            quality = torch.from_numpy(_panoptic(part, Sizes(part)))
            self.panoptic[index] += quality.to(self.panoptic)

    def values(self, sums: Mapping[str, Tensor], rows: Rows | None = None) -> dict[str, Tensor]:
        """The numbers of R sums at once, see :meth:`Streamed.values`."""
        accuracy, panoptic, jaccard = sums["accuracy"], sums["panoptic"], sums["jaccard"]
        matches, iou, extra, missed = panoptic.unbind(-1)  # R classes 4
        whole = matches + (extra + missed) / 2  # 0 of 0 is NaN, and left out
        quality = (iou / whole).nanmean(1)
        index, counts = jaccard[..., 1] / jaccard[..., 0], sums["counts"]
        result = {
            "sa50": accuracy[:, 0, 2] / accuracy[:, 0, 0],
            "sa75": accuracy[:, 0, 3] / accuracy[:, 0, 0],
            "sq": (iou / matches.clip(min=1)).where(whole > 0, torch.nan)[..., 0].nanmean(1),
            "rq": (matches / whole)[..., 0].nanmean(1),
            "aji_plus": index[:, -1],
            "count_bias": counts[:, 0, 1] / counts[:, 0, 0],
            "count_error_relative": counts[:, 0, 4] / counts[:, 0, 3],
        }
        for k, size in enumerate(SIZES):
            result[f"msa{size}"] = accuracy[:, k, 1] / accuracy[:, k, 0]
            result[f"pq{size}"] = quality[:, k]
            result[f"aji{size}"] = index[:, k]
            result[f"count_error{size}"] = counts[:, k, 2] / counts[:, k, 0]
        return result


class Sizes:
    """The sizes of an image's masks and targets: small, medium, large by COCO's areas.

    Args:
        overlaps: The masks and targets that count.
    """

    def __init__(self, overlaps: Overlaps) -> None:
        self.of_masks, self.of_targets = (
            np.digitize(areas, AREAS) for areas in (overlaps.predicted, overlaps.target)
        )

    @staticmethod
    def sums(sizes: Whole, values: NDArray[Any] | None = None) -> Floats:
        """Values summed over all sizes and for each: ``(4,)``; without values the counts."""
        by_size = np.bincount(sizes, values, minlength=len(AREAS) + 1)
        return np.append(by_size.sum(), by_size).astype(np.float64)

    def differences(self) -> Floats:
        """The row of ``counts`` of :class:`InstanceScores`, ``(4, 5)``."""
        targets = self.sums(self.of_targets)
        error = self.sums(self.of_masks) - targets
        there = targets > 0
        relative = np.abs(error) / np.maximum(targets, 1) * there
        return np.stack([np.ones(len(SIZES)), error, np.abs(error), there, relative], 1)


def _fates(overlaps: Overlaps) -> NDArray[np.int64]:
    """The outcome of an image's masks of one class, by falling score.

    Returns:
        ``(D, 8)``: for each range of area, as bits, the thresholds passed and those at which the
            mask is not counted.
    """
    out = np.zeros((len(overlaps.predicted), 2 * len(RANGES)), np.int64)
    candidates = candidates_of(overlaps, THRESHOLDS[0])
    for size, (low, high) in enumerate(RANGES):
        outside, uncounted = (
            (area < low) | (area > high) for area in (overlaps.predicted, overlaps.target)
        )
        for bit, threshold in enumerate(THRESHOLDS):
            passed, left_out = by_falling_score(
                candidates, uncounted, outside, overlaps.ignored, threshold
            )
            out[:, 2 * size] |= passed.astype(np.int64) << bit
            out[:, 2 * size + 1] |= left_out.astype(np.int64) << bit
    return out


def _accuracy(overlaps: Overlaps, sizes: Sizes) -> Floats:
    """The row of ``accuracy`` of an image: ``(4, 4)``; zero for a size that it does not have.

    The matches are the largest number of one-to-one pairs at a threshold, as in StarDist and
    Cellpose. For the sizes one such choice is taken, the one that lets the closest choose first.
    """
    masks, targets = sizes.sums(sizes.of_masks), sizes.sums(sizes.of_targets)
    closest = closest_pairs(overlaps, np.nextafter(HALF, 0))
    scores = np.zeros((len(SIZES), len(THRESHOLDS)))
    for k, threshold in enumerate(THRESHOLDS):
        near = overlaps.iou >= threshold
        pairs = closest[near[closest]]
        matches = sizes.sums(sizes.of_targets[overlaps.column[pairs]])
        matches[0] = largest_number(overlaps.row[near], overlaps.column[near])
        of_masks = sizes.sums(sizes.of_masks[overlaps.row[pairs]])
        of_masks[0] = matches[0]
        # matched and missed targets, and masks without a match
        scores[:, k] = matches / np.maximum(targets + masks - of_masks, 1)
    there = masks + targets > 0
    row = np.stack([np.ones(len(SIZES)), scores.mean(1), scores[:, 0], scores[:, 5]], 1)
    return row * there[:, None]


def _panoptic(overlaps: Overlaps, sizes: Sizes) -> Floats:
    """The row of ``panoptic`` of an image and class: ``(4, 4)``."""
    pairs = closest_pairs(overlaps, HALF)
    target_sizes = sizes.of_targets[overlaps.column[pairs]]
    matches = sizes.sums(target_sizes)
    extra = sizes.sums(sizes.of_masks) - sizes.sums(sizes.of_masks[overlaps.row[pairs]])
    iou = sizes.sums(target_sizes, overlaps.iou[pairs])
    return np.stack([matches, iou, extra, sizes.sums(sizes.of_targets) - matches], 1)


def _jaccard(overlaps: Overlaps, sizes: Sizes) -> Floats:
    """The row of ``jaccard`` of an image, ``(4, 2)``: each target with the mask closest to it."""
    order = np.lexsort((overlaps.row, -overlaps.iou, overlaps.column))
    pairs = order[np.unique(overlaps.column[order], return_index=True)[1]]
    common = sizes.sums(sizes.of_targets[overlaps.column[pairs]], overlaps.pixels[pairs])
    beyond = overlaps.predicted[overlaps.row[pairs]] - overlaps.pixels[pairs]
    union = sizes.sums(sizes.of_targets, overlaps.target)
    union += sizes.sums(sizes.of_targets[overlaps.column[pairs]], beyond)
    unused = np.ones(len(overlaps.predicted), bool)
    unused[overlaps.row[pairs]] = False
    union += sizes.sums(sizes.of_masks[unused], overlaps.predicted[unused])
    return np.stack([union > 0, common / np.maximum(union, 1)], 1)


def _best_jaccard(overlaps: Overlaps) -> Floats:
    """The same with the one-to-one matches of the largest sum of IoU, ``(2,)``."""
    common = int(overlaps.pixels[best_sum_pairs(overlaps)].sum())
    union = int(overlaps.predicted.sum() + overlaps.target.sum()) - common
    return np.array([union > 0, common / max(union, 1)], np.float64)


def _precision(passed: Tensor, times: Tensor, targets: Tensor) -> Tensor:
    """The mean precision at 101 recalls, each the best at that recall or above: ``(R,)``.

    Args:
        passed: ``(n,)`` bool, by falling score.
        times: ``(R, n)``: how often each mask counts. Copies of a mask are adjacent, so the best
            value after the last copy is the best after each.
        targets: ``(R,)``; the result is NaN for 0.
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
