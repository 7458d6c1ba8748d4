"""Guesses that need no model: the filled box, its ellipse, and the whole image as one object."""

from __future__ import annotations

import torch
from torch import Tensor


def filled_box(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Guesses that a box is all object: the pixels whose centre lies in it.

    Args:
        boxes: ``(N, 4)`` xyxy in pixels, edges of the box: pixel i spans i to i + 1 with its centre
            at i + 0.5, so the tight box of a mask ends one past its last pixel. NaN gives an empty
            mask.
        size: Height and width in pixels.

    Returns:
        ``(N, h, w)`` bool.
    """
    x, y = _centres(boxes, size)
    x0, y0, x1, y1 = boxes[:, :, None, None].unbind(1)
    return (x0 <= x) & (x < x1) & (y0 <= y) & (y < y1)


def inscribed_ellipse(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Guesses that an object is the ellipse that touches its box's four sides.

    For arguments and result see :func:`filled_box`, whose mask contains this one.
    """
    x, y = _centres(boxes, size)
    x0, y0, x1, y1 = boxes[:, :, None, None].unbind(1)
    # 2 x - x0 - x1 over the width is the offset from the middle in half-axes.
    across, down = (2 * x - x0 - x1) / (x1 - x0), (2 * y - y0 - y1) / (y1 - y0)
    return filled_box(boxes, size) & (across**2 + down**2 < 1)


def whole_image(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Guesses that everything is object: all pixels, whatever the boxes ``(N, 4)``."""
    return torch.ones(len(boxes), *size, dtype=torch.bool)


def _centres(boxes: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Coordinates of the pixel centres, ``(1, w)`` and ``(h, 1)``."""
    h, w = size
    x = torch.arange(w, device=boxes.device) + 0.5
    return x[None], (torch.arange(h, device=boxes.device) + 0.5)[:, None]
