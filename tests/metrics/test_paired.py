"""Paired tests: exact where few, as scipy has them where many, and corrected as Holm says."""

import numpy as np
import pytest

from samtune.metrics.paired import CHOICES, holm, least_p, sign_flip


def test_few_pairs_are_counted_exactly():
    assert sign_flip([1.0, 2.0, 3.0]) == 2 / 8  # all of one sign: it and its mirror
    assert sign_flip([3.0, 1.0, -2.0]) == 6 / 8  # |2|: all but the two of mean 0
    assert sign_flip([0.1, 0.2, -0.3]) == 1.0  # equal sums differ by rounding alone
    assert sign_flip([1.0, 2.0, 3.0, 0.0]) == 2 / 8  # no difference has no sign
    assert sign_flip([0.0, 0.0]) == 1.0
    assert sign_flip([]) is None and sign_flip([np.nan]) is None
    assert sign_flip([1.0, np.nan, 2.0]) == 2 / 4
    assert [least_p(n) for n in (1, 3, 5)] == [1.0, 0.25, 0.0625]


def test_many_pairs_agree_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(0)
    for shift in (0.0, 0.15, 0.3):
        pairs = random.normal(shift, 1, 60)
        theirs = stats.permutation_test(
            (pairs,), np.sum, permutation_type="samples", n_resamples=20_000, rng=random
        ).pvalue
        assert sign_flip(pairs) == pytest.approx(theirs, abs=0.02)
        # another test of the same question is near
        assert abs(sign_flip(pairs) - stats.wilcoxon(pairs).pvalue) < 0.15
    assert sign_flip(np.full(60, 0.1)) == 1 / (CHOICES + 1) == least_p(60)


def test_if_nothing_differs_a_small_p_is_rare():
    random = np.random.default_rng(1)
    found = [sign_flip(random.standard_t(3, 10)) for _ in range(300)]
    assert 0.02 <= np.mean(np.array(found) <= 0.05) <= 0.08


def test_holms_correction():
    corrected = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": None})
    assert corrected == {
        "a": pytest.approx(0.03), "b": pytest.approx(0.06), "c": pytest.approx(0.06), "d": None,
    }  # fmt: skip
    assert list(corrected) == ["a", "b", "c", "d"]
    assert holm({"a": 0.7, "b": 0.9}) == {"a": 1.0, "b": 1.0} and holm({}) == {}
