"""Comparison of two models: paired permutation tests, with Holm's correction for many of them.

If two models are equally good, chance decides which answer to an image is better, so each
difference could as well have the opposite sign. The test counts the fraction of all choices of
signs whose mean difference is at least as large.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

EXACT = 14
"""Largest number of pairs for which all choices of signs are counted, ``2**14`` of them."""
CHOICES = 19_999
"""Number of sign choices that are drawn for more pairs."""
BLOCK = 2_000_000
"""Number of choices times pairs that are held in memory at once."""
SEED = 20

Key = TypeVar("Key")


def sign_flip(differences: ArrayLike) -> float | None:
    """The two-sided p value of a paired sign-flip test of the mean difference (Fisher 1935).

    The value is exact for up to :data:`EXACT` non-zero differences. For more it is estimated from
    :data:`CHOICES` drawn choices, including the observed one.

    Args:
        differences: ``(n,)``, one per image or draw; NaN are left out.

    Returns:
        A value above 0, up to 1; 1 if all differences are 0, ``None`` if there are none.
    """
    known = np.asarray(differences, np.float64)
    known = known[np.isfinite(known)]
    if not len(known):
        return None
    apart = known[known != 0]  # the sign of a 0 has no effect
    if not len(apart):
        return 1.0
    observed = abs(apart.sum()) - 1e-9 * np.abs(apart).sum()  # equal sums may differ by rounding
    if len(apart) <= EXACT:
        bits = np.arange(2 ** len(apart))[:, None] >> np.arange(len(apart))
        return float((np.abs(_signs(bits & 1) @ apart) >= observed).mean())
    random, hits, block = np.random.default_rng(SEED), 0, max(1, BLOCK // len(apart))
    for start in range(0, CHOICES, block):
        size = min(block, CHOICES - start)
        flips = _signs(random.integers(2, size=(size, len(apart)), dtype=np.int8))
        hits += int((np.abs(flips @ apart) >= observed).sum())
    return (hits + 1) / (CHOICES + 1)


def least_p(pairs: int) -> float:
    """The smallest p value that a number of pairs can give."""
    return 2.0 ** (1 - pairs) if pairs <= EXACT else 1 / (CHOICES + 1)


def holm(tests: Mapping[Key, float | None]) -> dict[Key, float | None]:
    """Corrects the p values of several tests for their number (Holm 1979).

    Args:
        tests: The p values by name; ``None`` for comparisons without a test, which do not count.
    """
    corrected: dict[Key, float | None] = dict.fromkeys(tests)
    known = {key: p for key, p in tests.items() if p is not None}
    highest = 0.0
    for rank, (key, p) in enumerate(sorted(known.items(), key=lambda each: each[1])):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        corrected[key] = highest
    return corrected


def _signs(bits: NDArray[np.integer]) -> NDArray[np.float64]:
    """Converts bits to signs 1 and -1."""
    return 1 - 2 * bits.astype(np.float64)
