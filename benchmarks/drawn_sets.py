"""Two data sets that need no files: scenes of the project's own generator, and thin vessels.

    python benchmarks/drawn_sets.py scenes FOLDER
    python benchmarks/drawn_sets.py vessels FOLDER

Both are written as split folders of images and masks, and are the same on every machine. What is
there already is left as it is.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

COUNTS = {"train": 256, "val": 16, "test": 40}
"""Images in each split."""
SIZE = (584, 565)
"""Height and width of a picture of vessels, as DRIVE's."""
WIDTHS = (1.0, 7.0)
"""Pixels that the thinnest twig and the thickest trunk are wide."""
STREAM = 2_000_003
"""Names the stream of scenes; nano's training and its validation use others."""
Picture = tuple[np.ndarray, np.ndarray]


def scene(index: int) -> Picture:
    """A scene ``(256, 256, 3)`` and its objects as an instance map ``(256, 256)`` uint16."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
    from scenes import WHOLE
    from scenes import scene as draw

    drawn = draw(STREAM, index)
    _, numbers = np.unique(drawn.labels[WHOLE], return_inverse=True)
    return drawn.image, numbers.reshape(drawn.image.shape[:2]).astype(np.uint16)


def vessels(index: int) -> Picture:
    """A round fundus with a tree of dark vessels ``(584, 565, 3)``, and their mask, 0 and 255."""
    rng = np.random.default_rng([7, index])
    height, width = SIZE
    mask = np.zeros(SIZE, np.uint8)
    disc = np.array([width * rng.choice([0.2, 0.8]), height * rng.uniform(0.4, 0.6)])
    for quarter in range(4):
        turn = (quarter + 0.5) * math.pi / 2 + rng.uniform(-0.3, 0.3)
        _branch(mask, rng, disc, turn, rng.uniform(5, WIDTHS[1]), 0)
    rows, columns = np.mgrid[:height, :width]
    inside = np.hypot(rows - height / 2, columns - width / 2) < 0.47 * width
    mask[~inside] = 0
    return _fundus(mask, inside, disc, rng), mask


def _branch(
    mask: np.ndarray, rng: np.random.Generator, at: np.ndarray, turn: float, width: float, deep: int
) -> None:
    """Draws one vessel from ``at`` (x, y) on, which winds, thins and splits in two."""
    steps = int(rng.integers(8, 18))
    for _ in range(steps):
        turn += rng.normal(0, 0.16)
        then = at + 9 * np.array([math.cos(turn), math.sin(turn)])
        ends = [tuple(int(v * 16) for v in point) for point in (at, then)]
        cv2.line(mask, *ends, 255, max(1, round(width)), cv2.LINE_8, shift=4)  # type: ignore[call-overload]
        at, width = then, width * 0.985
    if deep == 6 or width <= WIDTHS[0]:
        return
    apart = rng.uniform(0.35, 0.9)
    for side, thinner in ((-1, rng.uniform(0.7, 0.9)), (1, rng.uniform(0.5, 0.8))):
        _branch(mask, rng, at, turn + side * apart * rng.uniform(0.4, 1), width * thinner, deep + 1)


def _fundus(
    mask: np.ndarray, inside: np.ndarray, disc: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The picture ``(h, w, 3)`` of vessels: uneven light, a bright disc, blur and noise."""
    height, width = mask.shape
    light = cv2.resize(
        rng.uniform(0.7, 1.1, (4, 4)), (width, height), interpolation=cv2.INTER_CUBIC
    )
    red = rng.uniform(150, 220)
    ground = np.array([red, red * rng.uniform(0.4, 0.6), red * rng.uniform(0.1, 0.3)])
    rows, columns = np.mgrid[:height, :width]
    glow = np.exp(-((rows - disc[1]) ** 2 + (columns - disc[0]) ** 2) / (2 * 30.0**2))
    picture = light[..., None] * ground + 60 * glow[..., None]
    cover = cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), 0.8)[..., None]
    picture *= 1 - cover * rng.uniform(0.15, 0.45) * np.array([0.5, 1.0, 0.7])
    mottle = cv2.resize(rng.normal(0, 7, (60, 60)), (width, height))
    picture += mottle[..., None] + rng.normal(0, rng.uniform(3, 9), picture.shape)
    return np.clip(picture * inside[..., None], 0, 255).astype(np.uint8)


DRAWN: dict[str, Callable[[int], Picture]] = {"scenes": scene, "vessels": vessels}


def write(name: str, folder: Path) -> Path:
    """Writes a drawn set into ``folder``, unless it is there; gives the folder."""
    first = 0
    for split, count in COUNTS.items():
        for kind in ("images", "masks"):
            (folder / split / kind).mkdir(parents=True, exist_ok=True)
        for index in range(first, first + count):
            paths = [folder / split / kind / f"{index:04d}.png" for kind in ("images", "masks")]
            if not all(path.is_file() for path in paths):
                for path, pixels in zip(paths, DRAWN[name](index), strict=True):
                    Image.fromarray(pixels).save(path)
        first += count
    return folder


def main() -> None:
    """Writes one set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=DRAWN)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    print(write(args.name, args.folder))


if __name__ == "__main__":
    main()
