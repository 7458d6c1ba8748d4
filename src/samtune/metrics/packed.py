"""Masks of one size in packed form, so that thousands per image fit into little memory."""

from __future__ import annotations

import zlib
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class _Packed(NamedTuple):
    """The bits of the rectangle around one mask, compressed."""

    top: int
    left: int
    height: int
    width: int
    bits: bytes


class PackedMasks:
    """Masks ``(N, h, w)`` bool; a slice of them is a tensor.

    Args:
        size: Height and width of all masks.
    """

    dtype = torch.bool

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self._masks: list[_Packed] = []

    def __len__(self) -> int:
        return len(self._masks)

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(N, h, w)``."""
        return (len(self), *self.size)

    def extend(self, masks: Tensor) -> None:
        """Adds masks ``(n, h, w)`` bool."""
        for mask in masks.cpu().numpy():
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            if not len(rows):
                self._masks.append(_Packed(0, 0, 0, 0, b""))
                continue
            top, left, end, right = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
            bits = zlib.compress(np.packbits(mask[top:end, left:right]).tobytes(), 1)
            self._masks.append(_Packed(top, left, end - top, right - left, bits))

    def __getitem__(self, rows: slice) -> Tensor:
        """Masks ``(n, h, w)`` bool."""
        chosen = self._masks[rows]
        masks = np.zeros((len(chosen), *self.size), bool)
        for mask, (top, left, height, width, bits) in zip(masks, chosen, strict=True):
            if bits:
                packed = np.frombuffer(zlib.decompress(bits), np.uint8)
                inner = np.unpackbits(packed, count=height * width).reshape(height, width)
                mask[top : top + height, left : left + width] = inner
        return torch.from_numpy(masks)
