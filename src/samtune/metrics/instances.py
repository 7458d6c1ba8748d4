"""Instances: COCO's average precision, and mean segmentation accuracy as for cell segmentation.

For each prompted mask only its score and the thresholds that it passed are kept, so memory grows by
a few numbers per mask.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samtune.metrics.boundaries import need_scipy
from samtune.metrics.image_result import ImageResult
from samtune.metrics.packed import PackedMasks
from samtune.metrics.regions import AREAS
from samtune.metrics.streamed import RowMetric, Rows, Streamed

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
RANGES = ((0.0, 1e10), (0.0, AREAS[0]), (AREAS[0], AREAS[1]), (AREAS[1], 1e10))
"""Pixels of area, both ends included as in COCO: all, small, medium, large."""
MOST = 100
"""Masks per image and class that count, the highest scores first."""
FIELDS = 4 + 2 * len(RANGES)

PAIRS = 4_000_000
"""Number of mask and target pairs whose IoU is computed at once."""

RunLengths = dict[str, Any]
"""A mask as pycocotools keeps it."""
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class AveragePrecision(RowMetric):
    """COCO's average precision (Lin et al. 2014, arXiv:1405.0312) of scored masks.

    Args:
        max_classes: Number of class indices: one more than the highest.
        **kwargs: torchmetrics' own options.
    """

    fields = FIELDS
    rows: Any
    """For each mask: image, position in it, class, score, and for each range of area, as bits, the
    thresholds that it passed and those at which it is not counted."""
    targets: Tensor
    """``(max_classes, 4)``: targets per class and range of area."""

    def __init__(self, max_classes: int = 1024, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_classes = max_classes
        self.add_sums(targets=(max_classes, len(RANGES)))

    def update(self, image: ImageResult) -> None:
        """Adds one image.

        Raises:
            ValueError: Masks without scores, or a class out of range.
        """
        if image.scores is None:
            raise ValueError(
                "no scores: give ImageResult(scores=...), the estimated IoU of each mask"
            )
        scores = image.scores.double().cpu().numpy()
        count = len(image.target)
        classes = np.zeros(count, int) if image.classes is None else image.classes.cpu().numpy()
        if len(classes) and not 0 <= classes.min() <= classes.max() < self.max_classes:
            raise ValueError(f"classes {classes.tolist()} must lie in 0 to {self.max_classes - 1}")
        target = [mask for part in _encoded(image, image.target) for mask in part]
        pixels = _areas(target)
        counted = image.counted()
        for index in np.unique(classes):
            mine = classes == index
            real = mine & (pixels > 0)
            order = np.flatnonzero(mine)[np.argsort(-scores[mine], kind="stable")][:MOST]
            predicted = [_run_lengths(image.predicted[i : i + 1] & counted)[0] for i in order]
            fates = _fates(predicted, [target[i] for i in np.flatnonzero(real)])
            for place, (which, fate) in enumerate(zip(order, fates, strict=True)):
                row = [image.index, place, index, scores[which], *fate]
                self.keep(torch.tensor(row, dtype=torch.float64))
            area = pixels[real][:, None]
            low, high = np.array(RANGES).T
            inside = ((area >= low) & (area <= high)).sum(0)
            self.targets[index] += torch.from_numpy(inside).to(self.targets)

    def values(self, sums: Mapping[str, Tensor], rows: Rows | None = None) -> dict[str, Tensor]:
        """The numbers of R sums at once, see :meth:`Streamed.values`."""
        assert rows is not None
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


class SegmentationAccuracy(Streamed):
    """``TP / (TP + FP + FN)`` of one-to-one matches, over IoU thresholds 0.5 to 0.95 and images.

    It is the score of the 2018 Data Science Bowl (Caicedo et al. 2019,
    doi:10.1038/s41592-019-0612-7). Masks may overlap, so the largest number of matches is searched
    for.

    Args:
        **kwargs: torchmetrics' own options.

    Raises:
        InputError: scipy is missing.
    """

    sums: Tensor
    """``(2,)``: number of images, and their summed score."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        need_scipy("msa")
        self.add_sums(sums=(2,))

    def update(self, image: ImageResult) -> None:
        """Adds one image."""
        target = [mask for part in _encoded(image, image.target) for mask in _filled(part)]
        score = _accuracy(map(_filled, _encoded(image, image.predicted)), target)
        if score is not None:
            self.sums += torch.tensor([1.0, score], dtype=torch.float64).to(self.sums.device)

    def values(self, sums: Mapping[str, Tensor], rows: Rows | None = None) -> dict[str, Tensor]:
        """The numbers of R sums at once, see :meth:`Streamed.values`."""
        return {"msa": sums["sums"][:, 1] / sums["sums"][:, 0]}


def overlaps(predicted: Bools, target: Bools) -> Floats:
    """IoU of every predicted mask with every target: ``(D, h, w)`` and ``(G, h, w)`` to (D, G)."""
    return _ious(*(_run_lengths(torch.from_numpy(masks)) for masks in (predicted, target)))


def _encoded(image: ImageResult, masks: Tensor | PackedMasks) -> Iterator[list[RunLengths]]:
    """Encodes masks of an image without the ignored pixels, some at a time."""
    counted, step = image.counted(), image.at_once
    for start in range(0, len(masks), step):
        yield _run_lengths(masks[start : start + step] & counted)


def _filled(masks: Sequence[RunLengths]) -> list[RunLengths]:
    return [mask for mask, area in zip(masks, _areas(masks), strict=True) if area]


def _run_lengths(masks: Tensor) -> list[RunLengths]:
    from pycocotools import mask as coco

    if not len(masks):
        return []
    return coco.encode(np.asfortranarray(masks.cpu().numpy().transpose(1, 2, 0).view(np.uint8)))


def _areas(masks: Sequence[RunLengths]) -> NDArray[np.int64]:
    """Pixels of each mask."""
    from pycocotools import mask as coco

    # one by one, because pycocotools counts a list's masks in a byte
    return np.array([int(coco.area(mask)) for mask in masks], np.int64)


def _ious(predicted: Sequence[RunLengths], target: Sequence[RunLengths]) -> Floats:
    """IoU of every predicted mask with every target: ``(D, G)``."""
    from pycocotools import mask as coco

    if not len(predicted) or not len(target):
        return np.zeros((len(predicted), len(target)))
    iou = coco.iou(list(predicted), list(target), [0] * len(target))
    return np.asarray(iou, np.float64)


def _accuracy(
    predicted: Iterable[Sequence[RunLengths]], target: Sequence[RunLengths]
) -> float | None:
    """Gives the mean over thresholds for one image; ``None`` if there is no mask at all.

    Args:
        predicted: ``D`` masks in several parts, none empty: those of noise take much memory.
        target: ``G`` masks, none empty.
    """
    from scipy.sparse import coo_array, csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    none = np.zeros(0, np.int64)
    rows, columns, values = [none], [none], [np.zeros(0)]
    count, step = 0, max(1, PAIRS // max(1, len(target)))
    for part in predicted:
        for start in range(0, len(part), step):  # of thousands of masks most pairs are apart
            iou = _ious(part[start : start + step], target)
            row, column = np.nonzero(iou >= THRESHOLDS[0])
            rows.append(row + count + start)
            columns.append(column)
            values.append(iou[row, column])
        count += len(part)
    if not count and not target:
        return None
    at, value = (np.concatenate(rows), np.concatenate(columns)), np.concatenate(values)
    scores = []
    for threshold in THRESHOLDS:
        near = value >= threshold
        pairs = (np.ones(near.sum(), np.int8), (at[0][near], at[1][near]))
        graph = csr_array(coo_array(pairs, shape=(count, len(target))))
        hits = int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum())
        scores.append(hits / (count + len(target) - hits))
    return float(np.mean(scores))


def _fates(predicted: Sequence[RunLengths], target: Sequence[RunLengths]) -> NDArray[np.int64]:
    """The outcome of each of an image's masks of one class, by falling score.

    Returns:
        ``(D, 8)``: for each range of area, as bits, the thresholds passed and those at which the
            mask is not counted.
    """
    iou = _ious(predicted, target)
    areas = [_areas(masks) for masks in (predicted, target)]
    out = np.zeros((len(predicted), 2 * len(RANGES)), np.int64)
    for size, (low, high) in enumerate(RANGES):
        outside, ignored = ((area < low) | (area > high) for area in areas)
        for bit, threshold in enumerate(THRESHOLDS):
            passed, left_out = _match(iou, ignored, outside, threshold)
            out[:, 2 * size] |= passed.astype(np.int64) << bit
            out[:, 2 * size + 1] |= left_out.astype(np.int64) << bit
    return out


def _match(iou: Floats, ignored: Bools, outside: Bools, threshold: float) -> tuple[Bools, Bools]:
    """Matches each mask with the closest free target, counted targets before uncounted ones."""
    passed, left_out = np.zeros(len(iou), bool), outside.copy()
    free = np.ones(iou.shape[1], bool)
    for mask, row in enumerate(iou):
        for kind in (~ignored, ignored):
            near = np.flatnonzero(free & kind & (row >= min(threshold, 1 - 1e-10)))
            if len(near):
                best = near[row[near] == row[near].max()][-1]  # among equals, COCO takes the last
                free[best] = False
                passed[mask], left_out[mask] = True, ignored[best]
                break
    return passed, left_out


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
