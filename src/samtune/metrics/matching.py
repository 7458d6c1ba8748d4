"""One-to-one matches of masks and targets, as the metrics of the field define them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from samtune.metrics.instance_result import Floats, Overlaps, Whole

Bools = NDArray[np.bool_]
Candidates = list[list[tuple[int, float]]]
"""The targets that each mask could match, in their order, and the IoU with each."""


def largest_number(row: Whole, column: Whole) -> int:
    """The largest number of pairs of which no two share a mask or a target.

    If neither masks nor targets overlap, or either of them does not, that is a count; otherwise
    augmenting paths are searched for, from one mask after another (Kuhn 1955).

    Args:
        row: ``(M,)``: the mask of each pair.
        column: ``(M,)``: its target.
    """
    masks, targets = np.unique(row), np.unique(column)
    if len(row) in (len(masks), len(targets)):
        return min(len(masks), len(targets))
    reach: dict[int, list[int]] = {}
    for mask, target in zip(row.tolist(), column.tolist(), strict=True):
        reach.setdefault(mask, []).append(target)
    owner: dict[int, int] = {}
    return sum(_augmented(mask, reach, owner) for mask in reach)


def _augmented(start: int, reach: dict[int, list[int]], owner: dict[int, int]) -> bool:
    """Gives one more mask a target, if others can move for it."""
    came_from: dict[int, int] = {}
    waiting, target_of = deque([start]), {mask: target for target, mask in owner.items()}
    while waiting:
        mask = waiting.popleft()
        for target in reach[mask]:
            if target in came_from:
                continue
            came_from[target] = mask
            if target in owner:
                waiting.append(owner[target])
                continue
            step: int | None = target
            while step is not None:  # each mask on the path takes the next target
                taker = came_from[step]
                before = target_of.get(taker) if taker != start else None
                owner[step] = taker
                step = before
            return True
    return False


def closest_pairs(overlaps: Overlaps, above: float = 0.0) -> Whole:
    """The pairs that match if the closest may choose first, as indices of ``overlaps.row``.

    Args:
        overlaps: All pairs that share pixels.
        above: The IoU that a match must exceed. If it is a half or more, and targets do not
            overlap, no other choice has more pairs or a larger sum of IoU.
    """
    near = np.flatnonzero(overlaps.iou > above)
    order = near[np.argsort(-overlaps.iou[near], kind="stable")]
    masks, targets = np.zeros(len(overlaps.predicted), bool), np.zeros(len(overlaps.target), bool)
    matches = []
    rows, columns = overlaps.row[order].tolist(), overlaps.column[order].tolist()
    for pair, mask, target in zip(order.tolist(), rows, columns, strict=True):
        if not masks[mask] and not targets[target]:
            masks[mask] = targets[target] = True
            matches.append(pair)
    return np.array(matches, np.int64)


def best_sum_pairs(overlaps: Overlaps) -> Whole:
    """The one-to-one pairs with the largest sum of IoU, as indices of ``overlaps.row``.

    Each connected part of the graph is solved on its own, so thousands of instances take no large
    matrix. scipy must be installed.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    masks, targets = len(overlaps.predicted), len(overlaps.target)
    edges = (np.ones(len(overlaps.row)), (overlaps.row, overlaps.column + masks))
    _, part = connected_components(coo_array(edges, shape=(masks + targets,) * 2), directed=False)
    order = np.argsort(part[overlaps.row], kind="stable")
    bounds = np.flatnonzero(np.diff(part[overlaps.row][order])) + 1
    matches = [np.zeros(0, np.int64)]
    for pairs in np.split(order, bounds):
        if len(pairs) < 2:
            matches.append(pairs)
            continue
        _, row = np.unique(overlaps.row[pairs], return_inverse=True)
        _, column = np.unique(overlaps.column[pairs], return_inverse=True)
        gain = np.zeros((row.max() + 1, column.max() + 1))
        gain[row, column] = overlaps.iou[pairs]
        which = np.full(gain.shape, -1)
        which[row, column] = pairs
        taken = which[linear_sum_assignment(gain, maximize=True)]
        matches.append(taken[taken >= 0])
    return np.concatenate(matches)


def candidates_of(overlaps: Overlaps, least: float) -> Candidates:
    """The targets that have at least this IoU with a mask, for each mask."""
    lists: Candidates = [[] for _ in range(len(overlaps.predicted))]
    near = np.flatnonzero(overlaps.iou >= least)
    near = near[np.argsort(overlaps.column[near], kind="stable")]
    pairs = (overlaps.row[near], overlaps.column[near], overlaps.iou[near])
    for mask, target, iou in zip(*(each.tolist() for each in pairs), strict=True):
        lists[mask].append((target, iou))
    return lists


def by_falling_score(
    candidates: Candidates, uncounted: Bools, outside: Bools, ignored: Floats, threshold: float
) -> tuple[Bools, Bools]:
    """COCO's matching: each mask takes the closest free target, counted ones before others.

    Args:
        candidates: The candidates of each mask, by falling score.
        uncounted: ``(G,)``: targets that are not counted, as they are not of the size in question.
        outside: ``(D,)``: masks that are not of it.
        ignored: ``(D,)``: fraction of each mask that is ignored; COCO sees a crowd there, which
            matches if the fraction reaches the threshold, any number of masks.
        threshold: Least IoU.

    Returns:
        ``(D,)`` each: whether a mask matches, and whether it is left out.
    """
    least = min(threshold, 1 - 1e-10)
    passed, left_out = np.zeros(len(candidates), bool), outside.copy()
    free = [True] * len(uncounted)
    of_size: Sequence[bool] = (~uncounted).tolist()
    in_crowd: Sequence[float] = ignored.tolist()
    for mask, targets in enumerate(candidates):
        best, counts, highest = None, False, least
        for target, iou in targets:  # among equals, COCO takes the last
            if free[target] and iou >= least:
                if of_size[target] > counts or (of_size[target] == counts and iou >= highest):
                    best, counts, highest = target, of_size[target], iou
        if not counts and in_crowd[mask] >= (least if best is None else highest):
            passed[mask] = left_out[mask] = True
        elif best is not None:
            free[best] = False
            passed[mask], left_out[mask] = True, not counts
    return passed, left_out
