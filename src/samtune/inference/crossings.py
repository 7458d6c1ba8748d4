"""Rings of polygons that cross, overlap, or leave their shell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

_AT_ONCE = 256
"""Segments that are compared with all others at once."""


def faulty_rings(rings: Sequence[NDArray[np.int64]], parts: Sequence[int]) -> set[int]:
    """The rings that meet in more than single corners, or that left their shell.

    Args:
        rings: Each ``(n, 2)`` corners, whole numbers.
        parts: The polygon of each, in order; the first ring of a polygon is its shell.
    """
    faulty = _meeting(rings)
    shells = {part: parts.index(part) for part in dict.fromkeys(parts)}
    for i, part in enumerate(parts):
        shell = shells[part]
        if i != shell and not _lies_in(rings[i], rings[shell]):
            faulty |= {i, shell}
    return faulty | _swallowed(rings, parts, shells)


def _swallowed(
    rings: Sequence[NDArray[np.int64]], parts: Sequence[int], shells: dict[int, int]
) -> set[int]:
    """Shells that lie in another polygon but in none of its holes, and that polygon's rings."""
    numbers = list(shells.values())
    low = np.array([rings[i].min(0) for i in numbers])
    high = np.array([rings[i].max(0) for i in numbers])
    faulty = set[int]()
    for part, outer in shells.items():
        below = (low >= rings[outer].min(0)).all(1) & (high <= rings[outer].max(0)).all(1)
        for k in np.flatnonzero(below).tolist():
            inner = numbers[k]
            if inner == outer or not _lies_in(rings[inner], rings[outer]):
                continue
            holes = [i for i, each in enumerate(parts) if each == part and i != outer]
            if not any(_lies_in(rings[inner], rings[i]) for i in holes):
                faulty |= {inner, outer, *holes}
    return faulty


def _lies_in(ring: NDArray[np.int64], outer: NDArray[np.int64]) -> bool:
    """Whether a ring that crosses another one nowhere lies within it."""
    import cv2

    contour = outer.astype(np.float32)[:, None]
    middles = (ring + np.roll(ring, -1, axis=0)) / 2
    for x, y in np.concatenate([ring, middles]).tolist():
        side = cv2.pointPolygonTest(contour, (x, y), measureDist=False)
        if side:
            return side > 0
    return False


def _meeting(rings: Sequence[NDArray[np.int64]]) -> set[int]:
    """The rings of which segments meet elsewhere than in a corner that both have."""
    first = np.concatenate(rings).astype(np.float64)
    second = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings]).astype(np.float64)
    ring = np.repeat(np.arange(len(rings)), [len(each) for each in rings])
    faulty = set[int]()
    for i, j in _near(first, second):
        bad = _bad_pairs(first[i], second[i], first[j], second[j], ring[i] == ring[j])
        faulty |= set(ring[i[bad]].tolist()) | set(ring[j[bad]].tolist())
    return faulty | _crossing_in_corners(rings)


def _near(
    first: NDArray[np.float64], second: NDArray[np.float64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs of segments whose upright boxes meet, each pair once."""
    low, high = np.minimum(first, second), np.maximum(first, second)
    order = np.argsort(low[:, 0], kind="stable")
    low, high = low[order], high[order]
    ends = np.searchsorted(low[:, 0], high[:, 0], side="right")
    for begin in range(0, len(order), _AT_ONCE):
        stop = min(begin + _AT_ONCE, len(order))
        last = int(ends[begin:stop].max())
        i, j = np.arange(begin, stop)[:, None], np.arange(begin, last)[None]
        meet = (j > i) & (low[j, 0] <= high[i, 0])
        meet &= (low[j, 1] <= high[i, 1]) & (high[j, 1] >= low[i, 1])
        a, b = np.nonzero(meet)
        yield order[a + begin], order[b + begin]


def _bad_pairs(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    c: NDArray[np.float64],
    d: NDArray[np.float64],
    same_ring: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Whether segments ``a b`` and ``c d``, each ``(n, 2)``, meet where they must not."""
    of_c, of_d = _side(a, b, c), _side(a, b, d)
    meet = (of_c * of_d <= 0) & (_side(c, d, a) * _side(c, d, b) <= 0)
    flat = (of_c == 0) & (of_d == 0)  # their boxes meet, so both lie on one line and touch
    ends = [(p == q).all(1) for p, q in ((a, c), (a, d), (b, c), (b, d))]
    shared = np.logical_or.reduce(ends)
    away = np.where((ends[0] | ends[3])[:, None], d - c, c - d)
    along = ((b - a) * away).sum(1)
    overlap = flat & (along > 0)  # both leave the shared corner to the same side
    one_way = same_ring & (ends[0] | ends[3])  # a ring comes to a corner once
    return np.where(shared, overlap | one_way, meet)


def _side(
    a: NDArray[np.float64], b: NDArray[np.float64], p: NDArray[np.float64]
) -> NDArray[np.float64]:
    ab, ap = b - a, p - a
    return np.sign(ab[:, 0] * ap[:, 1] - ab[:, 1] * ap[:, 0])


def _crossing_in_corners(rings: Sequence[NDArray[np.int64]]) -> set[int]:
    """The rings that change sides in a corner that both have."""
    visits = defaultdict[tuple[int, int], list[tuple[int, float, float]]](list)
    corners = np.concatenate(rings)
    names, counts = np.unique(corners, axis=0, return_counts=True)
    shared = {tuple(corner) for corner in names[counts > 1].tolist()}
    for i, ring in enumerate(rings) if shared else ():
        for k, corner in enumerate(map(tuple, ring.tolist())):
            if corner in shared:
                ways = (ring[k - 1] - ring[k], ring[(k + 1) % len(ring)] - ring[k])
                one, other = (float(np.arctan2(y, x)) for x, y in ways)
                visits[corner].append((i, one, other))
    faulty = set[int]()
    for each in visits.values():
        for k, (i, *ways_of_one) in enumerate(each):
            low, high = sorted(ways_of_one)
            for j, *others in each[k + 1 :]:
                if len({low < angle < high for angle in others}) > 1:
                    faulty |= {i, j}
    return faulty
