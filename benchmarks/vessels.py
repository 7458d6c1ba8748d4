"""Draws fundus-like pictures with vessels of DRIVE's sizes.

    python benchmarks/vessels.py FOLDER

DRIVE itself (Staal et al. 2004) may not be passed on, so that what thin structures need is measured
on drawings: 584 x 565 pixels, a disc on black, trees of branching curves one to seven pixels wide
that cover a tenth of the disc or so. The thinner a vessel the fainter it is, as in photographs; the
ground has texture of several scales, uneven light, a bright optic disc, bright and dark spots, and
dim broad curves that are no vessels. A drawing is easier than a photograph all the same: its truth
has no annotator.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = (584, 565)
"""Height and width of a picture in pixels."""
WIDEST, THINNEST = 7.0, 1.0
FINE = 4
"""Vessels are drawn so many times larger and averaged: a lens leaves no sharp edge."""
COLOUR = np.array([190.0, 88.0, 42.0])
"""RGB of the ground."""
ABSORBED = np.array([45.0, 52.0, 22.0])
"""What the widest vessel takes from it."""

Pixels = NDArray[np.float32]
Segment = tuple[NDArray[np.float64], NDArray[np.float64], float]


def tree(
    rng: np.random.Generator, start: NDArray[np.float64], angle: float, width: float
) -> Iterator[Segment]:
    """Yields the segments of a vessel and of its branches: two points ``xy`` and a width."""
    stack = [(start, angle, width)]
    while stack:
        at, heading, wide = stack.pop()
        turn = rng.normal(0, 0.012)
        for _ in range(int(rng.uniform(18, 50))):
            turn = 0.9 * turn + rng.normal(0, 0.02)
            heading += turn
            after = at + 4.0 * np.array([np.cos(heading), np.sin(heading)])
            if not inside(after):
                break
            yield at, after, wide
            at = after
            if wide >= 2 and rng.random() < 0.06:  # a twig
                side = rng.choice([-1, 1])
                twig = rng.uniform(THINNEST, max(1.5, wide / 2.5))
                stack.append((at, heading + side * rng.uniform(0.6, 1.3), twig))
            if wide < 3 and rng.random() < 0.02:
                break
        else:
            side = rng.choice([-1, 1])
            ratio = rng.uniform(0.45, 0.8)  # of the two radii, cubes add up (Murray 1926)
            large = wide / (1 + ratio**3) ** (1 / 3)
            stack.append((at, heading - side * rng.uniform(0.1, 0.35), large))
            if large * ratio >= THINNEST * 0.8:
                stack.append((at, heading + side * rng.uniform(0.4, 1.0), large * ratio))
            if large < THINNEST * 0.8:
                stack.pop()


def inside(xy: NDArray[np.float64], margin: float = 6) -> bool:
    """Whether a point lies in the disc."""
    return bool(np.hypot(xy[0] - SIZE[1] / 2, xy[1] - SIZE[0] / 2) < SIZE[1] / 2 - 12 - margin)


def drawn(segments: list[Segment]) -> tuple[NDArray[np.bool_], Pixels]:
    """The mask of vessels, and how much of their colour each pixel gets (0 to 1)."""
    h, w = SIZE
    mask = np.zeros((h * FINE, w * FINE), np.uint8)
    depth = np.zeros((h * FINE, w * FINE), np.float32)
    for a, b, wide in sorted(segments, key=lambda each: each[2]):
        ends = [tuple(int(v) for v in np.round(p * FINE)) for p in (a, b)]
        thick = max(1, round(min(max(wide, THINNEST), WIDEST) * FINE))
        cv2.line(mask, *ends, 1, thick)
        cv2.line(depth, *ends, float(0.2 + 0.8 * min(1.0, wide / WIDEST)), thick)
    means = depth.reshape(h, FINE, w, FINE).mean((1, 3))
    return mask.reshape(h, FINE, w, FINE).mean((1, 3)) >= 0.5, means


def noise(rng: np.random.Generator, cell: int) -> Pixels:
    """Smooth noise of unit deviation, with cells of so many pixels."""
    h, w = (-(-side // cell) + 3 for side in SIZE)
    small = rng.normal(0, 1, (h, w)).astype(np.float32)
    large = cv2.resize(small, (w * cell, h * cell), interpolation=cv2.INTER_CUBIC)
    return (large / large.std())[: SIZE[0], : SIZE[1]]


def picture(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """An image ``(h, w, 3)`` and its mask ``(h, w)`` of 0 and 255."""
    rng = np.random.default_rng(seed)
    h, w = SIZE
    rows, columns = np.mgrid[:h, :w].astype(np.float32)
    disc = np.hypot(columns - w / 2, rows - h / 2) < w / 2 - 12
    left = rng.choice([-1, 1])
    optic = np.array([w / 2 - left * rng.uniform(150, 190), h / 2 + rng.uniform(-25, 25)])
    segments: list[Segment] = []
    for up in (-1, 1):  # an artery and a vein each way, and small ones between
        for wide in (rng.uniform(6, WIDEST), rng.uniform(4, 5.5)):
            heading = (0 if left > 0 else np.pi) + up * left * rng.uniform(0.7, 1.3)
            segments += tree(rng, optic + rng.normal(0, 5, 2), heading, wide)
        heading = (np.pi if left > 0 else 0) + up * rng.uniform(0.3, 1.0)
        segments += tree(rng, optic, heading, rng.uniform(2.5, 4))
    for _ in range(4):
        segments += tree(rng, optic, rng.uniform(0, 2 * np.pi), rng.uniform(1.5, 3))
    mask, depth = drawn(segments)
    light = 1 + 0.12 * noise(rng, 160) - 0.25 * np.hypot(columns - w / 2, rows - h / 2) / w
    ground = COLOUR * light[..., None]
    ground += sum(a * noise(rng, cell)[..., None] for a, cell in ((5.0, 40), (4.0, 12), (3.0, 5)))
    for _ in range(4):  # vessels of the layer below: broad, dim, not in the truth
        below: list[Segment] = list(tree(rng, rng.uniform(100, 460, 2), rng.uniform(0, 6.3), 5))
        _, dim = drawn(below)
        ground -= 14 * cv2.GaussianBlur(dim, (0, 0), 3)[..., None]
    bright = np.exp(-((((columns - optic[0]) / 30) ** 2 + ((rows - optic[1]) / 34) ** 2) ** 2))
    ground += bright[..., None] * np.array([60.0, 70.0, 40.0])
    for _ in range(rng.integers(5, 25)):  # exudates and small bleedings
        x, y, r = rng.uniform(80, w - 80), rng.uniform(80, h - 80), rng.uniform(1.5, 5)
        spot = np.exp(-(((columns - x) / r) ** 2 + ((rows - y) / r) ** 2))
        ground += spot[..., None] * rng.choice([40.0, -30.0]) * np.array([1.0, 0.9, 0.4])
    image = ground - depth[..., None] * ABSORBED
    image = cv2.GaussianBlur(image, (0, 0), 0.8) + rng.normal(0, 5, (h, w, 3))
    image = np.where(disc[..., None], image, rng.normal(3, 1.5, (h, w, 3)))
    return image.clip(0, 255).astype(np.uint8), (mask & disc).astype(np.uint8) * 255


def main() -> None:
    """Writes ``images`` and ``masks`` of twenty pictures."""
    folder = Path(sys.argv[1])
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for seed in range(20):
        image, mask = picture(seed)
        Image.fromarray(image).save(folder / "images" / f"{seed:02}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{seed:02}.png")


if __name__ == "__main__":
    main()
