"""The saliency measures beside the same measures written as their papers say them."""

import numpy as np
import pytest
import torch

from samtune.metrics import Seen
from samtune.metrics.saliency import EPS, SaliencyMetrics, counts, s_measure, stretch, weighted_f

ndimage = pytest.importorskip("scipy.ndimage")
RNG = np.random.default_rng(3)


def blobs(shape, sigma):
    return ndimage.gaussian_filter(RNG.random(shape), sigma)


def images():
    """Maps and targets: smooth, noise with many equal distances, far away, and degenerate."""
    shape = (45, 62)
    for sigma in (0, 1, 4):
        smooth = blobs(shape, sigma)
        for quantile in (0.02, 0.5, 0.9, 0.999):
            target = smooth > np.quantile(smooth, quantile)
            for p in (
                target.astype(float),
                ndimage.gaussian_filter(target.astype(float), 2),
                RNG.random(shape),
            ):
                yield stretch(p), target
    far = np.zeros((9, 900), bool)
    far[4, 2:5] = True
    yield RNG.random(far.shape), far
    single = np.zeros(shape, bool)
    single[-1, -1] = True
    for target in (single, ~single, single & False, ~single | True):
        for p in (RNG.random(shape), np.zeros(shape), np.full(shape, 0.3), np.ones(shape)):
            yield p, target
    quarters = np.zeros(shape, bool)
    quarters[:20, :30] = True
    yield quarters * 0.7, quarters
    for other in ((1, 1), (1, 8), (2, 2), (8, 1)):  # fewer pixels than quarters, or than a kernel
        yield RNG.random(other), RNG.random(other) > 0.5


def plain_s(p, target, undefined):
    share = target.mean()
    if share in (0, 1):
        return p.mean() if share else 1 - p.mean()
    row, column = (round(float(at.mean())) + 1 for at in target.nonzero())
    parts = [(rows, columns) for rows in (slice(0, row), slice(row, None))
             for columns in (slice(0, column), slice(column, None))]  # fmt: skip
    if undefined == "zero" and min(
        target.sum(), (~target).sum(), *(p[part].size for part in parts)
    ) < 2:  # fmt: skip
        return 0.0

    def uniform(v):
        spread = v.std(ddof=1) if v.size > 1 else 0
        return 2 * v.mean() / (v.mean() ** 2 + 1 + spread + EPS)

    def alike(x, y):
        if not x.size:
            return 0.0
        dx, dy, below = x - x.mean(), y - y.mean(), x.size - 1 + EPS
        top = 4 * x.mean() * y.mean() * (dx * dy).sum() / below
        bottom = (x.mean() ** 2 + y.mean() ** 2) * ((dx**2).sum() + (dy**2).sum()) / below
        return top / (bottom + EPS) if top != 0 else float(bottom == 0)

    by_object = share * uniform(p[target]) + (1 - share) * uniform(1 - p[~target])
    by_region = sum(alike(p[part], target[part]) * p[part].size / p.size for part in parts)
    return max(0, 0.5 * by_object + 0.5 * by_region)


def plain_weighted_f(p, target, beta2):
    if not target.any():
        return 0.0
    distance, nearest = ndimage.distance_transform_edt(~target, return_indices=True)
    error = abs(p - target)
    kernel = np.exp(-(np.arange(-3, 4) ** 2) / 50)
    smooth = error[tuple(nearest)]
    for axis in (0, 1):
        smooth = ndimage.correlate1d(smooth, kernel / kernel.sum(), axis, mode="constant")
    least = np.where(target & (smooth < error), smooth, error)
    weighted = least * np.where(target, 1.0, 2 - np.exp(np.log(0.5) / 5 * distance))
    area, missed, wrong = target.sum(), weighted[target].sum(), weighted[~target].sum()
    recall, precision = 1 - missed / area, (area - missed) / (area - missed + wrong + EPS)
    return (1 + beta2) * recall * precision / (recall + beta2 * precision + EPS)


def test_the_measures_equal_their_definitions():
    for p, target in images():
        for undefined in ("part", "zero"):
            assert s_measure(p, target, undefined) == pytest.approx(
                plain_s(p, target, undefined), abs=1e-12
            )
        for beta2 in (1.0, 0.3):
            assert weighted_f(p, target, beta2) == pytest.approx(
                plain_weighted_f(p, target, beta2), abs=1e-12
            )
        hits, all_ = counts(p, target)
        above = [np.floor(p * 255) >= threshold for threshold in (255, 200, 128, 1, 0)]
        assert [hits[255 - k] for k in (255, 200, 128, 1, 0)] == [(m & target).sum() for m in above]
        assert [all_[255 - k] for k in (255, 200, 128, 1, 0)] == [m.sum() for m in above]


def test_ignored_pixels_are_outside_of_map_and_foreground():
    p, target, valid = RNG.random((30, 40)), RNG.random((30, 40)) > 0.6, RNG.random((30, 40)) > 0.3
    metrics = SaliencyMetrics(["mae", "weighted_f"])
    maps = (torch.from_numpy(each) for each in (p > 0.5, target, valid))
    predicted, truth, counted = maps
    metrics.update(
        Seen(predicted[None], truth[None], valid=counted, probability=torch.from_numpy(p))
    )
    low, high = p[valid].min(), p[valid].max()
    inside = np.where(valid, (p - low) / (high - low), 0)
    found = metrics.compute()
    assert found["mae"] == pytest.approx(abs(inside - target)[valid].mean())
    assert found["weighted_f"] == pytest.approx(plain_weighted_f(inside, target & valid, 1.0))
