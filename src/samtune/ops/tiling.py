"""Cutting a large image into overlapping windows, and the weights that blend their results.

Lengths and places are pixels of one axis; a window of an image is ``(y0, x0, y1, x1)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Window = tuple[int, int, int, int]
LEAST_CROP = 0.25
"""Smallest side of a crop as a fraction of a tile's side; a smaller crop would only show blur."""


def extent(frame: tuple[int, int], scale: float, image: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a tile in image pixels, for a zoom in frame pixels per image pixel."""
    h, w = (max(1, round(side / scale)) for side in frame)
    return min(h, image[0]), min(w, image[1])


def starts(length: int, window: int, overlap: float) -> list[int]:
    """Start positions of windows: as few as possible, evenly spaced from end to end.

    Neighbours share at least ``overlap`` of a window, up to a pixel of rounding.
    """
    if window >= length:
        return [0]
    stride = max(1.0, window * (1 - overlap))
    count = math.ceil((length - window) / stride - 1e-9) + 1
    return [round(i * (length - window) / (count - 1)) for i in range(count)]


def weights(length: int, window: int, begins: Sequence[int]) -> Tensor:
    """The weight of each window at each pixel: ``(windows, length)`` float64.

    Each window has a raised cosine. The weights are normalised to sum to 1 at every covered pixel
    and are 0 elsewhere, so a window counts alone where no other lies and fades out under its
    neighbours.
    """
    bump = torch.sin(torch.pi * (torch.arange(window, dtype=torch.float64) + 0.5) / window) ** 2
    table = torch.zeros(len(begins), length, dtype=torch.float64)
    for row, begin in enumerate(begins):
        table[row, begin : begin + window] = bump
    return table / table.sum(0).where(table.any(0), torch.ones((), dtype=torch.float64))


def around(
    box: Sequence[float], margin: float, least: tuple[int, int], image: tuple[int, int]
) -> Window:
    """Returns a square window around a box ``xyxy``, moved into the image and no larger than it.

    Args:
        box: In pixels; it may reach out of the image.
        margin: Margin on each side, as a fraction of the box's longer side.
        least: Smallest height and width.
        image: Its height and width.
    """
    x0, y0, x1, y1 = box
    side = max(x1 - x0, y1 - y0) * (1 + 2 * margin)
    h, w = (min(whole, max(low, math.ceil(side))) for whole, low in zip(image, least, strict=True))
    top = min(max(0, round((y0 + y1 - h) / 2)), image[0] - h)
    left = min(max(0, round((x0 + x1 - w) / 2)), image[1] - w)
    return top, left, top + h, left + w


def least_crop(tile: tuple[int, int]) -> tuple[int, int]:
    """The smallest height and width of a crop, from those of a tile."""
    return max(1, int(LEAST_CROP * tile[0])), max(1, int(LEAST_CROP * tile[1]))
