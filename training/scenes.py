"""Procedural scenes with exact masks: what nano learns from.

``scene(seed, index)`` is deterministic: the same numbers give the same picture on every machine
with the same numpy and OpenCV. No picture of any data set goes in, except photographs given on
purpose.

    python training/scenes.py sheet.png --seed 7       # a contact sheet to look at
    python training/scenes.py --benchmark 300          # scenes per second of one core
"""

from __future__ import annotations

import argparse
import time
from typing import NamedTuple

import cv2
import numpy as np
import things
import tissue
from camera import photograph
from canvas import GROUP, PART, SIZE, WHOLE, Canvas
from photos import load_photos
from scope import scope

__all__ = ["GROUP", "PART", "SIZE", "WHOLE", "Scene", "scene"]

FAMILIES = (things.things, things.street, tissue.bodies, tissue.tiling, tissue.protrusions)
ODDS = np.array([0.36, 0.12, 0.24, 0.11, 0.17])
SMALLEST = 24
"""Pixels; a smaller remnant of an occluded object is no object."""


class Scene(NamedTuple):
    """A picture and what is in it."""

    image: np.ndarray
    """``(256, 256, 3)`` u8 RGB."""
    labels: np.ndarray
    """``(3, 256, 256)`` int16: WHOLE objects and regions, their PARTs, GROUPs; 0 is nothing."""


def scene(
    seed: int,
    index: int,
    photos: str | None = None,
    family: int | None = None,
    scopes: float = 0.0,
) -> Scene:
    """The scene number ``index`` of the stream ``seed``.

    Args:
        seed: Names the stream; training and validation use different ones.
        index: Position in the stream.
        photos: COCO folder whose free photographs may lend their surfaces.
        family: Index into ``FAMILIES``; by default drawn by ``ODDS``.
        scopes: Chance of an endoscope's view instead of one of the families.
    """
    rng = np.random.default_rng([seed, index])
    cv2.setRNGSeed(0)
    pictures = load_photos(photos)
    drawn = int(rng.choice(len(FAMILIES), p=ODDS))
    if scopes and rng.random() < scopes:
        canvas = scope(rng)
    else:
        canvas = FAMILIES[drawn if family is None else family](rng, pictures)
        if rng.random() < 0.08:
            things.occluders(canvas, rng, pictures)
    photograph(canvas, rng)
    return Scene(canvas.image, _tidied(canvas))


def _tidied(canvas: Canvas) -> np.ndarray:
    """Drops labels of less than SMALLEST pixels."""
    area = np.bincount(canvas.labels.ravel().astype(np.int64), minlength=1)
    keep = np.arange(len(area)).astype(np.int16)
    keep[area < SMALLEST] = 0
    return keep[canvas.labels]


def contact_sheet(
    seed: int, columns: int, rows: int, photos: str | None, scopes: float = 0.0
) -> np.ndarray:
    """``(rows * 256, columns * 512, 3)`` u8: pictures beside their WHOLE and PART labels."""
    colours = np.random.default_rng(0).integers(40, 256, (4096, 3)).astype(np.uint8)
    colours[0] = 0
    tiles = []
    for index in range(columns * rows):
        image, labels = scene(seed, index, photos, scopes=scopes)
        shown = colours[labels[WHOLE] % 4096]
        parts = labels[PART] > 0
        shown[parts] = shown[parts] // 2 + colours[labels[PART] % 4096][parts] // 2
        tiles.append(np.concatenate([image, shown], 1))
    return np.concatenate(
        [np.concatenate(tiles[r * columns : (r + 1) * columns], 1) for r in range(rows)]
    )


def main() -> None:
    """Writes a contact sheet or measures the speed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sheet", nargs="?", help="PNG to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--columns", type=int, default=4)
    parser.add_argument("--rows", type=int, default=6)
    parser.add_argument("--photos", help="COCO folder")
    parser.add_argument("--scopes", type=float, default=0.0, help="chance of endoscopes' views")
    parser.add_argument("--benchmark", type=int, metavar="N", help="time N scenes")
    args = parser.parse_args()
    if args.sheet:
        sheet = contact_sheet(args.seed, args.columns, args.rows, args.photos, args.scopes)
        cv2.imwrite(args.sheet, sheet[..., ::-1])
    if args.benchmark:
        cv2.setNumThreads(1)
        scene(args.seed, 0, args.photos)
        start = time.perf_counter()
        for index in range(args.benchmark):
            scene(args.seed, index, args.photos)
        print(f"{args.benchmark / (time.perf_counter() - start):.1f} scenes/s")


if __name__ == "__main__":
    main()
