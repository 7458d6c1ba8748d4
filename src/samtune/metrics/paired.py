"""Whether two models differ: paired permutation tests, and Holm's correction for many of them.

If two models are alike, it is chance which of them answered an image better: the signs of the
differences may as well be the other way round. A test counts how many of all such choices give a
mean difference at least as large.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

EXACT = 14
"""Up to so many pairs all choices of signs are counted, ``2**14`` of them."""
CHOICES = 19_999
"""Choices of signs that are drawn where there are more."""
BLOCK = 2_000_000
"""Choices times pairs that are held at once."""
SEED = 20

Key = TypeVar("Key")


def sign_flip(differences: ArrayLike) -> float | None:
    """The two-sided p of a paired sign-flip test of the mean difference (Fisher 1935).

    Exact for up to :data:`EXACT` differences that are not 0, else of :data:`CHOICES` drawn choices,
    the observed one counted among them.

    Args:
        differences: ``(n,)``, one for each image or draw; NaN are left out.

    Returns:
        Above 0 and up to 1; 1 if all are 0, ``None`` without any.
    """
    known = np.asarray(differences, np.float64)
    known = known[np.isfinite(known)]
    if not len(known):
        return None
    apart = known[known != 0]  # the sign of a 0 changes nothing
    if not len(apart):
        return 1.0
    observed = abs(apart.sum()) - 1e-9 * np.abs(apart).sum()  # equal sums differ by rounding
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
    """The smallest p that so many pairs can give."""
    return 2.0 ** (1 - pairs) if pairs <= EXACT else 1 / (CHOICES + 1)


def holm(tests: Mapping[Key, float | None]) -> dict[Key, float | None]:
    """The p of several tests, corrected for their number (Holm 1979).

    Args:
        tests: By name; what was not tested (``None``) stays so and does not count.
    """
    corrected: dict[Key, float | None] = dict.fromkeys(tests)
    known = {key: p for key, p in tests.items() if p is not None}
    highest = 0.0
    for rank, (key, p) in enumerate(sorted(known.items(), key=lambda each: each[1])):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        corrected[key] = highest
    return corrected


def _signs(bits: NDArray[np.integer]) -> NDArray[np.float64]:
    """Bits as 1 and -1."""
    return 1 - 2 * bits.astype(np.float64)
