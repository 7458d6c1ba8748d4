"""Outlines of masks as polygons: along the edges of pixels, with holes, simplified and still valid.

Coordinates are pixels of the image, xy, where the first pixel reaches from 0 to 1.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from samtune.errors import InputError
from samtune.inference.crossings import faulty_rings

Ring = NDArray[np.int64]
"""``(n, 2)`` corners xy; the last is not the first again."""

TOLERANCE = 1.0
"""How far a simplified outline may be from the edges of the pixels, in pixels."""
MOST_CORNERS = 2**22
"""Corners of polygons that are kept for the next format: 64 MB."""
_AT_ONCE = 256
"""Corners of which the distances to all others are computed at once."""
_LEAST = 0.2
"""The tolerance below which a ring that would cross another stays as it is."""


class Polygon(NamedTuple):
    """One connected region. Rings touch each other in single corners at most."""

    shell: Ring
    """Clockwise as it is seen, since y points down."""
    holes: tuple[Ring, ...] = ()
    """Anticlockwise."""


def check_tolerance(tolerance: float) -> None:
    """Refuses what is no distance.

    Raises:
        InputError: It is negative or not finite.
    """
    if not (np.isfinite(tolerance) and tolerance >= 0):
        raise InputError(
            f"--tolerance={tolerance}: must be 0 or more pixels; 0 keeps the edges of the pixels"
        )


def polygons_of(mask: NDArray[np.bool_], tolerance: float = TOLERANCE) -> list[Polygon]:
    """The regions of a mask, of which pixels that only touch in a corner are not connected.

    Without tolerance, they cover exactly its pixels. Else each ring is simplified after Douglas and
    Peucker (1973): it keeps some of its corners, and no other one is farther from it than the
    tolerance. Rings that would then cross are simplified less.

    Args:
        mask: ``(h, w)``.
        tolerance: In pixels.
    """
    exact = _traced(mask)
    if not tolerance or not exact:
        return exact
    rings = [(i, ring) for i, each in enumerate(exact) for ring in (each.shell, *each.holes)]
    simple = _simplified([ring for _, ring in rings], [part for part, _ in rings], tolerance)
    by_part = defaultdict[int, list[Ring]](list)
    for (part, _), ring in zip(rings, simple, strict=True):
        by_part[part].append(ring)
    return [Polygon(shell, tuple(holes)) for shell, *holes in by_part.values()]


class Outlines:
    """The polygons of masks, each traced once for all formats that ask for it in turn.

    Args:
        tolerance: In pixels, see :func:`polygons_of`.
    """

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self._by_mask: dict[bytes, list[Polygon]] = {}
        self._corners = 0

    def of(self, mask: NDArray[np.bool_]) -> list[Polygon]:
        """The regions of a mask ``(h, w)``.

        Those of the first masks are kept, up to :data:`MOST_CORNERS`: the next format asks for them
        in the same order, so that the last ones would always be the wrong ones to keep.
        """
        key = blake2b(np.packbits(mask).tobytes() + repr(mask.shape).encode(), digest_size=16)
        if (polygons := self._by_mask.get(key.digest())) is None:
            polygons = polygons_of(mask, self._tolerance)
            self._corners += sum(len(r) for p in polygons for r in (p.shell, *p.holes))
            if self._corners <= MOST_CORNERS:
                self._by_mask[key.digest()] = polygons
        return polygons


def regions_of(mask: NDArray[np.bool_]) -> Iterator[NDArray[np.bool_]]:
    """The regions of a mask ``(h, w)``, each as a mask, in the order of their first pixels."""
    import cv2

    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    yield from (labels == k for k in range(1, count))


def _with_holes(polygon: Polygon) -> Ring:
    """A shell and its holes as one ring that goes to each hole and back along the same line."""
    ring = polygon.shell
    for hole in sorted(polygon.holes, key=lambda each: int(each[:, 0].min())):
        ring = _with_bridge(ring, hole)
    return ring


def as_one_ring(polygons: Sequence[Polygon]) -> Ring:
    """Several regions and their holes as one ring, which goes between them and back."""
    first, *others = (_with_holes(polygon) for polygon in polygons)
    for other in others:
        first = _with_bridge(first, other)
    return first


def _with_bridge(ring: Ring, other: Ring) -> Ring:
    """One ring, and another that is entered and left along the shortest line between corners."""
    least, i, j = np.inf, 0, 0
    for begin in range(0, len(ring), _AT_ONCE):
        gaps = ((ring[begin : begin + _AT_ONCE, None] - other) ** 2).sum(2)
        if gaps.min() < least:
            least = float(gaps.min())
            row, j = (int(k) for k in np.unravel_index(int(gaps.argmin()), gaps.shape))
            i = begin + row
    turned = np.roll(other, -j, axis=0)
    return np.concatenate([ring[: i + 1], turned, turned[:1], ring[i:]])


def area_of(ring: NDArray) -> float:
    """The signed area of a ring ``(n, 2)``; positive where it goes clockwise as it is seen."""
    x, y = ring[:, 0].astype(np.float64), ring[:, 1].astype(np.float64)
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def _simplified(rings: Sequence[Ring], parts: Sequence[int], tolerance: float) -> list[Ring]:
    """Each ring at the tolerance, or at a half, a quarter, ... of it where rings would cross."""
    each = [tolerance] * len(rings)
    simple = [_after_douglas_peucker(ring, tolerance) for ring in rings]
    while faulty := {i for i in faulty_rings(simple, parts) if each[i]}:
        for i in faulty:
            each[i] = each[i] / 2 if each[i] > 2 * _LEAST else 0.0
            simple[i] = _after_douglas_peucker(rings[i], each[i])
    return simple


def _after_douglas_peucker(ring: Ring, tolerance: float) -> Ring:
    import cv2

    while tolerance:
        points = ring.astype(np.int32)[:, None]
        simple = cv2.approxPolyDP(points, tolerance, closed=True)[:, 0].astype(np.int64)
        if len(simple) > 2 and np.sign(area_of(simple)) == np.sign(area_of(ring)):
            return simple
        tolerance = tolerance / 2 if tolerance > 2 * _LEAST else 0.0
    return ring


def _traced(mask: NDArray[np.bool_]) -> list[Polygon]:
    import cv2

    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(ys):
        return []
    window = mask[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
    inner = np.pad(window, 1).astype(np.uint8)
    shift = np.array([xs[0] - 1, ys[0] - 1])
    _, labels = cv2.connectedComponents(inner, connectivity=4)
    shells: dict[int, Ring] = {}
    holes = defaultdict[int, list[Ring]](list)
    for pixel, loop in _loops(inner.astype(bool)):
        label = int(labels.flat[pixel])
        for ring in _without_pinches(_corners(loop)):
            if area_of(ring) > 0:
                shells[label] = ring + shift
            else:
                holes[label].append(ring + shift)
    return [Polygon(shells[label], tuple(holes[label])) for label in sorted(shells)]


def _loops(mask: NDArray[np.bool_]) -> Iterator[tuple[int, Ring]]:
    """Closed walks along the edges of pixels, the mask on their right hand.

    Args:
        mask: ``(h, w)``, false along its border.

    Yields:
        The flat index of a pixel on its right hand, and the corners ``(n, 2)`` xy of a walk.
    """
    width = mask.shape[1] + 1
    starts, ends, pixels = [], [], []
    sides = ((-1, 0, (0, 0), (0, 1)), (0, 1, (0, 1), (1, 1)), (1, 0, (1, 1), (1, 0)),
             (0, -1, (1, 0), (0, 0)))  # fmt: skip
    for dy, dx, (y0, x0), (y1, x1) in sides:
        ys, xs = np.nonzero(mask & ~np.roll(mask, (-dy, -dx), (0, 1)))
        starts.append((ys + y0) * width + xs + x0)
        ends.append((ys + y1) * width + xs + x1)
        pixels.append(ys * mask.shape[1] + xs)
    start, end, pixel = (np.concatenate(each).astype(np.int64) for each in (starts, ends, pixels))
    order = np.lexsort((pixel, start))
    start, end, pixel = start[order], end[order], pixel[order]
    following = _following(start, end, pixel).tolist()
    visited = np.zeros(len(start), bool)
    for first in range(len(start)):
        if visited[first]:
            continue
        walk, edge = [], first
        while not visited[edge]:
            visited[edge] = True
            walk.append(edge)
            edge = following[edge]
        corners = start[walk]
        yield int(pixel[first]), np.stack([corners % width, corners // width], 1)


def _following(
    start: NDArray[np.int64], end: NDArray[np.int64], pixel: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The edge behind each: the next around the same pixel if it has one, else the only one.

    Args:
        start: The corner where each edge begins, sorted.
        end: The corner where it ends.
        pixel: The pixel on its right hand, sorted among those of one start.
    """
    many = int(pixel.max()) + 1
    keys = start * many + pixel
    wanted = end * many + pixel
    same = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[same] == wanted, same, np.searchsorted(start, end))


def _corners(walk: Ring) -> Ring:
    """A walk without the corners at which it goes straight on."""
    before, behind = walk - np.roll(walk, 1, axis=0), np.roll(walk, -1, axis=0) - walk
    return walk[(before != behind).any(1)]


def _without_pinches(ring: Ring) -> list[Ring]:
    """A ring that comes to one corner twice as several rings that touch there."""
    corners = [tuple(corner) for corner in ring.tolist()]
    if len(set(corners)) == len(corners):
        return [ring]
    rings, path, place = [], list[tuple[int, ...]](), dict[tuple[int, ...], int]()
    for corner in corners:
        if corner in place:
            loop = path[place[corner] :]
            rings.append(np.array(loop, np.int64))
            for each in loop[1:]:
                del place[each]
            del path[place[corner] + 1 :]
            continue
        place[corner] = len(path)
        path.append(corner)
    return [*rings, np.array(path, np.int64)]
