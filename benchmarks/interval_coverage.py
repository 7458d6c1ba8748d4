"""How often intervals cover the truth: percentile, expanded percentile and BCa, on simulated IoUs.

Prints ``results/interval_coverage.md``.
"""

from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from samtune.metrics.intervals import FEW, draws, expanded_tail

Floats = NDArray[np.float64]
IMAGES = (5, 8, 12, 16, 20, 30, 50, 100)
EXPERIMENTS, RESAMPLES = 1000, 1000
NORMAL = NormalDist()
HEAD = f"""# Coverage of intervals

How often a 95 % bootstrap interval covers the true value, in {EXPERIMENTS} simulated test sets of
so many images, and its mean width in brackets: ends at plain percentiles of the draws, further out
the fewer images there are (expanded, which `samtune.metrics.intervals` takes), and corrected for
bias and acceleration (BCa). The statistic is that of the tables: a mean over all objects.

- one object: an image has one; 15 % of them fail (IoU around 0.14, else around 0.82).
- objects: 1 to 29 an image, those of an image alike.
- gain: of one object an image; a fifth gains 0.3, the others hardly anything.

Below {FEW} images runs say that they are few.

`python benchmarks/interval_coverage.py` prints this page; the draws are seeded.

| case | images | percentile | expanded | BCa |
|---|---|---|---|---|"""


def one_object(random: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    """Objects and summed IoU of each of n images."""
    failed = random.random(n) < 0.15
    return np.ones(n), np.where(failed, random.beta(1, 6, n), random.beta(9, 2, n))


def objects(random: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    """The same, of images with many objects."""
    counts, levels = random.integers(1, 30, n), random.beta(6, 2, n)
    owner = np.repeat(np.arange(n), counts)
    each = np.clip(random.normal(levels[owner], 0.15), 0, 1)
    return counts.astype(np.float64), np.bincount(owner, each, minlength=n)


def gain(random: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    """Objects and gains."""
    helped = random.random(n) < 0.2
    return np.ones(n), np.where(helped, random.normal(0.3, 0.2, n), random.normal(0.01, 0.03, n))


def bca_tails(values: Floats, counts: Floats, sums: Floats) -> list[float]:
    """The fractions of draws below the two ends of a BCa interval (Efron 1987)."""
    total, left_out = sums.sum() / counts.sum(), (sums.sum() - sums) / (counts.sum() - counts)
    skew = left_out.mean() - left_out
    below = (skew**2).sum() ** 1.5
    acceleration = (skew**3).sum() / (6 * below) if below > 0 else 0.0
    share = ((values < total).mean() + (values <= total).mean()) / 2
    bias = NORMAL.inv_cdf(float(np.clip(share, 1e-4, 1 - 1e-4)))
    at = [bias + NORMAL.inv_cdf(p) for p in (0.025, 0.975)]
    return [NORMAL.cdf(bias + z / (1 - acceleration * z)) for z in at]


def main() -> None:
    """Prints the page."""
    print(HEAD)
    cases: tuple[Callable[[np.random.Generator, int], tuple[Floats, Floats]], ...]
    cases = (one_object, objects, gain)
    for case in cases:
        random = np.random.default_rng(1)
        counts, sums = case(random, 400_000)
        truth = sums.sum() / counts.sum()
        for n in IMAGES:
            weights = np.concatenate(list(draws(n, RESAMPLES))).astype(np.float64)
            hits, widths = np.zeros(3), np.zeros(3)
            for _ in range(EXPERIMENTS):
                counts, sums = case(random, n)
                values = (weights @ sums) / (weights @ counts)
                tail = expanded_tail(n)
                tails = [0.025, 0.975, tail, 1 - tail, *bca_tails(values, counts, sums)]
                ends = np.quantile(values, tails).reshape(3, 2)
                hits += (ends[:, 0] <= truth) & (truth <= ends[:, 1])
                widths += ends[:, 1] - ends[:, 0]
            cells = (
                f"{hit:.1%} ({width:.3f})"
                for hit, width in zip(hits / EXPERIMENTS, widths / EXPERIMENTS, strict=True)
            )
            print(f"| {case.__name__.replace('_', ' ')} | {n} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
