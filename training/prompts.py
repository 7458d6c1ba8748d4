"""From scenes to training samples: a crop, some of its objects, a prompt for each.

All coordinates are xy pixels with the centre of the top left pixel at 0, as in
``samtune.geometry``.
"""

from __future__ import annotations

from collections.abc import Iterator
from multiprocessing.sharedctypes import SynchronizedArray
from typing import NamedTuple

import cv2
import numpy as np
import torch
from camera import underexposed
from plain_scenes import plain_scene
from scenes import GROUP, PART, SIZE, WHOLE, scene
from torch import Tensor
from torch.utils.data import IterableDataset

from samtune.prompts import ABSENT, BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, NEGATIVE, NOT_A_POINT, POSITIVE

BOX, POINT, POINTS, BOX_POINT, WHOLE_PICTURE = range(5)
KINDS = ("box", "point", "points", "box+point", "none")
KIND_ODDS = np.array([0.5, 0.3, 0.1, 0.1])
"""Of the first four; the last is asked by the curriculum."""
LEVEL_ODDS = {WHOLE: 0.72, PART: 0.2, GROUP: 0.08}
SLOTS = 5
"""Prompt slots of every sample: two for a box (or its padding), up to three points."""


LARGE = 0.05
"""Share of the picture from which an object may have a careless box."""


class Samples(NamedTuple):
    """A training batch of ``B`` images with ``P`` prompts each, ``N = B * P`` flat."""

    pixels: Tensor
    """``(B, 3, S, S)`` u8, zero where padded."""
    sizes: Tensor
    """``(B, 2)`` content height and width."""
    targets: Tensor
    """``(N, S, S)`` bool."""
    coords: Tensor
    """``(N, SLOTS, 2)`` float, pixels of the crop."""
    labels: Tensor
    """``(N, SLOTS)`` int64."""
    kinds: Tensor
    """``(N,)`` int64 index into KINDS."""
    edges: Tensor
    """``(B, S, S)`` bool: pixels where a label changes."""


def crop(rng: np.random.Generator, image: np.ndarray, labels: np.ndarray, size: int) -> tuple:
    """A square of the scene at a random zoom, turned and mirrored, as ``size`` pixels.

    Crops shrink the scene three times at most and hardly enlarge it, so that objects of all sizes
    occur both whole and cut.
    """
    low, high = int(0.8 * size), min(SIZE, 3 * size)
    side = int(np.exp(rng.uniform(np.log(low), np.log(high + 1))))
    if size == SIZE and rng.random() < 0.6:
        side = SIZE
    y, x = rng.integers(0, SIZE - side + 1, 2)
    image = image[y : y + side, x : x + side]
    stack = labels[:, y : y + side, x : x + side].transpose(1, 2, 0)
    if side != size:
        how = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
        image = cv2.resize(image, (size, size), interpolation=how)
        stack = cv2.resize(
            np.ascontiguousarray(stack), (size, size), interpolation=cv2.INTER_NEAREST
        )
    turns, mirror = int(rng.choice([0, 1, 2, 3], p=[0.7, 0.1, 0.1, 0.1])), rng.random() < 0.5
    image, stack = np.rot90(image, turns), np.rot90(stack, turns)
    if mirror:
        image, stack = image[:, ::-1], stack[:, ::-1]
    return image.copy(), stack.transpose(2, 0, 1).copy()


def padded(rng: np.random.Generator, image: np.ndarray, labels: np.ndarray) -> tuple[int, int]:
    """Cuts the content in place as if the picture were not square; its ``(h, w)``."""
    h, w = image.shape[:2]
    if rng.random() < 0.3:
        if rng.random() < 0.5:
            h = int(h * rng.uniform(0.5, 0.95))
        else:
            w = int(w * rng.uniform(0.5, 0.95))
    image[h:], image[:, w:] = 0, 0
    labels[:, h:], labels[:, :, w:] = 0, 0
    return h, w


def choose(rng: np.random.Generator, labels: np.ndarray, count: int) -> list[np.ndarray]:
    """``count`` masks ``(S, S)`` bool from the label maps, large ones somewhat more often."""
    total = labels[0].size
    smallest = 24
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for level in LEVEL_ODDS:
        area = np.bincount(labels[level].ravel())
        area[0] = 0
        ids = np.flatnonzero((area >= smallest) & (area <= 0.9 * total))
        if len(ids):
            weight = area[ids].astype(float) ** 0.4
            found[level] = ids, weight / weight.sum()
    if not found:
        return []
    levels = list(found)
    odds = np.array([LEVEL_ODDS[level] for level in levels])
    masks = []
    for level in rng.choice(levels, count, p=odds / odds.sum()):
        ids, weight = found[level]
        masks.append(labels[level] == rng.choice(ids, p=weight))
    return masks


def largest(labels: np.ndarray) -> np.ndarray:
    """``(S, S)`` bool: the object of a label map that has most pixels."""
    area = np.bincount(labels.ravel())
    area[0] = 0
    return labels == area.argmax() if area.any() else np.zeros(labels.shape, bool)


def tight_box(mask: np.ndarray) -> np.ndarray:
    """``(4,)`` xyxy of the mask's outer pixels."""
    y, x = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([x[0], y[0], x[-1], y[-1]], np.float32)


def jittered(rng: np.random.Generator, box: np.ndarray, size: int) -> np.ndarray:
    """SAM's noise: a tenth of the side, at most 20 pixels."""
    sides = np.tile(box[2:] - box[:2], 2)
    noise = np.clip(rng.normal(0, 0.1, 4) * sides, -20, 20) * rng.random()
    return np.clip(box + noise, 0, size - 1)


def loosened(rng: np.random.Generator, box: np.ndarray, size: int) -> np.ndarray:
    """A careless box: about half of its sides lie anywhere out to the picture's edge."""
    edge = np.array([0, 0, size - 1, size - 1], np.float32)
    return box + (edge - box) * (rng.random(4) * 1.5).clip(max=1) * (rng.random(4) < 0.5)


def inner_point(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    """``(2,)`` xy inside: anywhere, or well inside."""
    if rng.random() < 0.5:
        at = rng.choice(np.flatnonzero(mask))
    else:
        depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
        at = rng.choice(np.flatnonzero(depth >= rng.uniform(0.7, 1) * depth.max()))
    return np.array([at % mask.shape[1], at // mask.shape[1]], np.float32)


def outer_point(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    """``(2,)`` xy outside, near the object more often than far from it."""
    for _ in range(8):
        if rng.random() < 0.7:
            box = tight_box(mask)
            reach = 0.25 * (box[2:] - box[:2]) + 3
            xy = rng.uniform(box[:2] - reach, box[2:] + reach)
        else:
            xy = rng.uniform(0, mask.shape[0], 2)
        x, y = np.clip(xy, 0, mask.shape[0] - 1).astype(int)
        if not mask[y, x]:
            return np.array([x, y], np.float32)
    return np.full(2, -1, np.float32)


def prompt(
    rng: np.random.Generator, mask: np.ndarray, kind: int, exact: float = 0.0, loose: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """The slots ``(SLOTS, 2)`` and ``(SLOTS,)`` of one prompt for ``mask``.

    Boxes are noisy but for a share ``exact``; of large objects a share ``loose`` is careless.
    """
    coords = np.zeros((SLOTS, 2), np.float32)
    labels = np.full(SLOTS, ABSENT)
    if kind == WHOLE_PICTURE:
        return coords, labels
    if kind in (BOX, BOX_POINT):
        box = tight_box(mask)
        if loose and mask.mean() > LARGE and rng.random() < loose:
            box = loosened(rng, box, mask.shape[0])
        elif rng.random() >= exact:
            box = jittered(rng, box, mask.shape[0])
        coords[:2] = box.reshape(2, 2)
        labels[:2] = BOX_TOP_LEFT, BOX_BOTTOM_RIGHT
    else:
        labels[0] = NOT_A_POINT
    if kind == BOX:
        return coords, labels
    coords[2], labels[2] = inner_point(rng, mask), POSITIVE
    extra = int(rng.integers(1, SLOTS - 2)) if kind == POINTS else 0
    for slot in range(3, 3 + extra):
        inside = rng.random() < 0.55
        xy = inner_point(rng, mask) if inside else outer_point(rng, mask)
        if xy[0] >= 0:
            coords[slot], labels[slot] = xy, POSITIVE if inside else NEGATIVE
    return coords, labels


def edges_of(labels: np.ndarray) -> np.ndarray:
    """``(S, S)`` bool: true where the WHOLE or PART label differs from a neighbour's."""
    edge = np.zeros(labels.shape[1:], bool)
    for level in (WHOLE, PART):
        down, across = np.diff(labels[level], axis=0) != 0, np.diff(labels[level], axis=1) != 0
        edge[1:] |= down
        edge[:-1] |= down
        edge[:, 1:] |= across
        edge[:, :-1] |= across
    return edge


class Mixture(NamedTuple):
    """Chances of what a batch is made of."""

    full: float
    """That a batch has full frames rather than crops of half their side."""
    rich: float
    """That a picture is a rich scene rather than a plain one."""
    whole: float
    """That a plain picture is asked once without a prompt, for all of its objects."""
    exact: float = 1 / 3
    """That a box is the tight one, without noise."""
    largest: float = 0.0
    """That a picture is asked once without a prompt, for its largest object."""
    faint: float = 0.0
    """That the objects of a plain picture hardly differ from their background."""
    loose: float = 0.0
    """That the box of a large object is careless."""
    dark: float = 0.0
    """That a picture is underexposed."""
    scopes: float = 0.0
    """That a rich scene is an endoscope's view."""


SHAPES = {SIZE // 2: (8, 6), SIZE: (2, 8)}
"""Images in a batch, and prompts per image, by the side of the crop."""


def batch(
    seed: int,
    number: int,
    size: int,
    mixture: Mixture,
    photos: str | None,
    shape: tuple[int, int] | None = None,
) -> Samples:
    """Training batch ``number``: crops of ``size`` pixels with several prompts each."""
    rng = np.random.default_rng([seed, number, 1])
    images, count = shape or SHAPES[size]
    columns: list[list] = [[] for _ in Samples._fields]
    pictures = _pictures(rng, (seed, number * 4096), size, mixture, photos)
    while len(columns[0]) < images:
        image, labels, plain = next(pictures)
        if rng.random() < mixture.dark:
            image = underexposed(rng, image)
        content = padded(rng, image, labels) if size == SIZE else (size, size)
        masks = choose(rng, labels, count)
        if not masks:
            continue
        kinds = rng.choice(len(KIND_ODDS), count, p=KIND_ODDS)
        if plain and rng.random() < mixture.whole:
            kinds[0], masks[0] = WHOLE_PICTURE, labels[WHOLE] > 0
        elif rng.random() < mixture.largest:
            kinds[0], masks[0] = WHOLE_PICTURE, largest(labels[WHOLE])
        slots = [
            prompt(rng, m, int(k), mixture.exact, mixture.loose)
            for m, k in zip(masks, kinds, strict=True)
        ]
        coords, marks = zip(*slots, strict=True)
        row = (image.transpose(2, 0, 1), content, masks, coords, marks, kinds, edges_of(labels))
        for column, value in zip(columns, row, strict=True):
            column.append(np.asarray(value))
    stacked = [torch.from_numpy(np.stack(c)) for c in columns]
    flat = [t.flatten(0, 1) if 2 <= i <= 5 else t for i, t in enumerate(stacked)]
    return Samples(*flat)


def _pictures(
    rng: np.random.Generator, key: tuple[int, int], size: int, mixture: Mixture, photos: str | None
) -> Iterator[tuple[np.ndarray, np.ndarray, bool]]:
    """Image, labels ``(3, size, size)`` and whether it is a plain scene, without end."""
    per_scene = (SIZE // size) ** 2 // 2 + 1
    seed, drawn = key
    while True:
        if rng.random() >= mixture.rich:
            image, labels = plain_scene(rng, size, mixture.faint)
            stack = np.zeros((3, size, size), np.int32)
            stack[WHOLE] = labels
            yield image, stack, True
            continue
        picture = scene(seed, drawn, photos, scopes=mixture.scopes)
        drawn += 1
        # Crops of one scene come together: drawing it costs more than cropping.
        for _ in range(per_scene):
            yield (*crop(rng, *picture, size), False)


class Stream(IterableDataset):
    """An endless stream of batches; what they are made of may be changed while it runs.

    Args:
        seed: Names the stream.
        first: Number of the first batch, to go on after a stop.
        mixture: Shared array with the fields of ``Mixture``.
        photos: COCO folder whose free photographs lend surfaces, or ``None``.
    """

    def __init__(
        self, seed: int, first: int, mixture: SynchronizedArray, photos: str | None
    ) -> None:
        self.seed, self.first, self.mixture, self.photos = seed, first, mixture, photos

    def __iter__(self) -> Iterator[Samples]:
        """Batches from ``first`` on, interleaved over the workers."""
        worker = torch.utils.data.get_worker_info()
        number, step = self.first, 1
        if worker is not None:
            number, step = self.first + worker.id, worker.num_workers
            cv2.setNumThreads(1)
        while True:
            mixture = Mixture(*self.mixture[:])
            full = np.random.default_rng([self.seed, number, 2]).random() < mixture.full
            yield batch(self.seed, number, SIZE if full else SIZE // 2, mixture, self.photos)
            number += step
