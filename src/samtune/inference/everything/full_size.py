"""Masks at the size of an image from low-resolution logits, each where it can be and nowhere else.

SAM enlarges logits twice, to the model's frame and to the image, and only then cuts at a threshold.
Both steps together are one matrix for each axis, in which a pixel depends on few of the low
resolution's cells. A pixel lies between the values of the cells that it depends on, so what is
below a threshold in all of them needs no pixel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samtune.geometry import Geometry, Resize
from samtune.inference.everything.run_lengths import Box, packed
from samtune.ops.resize import enlargement

BLOCK = 64
"""Pixels of an axis that are computed together."""
AT_ONCE = 2**28
"""Bytes of logits of the image's size at a time, on a device other than the CPU."""


class Mask(NamedTuple):
    """A mask of an image."""

    candidate: int
    """Its number among those that were given."""
    counts: str
    """Its run lengths, see :mod:`.run_lengths`."""
    box: Box
    area: int
    stability: float
    """IoU of the mask at a higher and at a lower threshold."""


class _Part(NamedTuple):
    """The pixels from ``begin`` to ``end``, from the cells from ``first`` to ``last``."""

    begin: int
    end: int
    first: int
    last: int
    matrix: Tensor
    """``(end - begin, last - first)``."""


class FullSize:
    """Brings low-resolution logits to the size of a window of an image, and cuts them.

    Args:
        geometry: The window's in the model's frame.
        low: Height and width of the logits.
        device: The device that they are on.
        corner: The window's first pixel ``(x, y)`` in the image.
        size: Height and width of the image.
    """

    def __init__(
        self,
        geometry: Geometry,
        low: tuple[int, int],
        device: torch.device,
        corner: tuple[int, int],
        size: tuple[int, int],
    ) -> None:
        self.geometry, self.device, self.corner, self.size = geometry, device, corner, size
        self.axes: tuple[list[_Part], list[_Part]] | None = None
        if is_enlarged_by_axis(geometry):
            rows, columns = (_parts(geometry, low[i], i, device) for i in (0, 1))
            self.axes = rows, columns

    def masks(
        self, logits: Tensor, threshold: float, offset: float, least_stability: float
    ) -> Iterator[Mask]:
        """The masks of candidates that are stable enough.

        Args:
            logits: ``(M, 4H, 4W)``.
            threshold: Logits above it are inside.
            offset: Stability compares the thresholds so much above and below.
            least_stability: 0 or less for all masks that have a pixel.
        """
        for numbers, large, at in self._enlarged(logits, threshold - max(offset, 0.0)):
            inner = _counted(large > threshold + offset)
            outer = _counted(large > threshold - offset)
            masks = large > threshold
            for row, number in enumerate(numbers):
                stability = inner[row] / outer[row] if outer[row] else float("nan")
                if least_stability > 0 and not stability >= least_stability:
                    continue
                if (mask := self._mask(number, masks[row], at, stability)) is not None:
                    yield mask

    def _mask(
        self, number: int, mask: Tensor, at: tuple[int, int], stability: float
    ) -> Mask | None:
        """A mask, from its pixels in a part of the window that begins at ``(x, y)``."""
        ys, xs = (mask.any(axis).nonzero()[:, 0] for axis in (1, 0))
        if not len(ys):
            return None
        (y0, y1), (x0, x1) = ((int(each[0]), int(each[-1]) + 1) for each in (ys, xs))
        pixels: NDArray[np.bool_] = mask[y0:y1, x0:x1].cpu().numpy()
        left, top = (a + b + c for a, b, c in zip(self.corner, at, (x0, y0), strict=True))
        box = (left, top, left + x1 - x0, top + y1 - y0)
        counts = packed(pixels, (left, top), self.size)
        return Mask(number, counts, box, int(np.count_nonzero(pixels)), stability)

    def _enlarged(
        self, logits: Tensor, least: float
    ) -> Iterator[tuple[Sequence[int], Tensor, tuple[int, int]]]:
        """Numbers, logits ``(n, h, w)`` of a part of the window, and its first pixel ``(x, y)``.

        Args:
            logits: ``(M, 4H, 4W)``.
            least: The level that a logit must exceed somewhere, or else it may be left out.
        """
        h, w = self.geometry.original
        on_cpu = self.device.type == "cpu"
        step = 1 if on_cpu else max(1, AT_ONCE // (4 * h * w))
        for begin in range(0, len(logits), step):
            part = logits[begin : begin + step].float()
            numbers = range(begin, begin + len(part))
            if self.axes is None:
                yield numbers, self.geometry.masks_to_original(part[None])[0], (0, 0)
                continue
            above = (part > least).any(0)
            rows, columns = (_reached(axis, above.any(1 - i)) for i, axis in enumerate(self.axes))
            if rows and columns:
                at = (columns[0].begin, rows[0].begin)
                yield numbers, _product(rows, part, columns), at


def is_enlarged_by_axis(geometry: Geometry) -> bool:
    """Whether masks come back to the image as SAM has it, and so by one matrix for each axis."""
    way = type(geometry.resize)
    return way.logits is Resize.logits and way.unfit is Resize.unfit


def _parts(geometry: Geometry, low: int, axis: int, device: torch.device) -> list[_Part]:
    sizes = (geometry.resized[axis], geometry.original[axis])
    content, original = (torch.tensor(side) for side in sizes)
    matrix = enlargement(low, geometry.model[axis], content, original)  # original low
    parts = []
    for begin in range(0, len(matrix), BLOCK):
        block = matrix[begin : begin + BLOCK]
        cells = block.any(0).nonzero()[:, 0]
        first, last = int(cells[0]), int(cells[-1]) + 1
        end = begin + len(block)
        parts.append(_Part(begin, end, first, last, block[:, first:last].contiguous().to(device)))
    return parts


def _reached(axis: list[_Part], above: Tensor) -> list[_Part]:
    """The parts of an axis from the first to the last that depend on one of some cells."""
    cells = above.nonzero()[:, 0]
    if not len(cells):
        return []
    low, high = int(cells[0]), int(cells[-1])
    return [part for part in axis if part.first <= high and part.last > low]


def _product(rows: list[_Part], logits: Tensor, columns: list[_Part]) -> Tensor:
    """Logits ``(n, 4H, 4W)`` enlarged along both axes, in some parts of them."""
    left, right = columns[0].first, max(part.last for part in columns)
    tall = torch.cat(
        [part.matrix @ logits[:, part.first : part.last, left:right] for part in rows], 1
    )
    wide = [tall[..., p.first - left : p.last - left] @ p.matrix.T for p in columns]
    return torch.cat(wide, 2)


def _counted(inside: Tensor) -> list[int]:
    """The number of pixels of each mask ``(n, h, w)``."""
    if inside.device.type == "cpu":
        return [int(np.count_nonzero(mask)) for mask in inside.numpy()]
    return inside.flatten(1).sum(1).tolist()
