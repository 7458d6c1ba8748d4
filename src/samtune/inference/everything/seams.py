"""Instances that were seen in overlapping windows of an image, joined to those of the image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray

from samtune.inference.everything.instances import Instances
from samtune.inference.everything.run_lengths import Box, as_coco, unpacked
from samtune.inference.everything.suppression import suppressed_boxes

Part = tuple[Box, Instances]
"""A window of an image, and the instances in it, whose masks are over the whole image."""


def joined_windows(parts: Sequence[Part], iou: float, box_iou: float) -> Instances:
    """The instances of an image from those of its windows, which overlap.

    Two masks of two windows are one object if they agree where both windows see it: their IoU in
    the overlap is at least ``iou``. Each mask of a window has at most one such partner in another.
    The object is all pixels of both, and its score the mean, weighted by their pixels. A mask that
    its window cuts off, but another window holds whole, is left to that one. What then shows the
    same object twice is suppressed by boxes.

    Args:
        parts: The windows.
        iou: In the overlap of two windows.
        box_iou: See :func:`.suppression.suppressed_boxes`.
    """
    size = parts[0][1].size
    windows = [window for window, _ in parts]
    whole = [
        instances.only(~_is_left_to_others(instances, i, windows))
        for i, (_, instances) in enumerate(parts)
    ]
    begins = np.cumsum([0, *map(len, whole)])
    roots = np.arange(begins[-1])
    for a, b in combinations(range(len(parts)), 2):
        zone = _overlap(windows[a], windows[b])
        for i, j in _partners(whole[a], whole[b], zone, iou) if zone else ():
            first, second = (_root(roots, k) for k in (begins[a] + i, begins[b] + j))
            roots[max(first, second)] = min(first, second)
    every = Instances.cat(whole)
    groups = np.array([_root(roots, k) for k in range(len(roots))], np.int64)
    merged = _merged(every, groups)
    boxes, scores = torch.from_numpy(merged.boxes), torch.from_numpy(merged.scores)
    assert merged.size == size
    return merged.only(suppressed_boxes(boxes, scores, box_iou).numpy())


def _overlap(a: Box, b: Box) -> Box | None:
    x0, y0, x1, y1 = max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


def _is_left_to_others(
    instances: Instances, mine: int, windows: Sequence[Box]
) -> NDArray[np.bool_]:
    """``(N,)``: whether a window cuts an instance off that lies whole within another one."""
    boxes, size = instances.boxes, instances.size
    leaves = _is_cut(boxes, windows[mine], size)
    elsewhere = np.zeros(len(boxes), bool)
    for i, window in enumerate(windows):
        if i != mine:
            holds = (boxes[:, :2] >= window[:2]).all(1) & (boxes[:, 2:] <= window[2:]).all(1)
            elsewhere |= holds & ~_is_cut(boxes, window, size)
    return leaves & elsewhere


def _is_cut(boxes: NDArray[np.int64], window: Box, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Whether boxes ``(N, 4)`` reach a side of a window that is not one of the image."""
    (x0, y0, x1, y1), (h, w) = window, size
    return (
        ((boxes[:, 0] <= x0) & (x0 > 0))
        | ((boxes[:, 1] <= y0) & (y0 > 0))
        | ((boxes[:, 2] >= x1) & (x1 < w))
        | ((boxes[:, 3] >= y1) & (y1 < h))
    )


def _partners(a: Instances, b: Instances, zone: Box, iou: float) -> Iterator[tuple[int, int]]:
    """Pairs of instances of two windows that are one object, the best first, each at most once."""
    sides = [_in_zone(each, zone) for each in (a, b)]
    pairs = []
    for i, (box, mask) in sides[0].items():
        for j, (other_box, other) in sides[1].items():
            if _overlap(box, other_box) is None:
                continue
            both = np.count_nonzero(mask & other)
            if both and (value := both / np.count_nonzero(mask | other)) >= iou:
                pairs.append((-value, i, j))
    used: tuple[set[int], set[int]] = (set(), set())
    for _, i, j in sorted(pairs):
        if i not in used[0] and j not in used[1]:
            used[0].add(i)
            used[1].add(j)
            yield i, j


def _in_zone(instances: Instances, zone: Box) -> dict[int, tuple[Box, NDArray[np.bool_]]]:
    """The instances with a pixel in a zone: the box there, and the mask of all of the zone."""
    parts = {}
    for i in range(len(instances)):
        box = _overlap(instances.box(i), zone)
        if box is not None:
            mask = unpacked(instances.counts[i], instances.size, zone)
            if mask.any():
                parts[i] = (box, mask)
    return parts


def _root(roots: NDArray[np.int64], k: int) -> int:
    """The first member of a group."""
    while roots[k] != k:
        k = int(roots[k])
    return int(k)


def _merged(instances: Instances, groups: NDArray[np.int64]) -> Instances:
    """One instance for each group; what is known of it is that of its largest member."""
    from pycocotools import mask as coco

    counts, scores, largest = [], [], []
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        if len(rows) == 1:
            counts.append(instances.counts[rows[0]])
        else:
            masks = [as_coco(instances.counts[i], instances.size) for i in rows]
            counts.append(coco.merge(masks)["counts"].decode("ascii"))
        weights = instances.areas[rows].astype(np.float64)
        scores.append(float(np.average(instances.scores[rows], weights=weights)))
        largest.append(int(rows[weights.argmax()]))
    kept = instances.only(largest)
    columns = ("classes", "points", "stability", "windows")
    others = {name: getattr(kept, name) for name in columns}
    return Instances.of_counts(counts, instances.size, scores, **others)
