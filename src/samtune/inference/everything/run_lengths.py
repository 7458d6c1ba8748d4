"""Masks as COCO's run lengths, made from windows and read in windows.

A mask of an image of ``(h, w)`` pixels is read column by column; its runs of pixels outside and
inside alternate, the first is outside. Their lengths are packed into text as ``pycocotools`` does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Box = tuple[int, int, int, int]
"""``(x0, y0, x1, y1)`` in whole pixels; the last column and row are not part of it."""

_FIRST = 48
"""The character of the number 0."""
_BITS, _MORE, _SIGN = 5, 0x20, 0x10
"""Bits of a number in a character, the mark that more follow, and the sign of the last."""


def packed(
    mask: NDArray[np.bool_], corner: tuple[int, int] = (0, 0), size: tuple[int, int] | None = None
) -> str:
    """The run lengths of a mask in a window of an image, and none outside of the window.

    Args:
        mask: ``(h, w)`` of the window.
        corner: Its first pixel ``(x, y)`` in the image.
        size: Height and width of the image; by default those of the mask.
    """
    from pycocotools import mask as coco

    h, w = size or (mask.shape[0], mask.shape[1])
    columns = np.zeros((mask.shape[1], mask.shape[0] + 1), np.int8)
    columns[:, :-1] = mask.T
    change = np.diff(columns.ravel(), prepend=0)
    place = np.flatnonzero(change)  # of starts and ends, in columns of one pixel more
    column, row = np.divmod(place, mask.shape[0] + 1)
    ends = change[place] < 0
    # An end behind the last row is at the start of the next column of the window.
    at = (column + corner[0]) * h + row + corner[1]
    both = np.flatnonzero(ends[:-1] & (at[:-1] == at[1:]))  # a run that goes on in the next column
    at = np.delete(at, np.concatenate([both, both + 1]))
    runs = np.diff(at, prepend=0, append=h * w)
    if len(at) and not runs[-1]:
        runs = runs[:-1]
    whole = {"size": [h, w], "counts": runs.tolist()}
    return coco.frPyObjects(whole, h, w)["counts"].decode("ascii")


def lengths(counts: str) -> NDArray[np.int64]:
    """The lengths of the runs that a text holds."""
    codes = np.frombuffer(counts.encode("ascii"), np.uint8).astype(np.int64) - _FIRST
    if not len(codes):
        return np.zeros(0, np.int64)
    last = (codes & _MORE) == 0
    number = np.cumsum(last) - last  # of which each character is a part
    begin = np.flatnonzero(np.concatenate([[True], last[:-1]]))
    shift = _BITS * (np.arange(len(codes)) - begin[number])
    values = np.zeros(int(last.sum()), np.int64)
    np.add.at(values, number, (codes & (_MORE - 1)) << shift)
    negative = (codes[last] & _SIGN) != 0
    values -= negative.astype(np.int64) << (shift[last] + _BITS)
    # From the fourth on, each is the difference from the one two before it.
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def unpacked(counts: str, size: tuple[int, int], window: Box | None = None) -> NDArray[np.bool_]:
    """The mask in a window of the image; by default in all of it.

    Args:
        counts: From :func:`packed`, or of ``pycocotools``.
        size: Height and width of the image.
        window: Within the image.
    """
    h, w = size
    x0, y0, x1, y1 = window or (0, 0, w, h)
    ends = np.clip(np.cumsum(lengths(counts)), x0 * h, x1 * h) - x0 * h
    inside = np.arange(len(ends)) % 2 == 1
    columns = np.repeat(inside, np.diff(ends, prepend=0)).reshape(x1 - x0, h)
    return np.ascontiguousarray(columns[:, y0:y1].T)


def box_of(counts: str, size: tuple[int, int]) -> Box:
    """The smallest box around a mask; an empty one at the first pixel if it has no pixel."""
    from pycocotools import mask as coco

    x, y, w, h = (int(v) for v in coco.toBbox(as_coco(counts, size)))
    return x, y, x + w, y + h


def area_of(counts: str) -> int:
    """The number of pixels of a mask."""
    return int(lengths(counts)[1::2].sum())


def as_coco(counts: str, size: tuple[int, int]) -> dict[str, Any]:
    """The mask as ``pycocotools`` takes it."""
    return {"size": [*size], "counts": counts.encode("ascii")}
