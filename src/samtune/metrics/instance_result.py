"""One image's instances: any number of predicted masks beside the targets, as run lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

PAIRS = 4_000_000
"""Number of pairs of a mask and a target whose overlap is computed at once."""
MASKS = 256
"""Number of an image's masks whose run lengths are read at once."""
MOSTLY = 0.5
"""A mask with a larger part of its pixels ignored is not counted, unless it matches a target."""

RunLengths = dict[str, Any]
"""A mask as pycocotools keeps it."""
Floats = NDArray[np.float64]
Whole = NDArray[np.int64]


@dataclass(frozen=True)
class Overlaps:
    """The pixels that masks share with targets, as a sparse matrix."""

    predicted: Whole
    """``(D,)``: pixels of each mask that are not ignored."""
    target: Whole
    """``(G,)``: pixels of each target."""
    row: Whole
    """``(M,)``: the mask of each pair that shares pixels."""
    column: Whole
    """``(M,)``: its target."""
    pixels: Whole
    """``(M,)``: pixels that both have."""
    ignored: Floats
    """``(D,)``: fraction of each mask's pixels that are ignored."""

    @cached_property
    def iou(self) -> Floats:
        """``(M,)``: the IoU of each pair."""
        union = self.predicted[self.row] + self.target[self.column] - self.pixels
        return self.pixels / union

    def only(self, masks: NDArray[np.bool_], targets: NDArray[np.bool_]) -> Overlaps:
        """Some of the masks and targets, in their order.

        Args:
            masks: ``(D,)``.
            targets: ``(G,)``.
        """
        pairs = masks[self.row] & targets[self.column]
        return Overlaps(
            self.predicted[masks],
            self.target[targets],
            (masks.cumsum() - 1)[self.row[pairs]],
            (targets.cumsum() - 1)[self.column[pairs]],
            self.pixels[pairs],
            self.ignored[masks],
        )

    def in_order(self, order: Whole) -> Overlaps:
        """The masks in another order.

        Args:
            order: ``(D,)``: a permutation of them.
        """
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        rows = place[self.row]
        return Overlaps(
            self.predicted[order], self.target, rows, self.column, self.pixels, self.ignored[order]
        )

    def that_count(self) -> Overlaps:
        """The overlaps without empty masks and targets, and without masks that are mostly ignored.

        A mask that is mostly ignored counts if its IoU with a target is at least a half.
        """
        matches = np.zeros(len(self.predicted), bool)
        matches[self.row[self.iou >= MOSTLY]] = True
        masks = (self.predicted > 0) & (matches | (self.ignored <= MOSTLY))
        return self.only(masks, self.target > 0)


@dataclass(frozen=True)
class InstanceResult:
    """One image's instances, predicted and true.

    Masks are run lengths of pycocotools, all of one size. Targets have no ignored pixels.
    """

    predicted: Sequence[RunLengths]
    """``D`` masks, which may overlap."""
    target: Sequence[RunLengths]
    """``G`` masks."""
    scores: Floats | None = None
    """``(D,)``: how sure the model is of each mask."""
    predicted_classes: Whole | None = None
    """``(D,)``, from 0; ``None`` if masks have no class, which then does not count."""
    target_classes: Whole | None = None
    """``(G,)``, from 0."""
    ignored: RunLengths | None = None
    """The pixels that are ignored; ``None`` if there are none."""
    limit: int | None = None
    """The largest number of masks of a class that average precision looks at."""
    index: int = 0
    """Place in the data set."""

    @cached_property
    def overlaps(self) -> Overlaps:
        """The common pixels of masks and targets."""
        return overlaps_of(self.predicted, self.target, self.ignored)

    @property
    def classes(self) -> tuple[Whole, Whole]:
        """The classes of masks and targets; all 0 if either are unknown."""
        if self.predicted_classes is None or self.target_classes is None:
            return np.zeros(len(self.predicted), np.int64), np.zeros(len(self.target), np.int64)
        return self.predicted_classes, self.target_classes


def overlaps_of(
    predicted: Sequence[RunLengths],
    target: Sequence[RunLengths],
    ignored: RunLengths | None = None,
) -> Overlaps:
    """The common pixels of every mask with every target, from run lengths alone.

    Args:
        predicted: ``D`` masks.
        target: ``G`` masks, without ignored pixels.
        ignored: The pixels that are ignored.
    """
    from pycocotools import mask as coco

    targets, everything = areas_of_runs(target), list(target)
    rows, columns, pixels = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0)]
    areas, outside = [np.zeros(0, np.int64)], [np.zeros(0)]
    step = max(1, min(MASKS, PAIRS // max(1, len(target))))
    for start in range(0, len(predicted), step):
        masks = list(predicted[start : start + step])
        area = areas_of_runs(masks)
        areas.append(area)
        # of a group the library gives common pixels as a fraction of the mask's
        none = np.zeros((len(masks), 1))
        beyond = none if ignored is None else coco.iou(masks, [ignored], [1])
        outside.append(np.nan_to_num(beyond[:, 0]))
        if not everything:
            continue
        part = coco.iou(masks, everything, [1] * len(everything))
        row, column = np.nonzero(np.nan_to_num(part))
        rows.append(row + start)
        columns.append(column)
        pixels.append(part[row, column] * area[row])
    whole, left_out = np.concatenate(areas), np.concatenate(outside)
    return Overlaps(
        whole - np.rint(left_out * whole).astype(np.int64),
        targets,
        np.concatenate(rows),
        np.concatenate(columns),
        np.rint(np.concatenate(pixels)).astype(np.int64),
        left_out,
    )


def areas_of_runs(masks: Sequence[RunLengths]) -> Whole:
    """Pixels of each mask, ``(N,)``."""
    from pycocotools import mask as coco

    # one by one, because pycocotools counts a list's masks in a byte
    return np.array([int(coco.area(mask)) for mask in masks], np.int64)


def run_lengths_of_map(labels: NDArray[np.integer], count: int) -> list[RunLengths]:
    """The objects of a label map as run lengths, in one pass over its pixels.

    Args:
        labels: ``(h, w)``: 0 for none, ``k + 1`` for object ``k``.
        count: Number of objects.
    """
    from pycocotools import mask as coco

    flat = labels.ravel(order="F")  # COCO's runs go down the columns
    starts = np.flatnonzero(np.diff(flat, prepend=flat[:1] + 1 if len(flat) else 0))
    ends, values = np.append(starts[1:], len(flat)), flat[starts]
    order = np.argsort(values, kind="stable")
    first = np.searchsorted(values[order], np.arange(1, count + 2))
    masks = []
    for k in range(count):
        runs = order[first[k] : first[k + 1]]
        edges = np.stack([starts[runs], ends[runs]], 1).ravel()
        counts = np.diff(edges, prepend=0, append=len(flat)).tolist()
        last = len(counts) > 1 and not counts[-1]  # an object of the last pixel has none after it
        masks.append({"size": list(labels.shape), "counts": counts[:-1] if last else counts})
    return coco.frPyObjects(masks, *labels.shape) if masks else []
