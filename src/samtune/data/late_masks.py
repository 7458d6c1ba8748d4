"""Mask prompts that are computed when they are needed, for a few objects of an image at a time."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samtune.batch import ObjectMap
from samtune.data.draws import Draws
from samtune.data.prompters import Objects, Sampling, prompter
from samtune.prompts import Prompts, kind_of

AT_ONCE = 64
"""Objects whose noise is drawn and skipped together."""


class RowsOfDraws(Draws):
    """The draws for some of the objects, as they are among the draws for all.

    Args:
        draws: They advance to the end of these rows.
        rows: The range of the objects.
        count: The number of all objects.
    """

    def __init__(self, draws: Draws, rows: slice, count: int) -> None:
        super().__init__(draws.generator)
        self.draws, self.rows, self.count = draws, rows, count

    def swelling(self, most: int, objects: int) -> NDArray[np.int64]:
        """Draws for all objects."""
        return self.draws.swelling(most, self.count)[self.rows]

    def mask_noise(self, shape: tuple[int, ...]) -> Tensor:
        """Draws for the objects before too, a few at a time."""
        for start in range(0, self.rows.start, AT_ONCE):
            self.draws.mask_noise((min(AT_ONCE, self.rows.start - start), *shape[1:]))
        return self.draws.mask_noise(shape)


@dataclass(frozen=True)
class LateGroup:
    """Prompts of an image whose masks are drawn in one mode."""

    mode: str
    which: NDArray[np.int64]
    """The objects, at least one."""
    first: int
    """The row of the first of them among the image's prompts; the others follow."""
    how: Sampling
    """The draws are a copy, as they were before the first of them."""

    def masks(self, objects: Objects, rows: slice, draws: Draws) -> Tensor:
        """The masks ``(n, 1, 4H, 4W)`` of some of the prompts.

        Args:
            objects: The objects of the image.
            rows: A range of the group.
            draws: They advance to the end of the range.
        """
        how = replace(self.how, draws=RowsOfDraws(draws, rows, len(self.which)))
        masks = prompter(self.mode)(objects, self.which[rows], how).masks
        assert masks is not None
        return masks


@dataclass(frozen=True)
class LateMasks:
    """The mask prompts of one image, for ``ObjectMap.late``."""

    groups: tuple[LateGroup, ...]
    """The groups, one or more."""
    resized: tuple[int, int] | None
    """See :class:`samtune.data.prompters.Objects`."""

    def __call__(self, map: ObjectMap, rows: slice) -> Tensor:
        """The masks ``(n, 1, 4H, 4W)`` of some of the image's prompts; zero for other prompts.

        Args:
            map: The image's objects.
            rows: A range of its prompts.
        """
        masks = torch.zeros(rows.stop - rows.start, 1, *self.groups[0].how.mask_size)
        count = int(map.numbers.max())
        objects = Objects(map.original.numpy(), map.fitted.numpy(), count, self.resized)
        for group in self.groups:
            start = max(rows.start, group.first)
            stop = min(rows.stop, group.first + len(group.which))
            if start < stop:
                mine = slice(start - group.first, stop - group.first)
                drawn = group.masks(objects, mine, copy.deepcopy(group.how.draws))
                masks[start - rows.start : stop - rows.start] = drawn
        return masks


def prompts_and_late_masks(
    objects: Objects, groups: Sequence[tuple[str, NDArray[np.int64]]], how: Sampling
) -> tuple[Prompts, LateMasks | None]:
    """The prompts of an image without their masks, and the object that computes these.

    The draws end where they would if the masks were computed at once.

    Args:
        objects: The objects of the image.
        groups: The modes, and the objects of each.
        how: How prompts are sampled.
    """
    parts, late, first = [], [], 0
    for mode, which in groups:
        count = len(which)
        if kind_of(mode) != "mask":
            parts.append(prompter(mode)(objects, which, how))
        else:
            flags = torch.ones(count, dtype=torch.bool)
            parts.append(replace(Prompts.of(count=count), has_mask=flags))
        if kind_of(mode) == "mask" and count:
            late.append(LateGroup(mode, which, first, replace(how, draws=copy.deepcopy(how.draws))))
            late[-1].masks(objects, slice(count - 1, count), how.draws)
        first += count
    return Prompts.cat(parts), LateMasks(tuple(late), objects.resized) if late else None
