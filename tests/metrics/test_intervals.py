"""Bootstrap intervals: of the number that is shown, seeded, paired, as wide as they should be."""

import math

import numpy as np
import pytest

from samtune.metrics import intervals
from samtune.metrics.intervals import draws, expanded_tail, interval, outside, t_quantile


def test_each_draw_has_as_many_images_and_all_models_get_the_same(monkeypatch):
    counts = np.concatenate(list(draws(7)))
    assert counts.shape == (intervals.RESAMPLES, 7)
    assert (counts.sum(1) == 7).all() and abs(counts.mean() - 1) < 1e-12
    assert len(np.unique(counts, axis=0)) > 500
    assert np.array_equal(counts, np.concatenate(list(draws(7))))
    # fewer draws are the first of many, and blocks of them are the whole
    monkeypatch.setattr(intervals, "ENTRIES", 70)
    blocks = list(draws(7, 25))
    assert [len(block) for block in blocks] == [10, 10, 5]


def test_students_quantiles():
    stats = pytest.importorskip("scipy.stats")
    for freedom in (1, 2, 3, 4, 7, 15, 99):
        expected = stats.t.ppf(0.975, freedom)
        assert t_quantile(0.975, freedom) == pytest.approx(expected, rel=2e-3)
    assert expanded_tail(10_000) == pytest.approx(0.025, abs=1e-4)
    assert expanded_tail(5) < 0.5 * expanded_tail(10) < 0.025


def test_many_images_give_scipys_percentile_interval():
    stats = pytest.importorskip("scipy.stats")
    sample = np.random.default_rng(3).beta(6, 2, 400)
    theirs = stats.bootstrap(
        (sample,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    ours = interval(np.concatenate(list(draws(400))) @ sample / 400, 400)
    width = theirs.high - theirs.low
    assert ours == pytest.approx(list(theirs), abs=0.1 * width)


def coverage(images, experiments=400):
    """How often an interval of the mean of skewed IoUs covers the true mean."""
    random = np.random.default_rng(images)
    counts = np.concatenate(list(draws(images, 500)))
    hits = 0
    for _ in range(experiments):
        failed = random.random(images) < 0.15
        iou = np.where(failed, random.beta(1, 6, images), random.beta(9, 2, images))
        low, high = interval(counts @ iou / images, images)
        hits += low <= 0.15 / 7 + 0.85 * 9 / 11 <= high
    return hits / experiments


def test_an_interval_covers_the_truth_as_often_as_it_says_if_images_are_not_few():
    assert 0.92 <= coverage(60) <= 0.98
    assert coverage(intervals.FEW) >= 0.88
    assert coverage(5) < 0.88  # which is why few images are remarked


def test_what_has_no_interval():
    values = np.array([0.1, 0.2, 0.3, math.nan])
    assert interval(values, 1) is None  # one image says nothing of others
    assert interval(values, 3) is not None
    assert interval(np.array([0.1, math.nan, math.nan]), 3) is None
    assert interval(np.full(9, math.nan), 3) is None
    assert interval(np.full(9, 0.5), 3) == [0.5, 0.5]
    assert [outside(ends) for ends in (None, [-0.1, 0.2], [0.1, 0.2], [-0.2, -0.1])] == [
        False, False, True, True,
    ]  # fmt: skip
