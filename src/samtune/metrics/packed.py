"""Masks of one size in packed form, so that thousands per image fit into little memory.

What is more than that goes to a temporary file.
"""

from __future__ import annotations

import tempfile
import weakref
import zlib
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

IN_MEMORY = 2**23
"""Bytes of packed masks of one image that stay in memory."""


class _Packed(NamedTuple):
    """The location of the compressed bits of the rectangle around one mask."""

    top: int
    left: int
    height: int
    width: int
    start: int
    length: int


class PackedMasks:
    """Masks ``(N, h, w)`` bool; a slice of them is a tensor.

    Args:
        size: Height and width of all masks.
    """

    dtype = torch.bool

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self._masks: list[_Packed] = []
        self._bits = tempfile.SpooledTemporaryFile(IN_MEMORY)
        self._end = 0
        weakref.finalize(self, self._bits.close)

    def __len__(self) -> int:
        return len(self._masks)

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(N, h, w)``."""
        return (len(self), *self.size)

    def extend(self, masks: Tensor) -> None:
        """Adds masks ``(n, h, w)`` bool.

        Raises:
            OSError: The disk of temporary files is full.
        """
        self._bits.seek(self._end)
        for mask in masks.cpu().numpy():
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            if not len(rows):
                self._masks.append(_Packed(0, 0, 0, 0, 0, 0))
                continue
            top, left, end, right = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
            bits = zlib.compress(np.packbits(mask[top:end, left:right]).tobytes(), 1)
            self._bits.write(bits)
            place = (int(top), int(left), int(end - top), int(right - left))
            self._masks.append(_Packed(*place, start=self._end, length=len(bits)))
            self._end += len(bits)

    def __getitem__(self, rows: slice) -> Tensor:
        """Masks ``(n, h, w)`` bool."""
        chosen = self._masks[rows]
        masks = np.zeros((len(chosen), *self.size), bool)
        for mask, (top, left, height, width, start, length) in zip(masks, chosen, strict=True):
            if length:
                self._bits.seek(start)
                bits = self._bits.read(length)
                packed = np.frombuffer(zlib.decompress(bits), np.uint8)
                inner = np.unpackbits(packed, count=height * width).reshape(height, width)
                mask[top : top + height, left : left + width] = inner
        return torch.from_numpy(masks)
