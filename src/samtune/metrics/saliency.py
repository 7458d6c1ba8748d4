"""Measures of a saliency map against a binary foreground: MAE, S, E, F and weighted F.

Each measure follows its paper and the conventions of common toolboxes: the map is stretched to
0..1, and thresholds are the 256 levels of a byte.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from typing import Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samtune.metrics.image_result import ImageResult, probability_of
from samtune.metrics.streamed import Rows, Streamed

Map = NDArray[np.float64]
Mask = NDArray[np.bool_]
SALIENCY = (
    "mae", "s_measure", "e_mean", "e_max", "e_adaptive", "f_mean", "f_max", "f_adaptive",
    "weighted_f",
)  # fmt: skip
EPS = float(np.spacing(1))
REACH = 3
"""Pixels to each side of the smoothing kernel of the weighted F."""
EDGE = math.isqrt(2 * REACH**2)
"""How far a row or column the foreground may lie that is nearest to a pixel in that kernel."""
AT_ONCE = 2**15
"""Pixels of a block of rows."""
SINGLES = ("mae", "s_measure", "e_adaptive", "f_adaptive", "weighted_f")


class SaliencyMetrics(Streamed):
    """Means over images of saliency measures, and of their curves over 256 thresholds.

    Ignored pixels are outside of both the map and the foreground.

    Args:
        metrics: The measures to compute; the weighted F takes most of the time.
        beta2: Weight of precision in F.
        weighted_beta2: Weight of precision in the weighted F.
        undefined: The S-measure of an image with a region of one pixel or none: score that region
            as a uniform one, or, as in the code of TS-SAM and SAM-Adapter, 0 for the whole image.
        in_frame: Measure in the model's frame.
        **kwargs: torchmetrics' own options.
    """

    sums: Tensor
    """``(6,)``: number of images, and the sums of the measures with one value per image."""
    curves: Tensor
    """``(2, 256)``: summed E and F at each threshold, from the highest to 0."""

    def __init__(
        self,
        metrics: Collection[str] = SALIENCY,
        beta2: float = 0.3,
        weighted_beta2: float = 1.0,
        undefined: Literal["part", "zero"] = "part",
        in_frame: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.metrics, self.beta2, self.weighted_beta2 = frozenset(metrics), beta2, weighted_beta2
        self.undefined, self.in_frame = undefined, in_frame
        self.add_sums(sums=(len(SINGLES) + 1,), curves=(2, 256))

    def update(self, image: ImageResult) -> None:
        """Adds one image.

        Raises:
            ValueError: It has no probability map, or no view of the model's frame.
        """
        if self.in_frame:
            image = frame_of(image)
        counted = image.counted().cpu().numpy()
        probability = probability_of(image).double().cpu().numpy()
        stretched = stretch(probability, counted)
        target = image.union()[1].cpu().numpy()
        values = self._of_image(stretched, target, counted)
        row = [1.0, *(values.get(name, 0.0) for name in SINGLES)]
        self.sums += torch.tensor(row, dtype=torch.float64).to(self.sums.device)
        if self.metrics & {"e_mean", "e_max", "f_mean", "f_max"}:
            hits, all_ = counts(stretched, target)
            size, area = target.size, int(np.count_nonzero(target))
            curves = np.stack(
                [e_measure(hits, all_, area, size), f_measure(hits, all_, area, self.beta2)]
            )
            self.curves += torch.from_numpy(curves).to(self.curves.device)

    def values(self, sums: Mapping[str, Tensor], rows: Rows | None = None) -> dict[str, Tensor]:
        """The metrics from R sums at once, see :meth:`Streamed.values`."""
        count, *totals = sums["sums"].unbind(-1)
        found = {name: total / count for name, total in zip(SINGLES, totals, strict=True)}
        curves = sums["curves"] / count[:, None, None]
        for name, curve in zip("ef", curves.unbind(1), strict=True):
            found |= {f"{name}_mean": curve.mean(-1), f"{name}_max": curve.amax(-1)}
        return {name: value for name, value in found.items() if name in self.metrics}

    def _of_image(self, p: Map, target: Mask, counted: Mask) -> dict[str, float]:
        """The chosen measures that have one value per image."""
        values = {}
        if "mae" in self.metrics:
            size = np.count_nonzero(counted)  # elsewhere neither has anything, and no error is
            error = sum(float(np.abs(q - t).sum()) for q, t in _blocks(p, target))
            values["mae"] = error / size if size else 0.0
        if "s_measure" in self.metrics:
            values["s_measure"] = s_measure(p, target, self.undefined)
        if "weighted_f" in self.metrics:
            values["weighted_f"] = weighted_f(p, target, self.weighted_beta2)
        if self.metrics & {"e_adaptive", "f_adaptive"}:
            taken, area = p >= min(2 * p.mean(), 1), int(np.count_nonzero(target))
            hits, all_ = (np.array([np.count_nonzero(m)]) for m in (taken & target, taken))
            values["e_adaptive"] = float(e_measure(hits, all_, area, target.size)[0])
            values["f_adaptive"] = float(f_measure(hits, all_, area, self.beta2)[0])
        return {name: value for name, value in values.items() if name in self.metrics}


def frame_of(image: ImageResult) -> ImageResult:
    """The same image in the model's frame.

    Raises:
        ValueError: The result does not have it.
    """
    if image.frame is None:
        raise ValueError("no view of the model's frame: give ImageResult(frame=...)")
    return image.frame


def stretch(p: Map, counted: Mask | None = None) -> Map:
    """Stretches a map's values to 0..1; ignored pixels become 0, a constant map stays.

    Args:
        p: ``(h, w)`` in 0..1.
        counted: ``(h, w)``; ``None`` for everywhere.
    """
    counted = None if counted is None or counted.all() else counted
    values = p if counted is None else p[counted]
    if not values.size:
        return np.zeros_like(p)
    low, high = values.min(), values.max()
    if high > low:
        p = p - low
        p /= high - low
    return p if counted is None else np.where(counted, p, 0.0)


def counts(p: Map, target: Mask) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pixels at or above each threshold, 255 first: on the target, and in all. ``(256,)`` each."""
    levels = np.zeros(512, np.int64)  # those of target pixels are the upper 256
    for q, on in _blocks(p, target):
        level = (q * 255).astype(np.uint8) + on * np.int64(256)
        levels += np.bincount(level.ravel(), minlength=512)
    off, hits = levels.reshape(2, 256)[:, ::-1].cumsum(1)
    return hits, hits + off


def _blocks(*maps: NDArray[Any]) -> Iterator[tuple[NDArray[Any], ...]]:
    """The same few rows of several maps at a time: what is computed of them stays in the cache."""
    step = max(1, AT_ONCE // max(1, maps[0].shape[1]))
    for start in range(0, len(maps[0]), step):
        yield tuple(each[start : start + step] for each in maps)


def e_measure(
    hits: NDArray[np.int64], predicted: NDArray[np.int64], area: int, size: int
) -> NDArray[np.float64]:
    """The enhanced alignment of binary maps with a target (Fan et al. 2018, arXiv:1805.10421).

    Args:
        hits: Foreground pixels of each map that lie on the target.
        predicted: All foreground pixels of each map, with the same shape.
        area: Pixels of the target.
        size: Pixels of the image.

    Returns:
        One value per map; a perfect map scores ``size / (size - 1)``, as in the authors' code.
    """
    if area in (0, size):
        alike = predicted if area else size - predicted
        return alike / (size - 1 + EPS)
    means = predicted / size, area / size
    total = np.zeros(len(predicted))
    cells = {
        (1, 1): hits,
        (1, 0): predicted - hits,
        (0, 1): area - hits,
        (0, 0): size - predicted - (area - hits),
    }
    for (in_map, in_target), pixels in cells.items():
        a, b = in_map - means[0], in_target - means[1]
        total += pixels * (2 * a * b / (a**2 + b**2 + EPS) + 1) ** 2 / 4
    return total / (size - 1 + EPS)


def f_measure(
    hits: NDArray[np.int64], predicted: NDArray[np.int64], area: int, beta2: float
) -> NDArray[np.float64]:
    """F of binary maps (Achanta et al. 2009): 0 if no target pixel is predicted.

    For arguments see :func:`e_measure`; ``beta2`` weighs precision.
    """
    precision, recall = hits / np.maximum(predicted, 1), hits / max(area, 1)
    below = beta2 * precision + recall
    return (1 + beta2) * precision * recall / np.where(hits > 0, below, 1)


def s_measure(p: Map, target: Mask, undefined: Literal["part", "zero"] = "part") -> float:
    """Structural similarity of a map and a target (Fan et al. 2017, arXiv:1708.00786), alpha 0.5.

    Args:
        p: ``(h, w)`` in 0..1.
        target: ``(h, w)``.
        undefined: See :class:`SaliencyMetrics`.

    Returns:
        A value in 0..1; without foreground 1 minus the map's mean, without background its mean.
    """
    share = target.mean()
    if share in (0, 1):
        return float(p.mean() if share else 1 - p.mean())
    h, w = target.shape
    sums = cv2.moments(target.view(np.uint8), binaryImage=True)
    row, column = (int(np.round(sums[at] / sums["m00"])) + 1 for at in ("m01", "m10"))
    quarters = [(slice(0, row), slice(0, column)), (slice(0, row), slice(column, w)),
                (slice(row, h), slice(0, column)), (slice(row, h), slice(column, w))]  # fmt: skip
    area = int(sums["m00"])
    few = min(area, p.size - area, *(p[part].size for part in quarters)) < 2
    if undefined == "zero" and few:
        return 0.0
    alike = sum(_alike(p[part], target[part]) * p[part].size / p.size for part in quarters)
    return float(max(0.0, 0.5 * _objects(p, target, area) + 0.5 * alike))


def weighted_f(p: Map, target: Mask, beta2: float = 1.0) -> float:
    """F with errors weighted by their position (Margolin et al. 2014); 0 without foreground.

    Args:
        p: ``(h, w)`` in 0..1.
        target: ``(h, w)``.
        beta2: Weight of precision.
    """
    if not target.any():
        return 0.0
    outside = (~target).view(np.uint8)
    distance = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    smooth = _smooth_errors(p, target, distance)
    area, missed, wrong = np.count_nonzero(target), 0.0, 0.0
    for q, on, far, s in _blocks(p, target, distance, smooth):
        inside = on.astype(float)
        missed += np.vdot(np.minimum(1 - q, s), inside)
        squared = np.rint(far * far).astype(np.intp)
        wrong += np.vdot(q * (1 - inside), _weights().take(squared, mode="clip"))
    recall, precision = 1 - missed / area, (area - missed) / (area - missed + wrong + EPS)
    return float((1 + beta2) * recall * precision / (recall + beta2 * precision + EPS))


@cache
def _weights() -> NDArray[np.float64]:
    """The weight of an error by its squared distance from the foreground.

    The last one, 2, is that of all further distances, whose weights differ by less than rounding.
    """
    return 2 - np.exp(math.log(0.5) / 5 * np.sqrt(np.arange(280**2)))


@cache
def _steps() -> dict[int, list[tuple[int, int]]]:
    """The steps to pixels at each squared distance from 1 to that of the kernel's corner.

    They are columns and rows. Of pixels that are equally near the first is taken by columns, as
    scipy's transform does.
    """
    steps: dict[int, list[tuple[int, int]]] = {}
    for column in range(-EDGE, EDGE + 1):
        for row in range(-EDGE, EDGE + 1):
            steps.setdefault(column**2 + row**2, []).append((column, row))
    return {square: steps[square] for square in sorted(steps) if 0 < square <= 2 * REACH**2}


def _smooth_errors(p: Map, target: Mask, distance: NDArray[Any]) -> Map:
    """The errors of the foreground, smoothed; what it returns outside has no meaning.

    An error outside is replaced by that of the nearest pixel inside. The kernel reaches few pixels,
    so this is done near the foreground only.

    Args:
        p: ``(h, w)`` in 0..1.
        target: ``(h, w)``.
        distance: ``(h, w)`` from the foreground, 0 in it.
    """
    (h, w), width = p.shape, p.shape[1] + 2 * EDGE
    error, inside = np.zeros((h + 2 * EDGE, width)), np.pad(target, EDGE).ravel()
    middle = error[EDGE:-EDGE, EDGE:-EDGE]
    for out, q, on in _blocks(middle, p, target):
        np.abs(q - on.astype(float), out=out)
    near = np.flatnonzero((distance > 0) & (distance < EDGE + 0.5))
    squared = np.rint(distance.ravel()[near] ** 2).astype(int)
    rows, columns = np.divmod(near, w)
    near = (rows + EDGE) * width + columns + EDGE
    for square, steps in _steps().items():
        left = near[squared == square]
        for column, row in steps:
            at = left + (row * width + column)
            hit = inside[at]
            error.ravel()[left[hit]] = error.ravel()[at[hit]]
            left = left[~hit]
    kernel = np.exp(-(np.arange(-REACH, REACH + 1) ** 2) / (2 * 5**2))
    kernel /= kernel.sum()
    smooth = cv2.sepFilter2D(middle, -1, kernel, kernel, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(smooth, np.float64)


def _objects(p: Map, target: Mask, area: int) -> float:
    """Similarity of the foreground's values to 1, and the background's to 0, each to each other."""
    total = float(p.sum())
    on = sum(float(np.vdot(q, t.astype(float))) for q, t in _blocks(p, target))
    means = on / area, 1 - (total - on) / (p.size - area)
    squares = np.zeros(2)
    for q, t in _blocks(p, target):
        apart, inside = np.square(q - np.where(t, means[0], 1 - means[1])), t.astype(float)
        squares += np.vdot(apart, inside), np.vdot(apart, 1 - inside)
    score = 0.0
    for size, mean, square in zip((area, p.size - area), means, squares, strict=True):
        spread = math.sqrt(max(0.0, square) / max(1, size - 1))
        score += size / p.size * 2 * mean / (mean**2 + 1 + spread + EPS)
    return score


def _alike(p: Map, target: Mask) -> float:
    """Similarity of one region of map and target: luminance times contrast times structure."""
    if not p.size:
        return 0.0
    size, area = p.size, int(np.count_nonzero(target))
    x, y, below = p.mean(), area / size, size - 1 + EPS
    if area in (0, size):
        return float((p == x).all())
    squares, common = area * (size - area) / size, 0.0
    for q, t in _blocks(p, target):
        apart = q - x
        squares += np.vdot(apart, apart)
        common += np.vdot(apart, t.astype(float))
    top, bottom = 4 * x * y * common / below, (x**2 + y**2) * squares / below
    return float(top / (bottom + EPS))
