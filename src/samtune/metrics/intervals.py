"""The uncertainty of a metric: bootstrap intervals over images (Efron & Tibshirani 1993).

The images of a test set are drawn anew, the same number with replacement, and the statistic is
computed for each draw. An interval runs from one percentile of these values to another. A small
sample varies less than its population, so the percentiles lie further out the fewer images there
are (the expanded percentile interval, Hesterberg 2015, doi:10.1080/00031305.2015.1089789).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

LEVEL = 0.95
"""How often an interval covers the true value, if there are many images."""
RESAMPLES = 2000
"""Number of draws for an interval."""
SEED = 20
"""Seed of the draws: every model sees the same draws, so differences are paired."""
FEW = 20
"""Number of images below which intervals are known to be too short, and reports say so."""
ENTRIES = 2_000_000
"""Number of draws times images that are held in memory at once."""


def draws(images: int, count: int = RESAMPLES, stream: int = 0) -> Iterator[NDArray[np.int64]]:
    """How often each image is in each draw, as blocks ``(some draws, images)`` that sum to count.

    The draws only depend on the number of images and the stream.

    Args:
        images: Number of images, at least one.
        count: Number of draws.
        stream: Number of the random stream; use another one for draws of anything besides images.
    """
    random = np.random.default_rng([SEED, stream])
    block = max(1, ENTRIES // images)
    for start in range(0, count, block):
        size = min(block, count - start)
        chosen = random.integers(images, size=(size, images)) + images * np.arange(size)[:, None]
        counts = np.bincount(chosen.ravel(), minlength=size * images)
        yield counts.reshape(size, images)


def interval(values: ArrayLike, images: int) -> list[float] | None:
    """The ends of an interval, lowest first.

    Args:
        values: The statistic of each draw, ``(draws,)``; NaN if a draw has none.
        images: Number of images per draw.

    Returns:
        ``None`` for a single image, or if fewer than half of the draws have a value.
    """
    known = np.asarray(values, np.float64)
    count, known = len(known), known[np.isfinite(known)]
    if images < 2 or not len(known) or 2 * len(known) < count:
        return None
    tail = expanded_tail(images)
    return [float(end) for end in np.quantile(known, [tail, 1 - tail])]


def expanded_tail(images: int) -> float:
    """The fraction of draws below an interval: half of what lies outside, less for few images.

    Bootstrap draws of n images underestimate the variance (division by n, not n - 1) and have
    normal instead of Student quantiles; this corrects both.
    """
    wide = math.sqrt(images / (images - 1)) * t_quantile((1 + LEVEL) / 2, images - 1)
    return NormalDist().cdf(-wide)


def t_quantile(probability: float, freedom: int) -> float:
    """A quantile of Student's distribution, to a thousandth.

    Above two degrees of freedom it uses the expansion of Abramowitz & Stegun 1964, 26.7.5.

    Args:
        probability: Above 0 and below 1.
        freedom: Degrees of freedom, from 1 on.
    """
    if freedom == 1:
        return math.tan(math.pi * (probability - 0.5))
    if freedom == 2:
        side = 2 * probability - 1
        return side * math.sqrt(2 / (1 - side**2))
    z, n = NormalDist().inv_cdf(probability), freedom
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / n**power for power, term in enumerate(terms, 1))


def outside(ends: list[float] | None) -> bool:
    """Whether an interval of a difference excludes zero: the difference is more than chance."""
    return ends is not None and (ends[0] > 0 or ends[1] < 0)
