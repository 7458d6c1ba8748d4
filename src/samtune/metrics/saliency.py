"""Measures of a saliency map against a binary foreground: MAE, S, E, F and weighted F.

Each measure follows its paper and the conventions of common toolboxes: the map is stretched to
0..1, and thresholds are the 256 levels of a byte.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samtune.metrics.boundaries import need_scipy
from samtune.metrics.image_result import ImageResult, probability_of
from samtune.metrics.streamed import Rows, Streamed

Map = NDArray[np.float64]
Mask = NDArray[np.bool_]
SALIENCY = (
    "mae", "s_measure", "e_mean", "e_max", "e_adaptive", "f_mean", "f_max", "f_adaptive",
    "weighted_f",
)  # fmt: skip
EPS = float(np.spacing(1))
SINGLES = ("mae", "s_measure", "e_adaptive", "f_adaptive", "weighted_f")


class SaliencyMetrics(Streamed):
    """Means over images of saliency measures, and of their curves over 256 thresholds.

    Ignored pixels are outside of both the map and the foreground.

    Args:
        metrics: The measures to compute; the weighted F takes most of the time, and needs scipy.
        beta2: Weight of precision in F.
        weighted_beta2: Weight of precision in the weighted F.
        undefined: The S-measure of an image with a region of one pixel or none: score that region
            as a uniform one, or, as in the code of TS-SAM and SAM-Adapter, 0 for the whole image.
        in_frame: Measure in the model's frame.
        **kwargs: torchmetrics' own options.

    Raises:
        InputError: The weighted F needs scipy, which is missing.
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
        if "weighted_f" in self.metrics:
            need_scipy("weighted_f")
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
        row = [1.0, *(self._single(name, stretched, target, counted) for name in SINGLES)]
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

    def _single(self, name: str, p: Map, target: Mask, counted: Mask) -> float:
        if name not in self.metrics:
            return 0.0
        if name == "mae":
            return float(np.abs(p - target)[counted].mean()) if counted.any() else 0.0
        if name == "s_measure":
            return s_measure(p, target, self.undefined)
        if name == "weighted_f":
            return weighted_f(p, target, self.weighted_beta2)
        taken = p >= min(2 * p.mean(), 1)
        hits, all_ = np.array([np.count_nonzero(taken & target)]), np.array([taken.sum()])
        area = int(np.count_nonzero(target))
        if name == "e_adaptive":
            return float(e_measure(hits, all_, area, target.size)[0])
        return float(f_measure(hits, all_, area, self.beta2)[0])


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
    counted = np.ones(p.shape, bool) if counted is None else counted
    if not counted.any():
        return np.zeros_like(p)
    low, high = p[counted].min(), p[counted].max()
    p = (p - low) / (high - low) if high > low else p
    return np.where(counted, p, 0.0)


def counts(p: Map, target: Mask) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pixels at or above each threshold, 255 first: on the target, and in all. ``(256,)`` each."""
    levels = (p * 255).astype(np.uint8)
    on = np.bincount(levels[target], minlength=256)[::-1].cumsum()
    return on, np.bincount(levels.ravel(), minlength=256)[::-1].cumsum()


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
    row, column = (int(np.round(at.mean())) + 1 for at in target.nonzero())
    quarters = [(slice(0, row), slice(0, column)), (slice(0, row), slice(column, w)),
                (slice(row, h), slice(0, column)), (slice(row, h), slice(column, w))]  # fmt: skip
    few = min(p[target].size, p[~target].size, *(p[part].size for part in quarters)) < 2
    if undefined == "zero" and few:
        return 0.0
    by_object = share * _uniform(p[target]) + (1 - share) * _uniform(1 - p[~target])
    by_region = sum(_alike(p[part], target[part]) * p[part].size / p.size for part in quarters)
    return float(max(0.0, 0.5 * by_object + 0.5 * by_region))


def weighted_f(p: Map, target: Mask, beta2: float = 1.0) -> float:
    """F with errors weighted by their position (Margolin et al. 2014); 0 without foreground.

    Args:
        p: ``(h, w)`` in 0..1.
        target: ``(h, w)``.
        beta2: Weight of precision.
    """
    from scipy.ndimage import correlate1d, distance_transform_edt

    if not target.any():
        return 0.0
    distance, nearest = distance_transform_edt(~target, return_indices=True)
    error = np.abs(p - target)
    # For smoothing, an error outside is replaced by that of the nearest pixel inside.
    kernel = np.exp(-(np.arange(-3, 4) ** 2) / (2 * 5**2))
    kernel /= kernel.sum()
    smooth = error[tuple(nearest)]
    for axis in (0, 1):
        smooth = correlate1d(smooth, kernel, axis, mode="constant")
    least = np.where(target & (smooth < error), smooth, error)
    weighted = least * np.where(target, 1.0, 2 - np.exp(math.log(0.5) / 5 * distance))
    area, missed, wrong = target.sum(), weighted[target].sum(), weighted[~target].sum()
    recall, precision = 1 - missed / area, (area - missed) / (area - missed + wrong + EPS)
    return float((1 + beta2) * recall * precision / (recall + beta2 * precision + EPS))


def _uniform(values: Map) -> float:
    """Similarity of values to 1 and to each other."""
    mean, spread = values.mean(), values.std(ddof=1) if values.size > 1 else 0.0
    return 2 * mean / (mean**2 + 1 + spread + EPS)


def _alike(p: Map, target: Mask) -> float:
    """Similarity of one region of map and target: luminance times contrast times structure."""
    if not p.size:
        return 0.0
    x, y, below = p.mean(), target.mean(), p.size - 1 + EPS
    dx, dy = p - x, target - y
    top = 4 * x * y * (dx * dy).sum() / below
    bottom = (x**2 + y**2) * ((dx**2).sum() + (dy**2).sum()) / below
    if top != 0:
        return float(top / (bottom + EPS))
    return 1.0 if bottom == 0 else 0.0
