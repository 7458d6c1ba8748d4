"""Cutting a token grid into the windows of SAM's local attention, and joining them again.

Li et al. 2022 (ViTDet, arXiv:2203.16527), as SAM uses it: the grid is zero-padded right and below.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def partition(x: Tensor, size: int) -> tuple[Tensor, tuple[int, int]]:
    """Cuts ``(B, H, W, C)`` into windows ``(B * windows, size, size, C)``, zero-padded.

    Returns:
        The windows, row by row, and the padded grid size ``(Hp, Wp)``.
    """
    b, h, w, c = x.shape
    down, right = -h % size, -w % size
    if down or right:
        x = F.pad(x, (0, 0, 0, right, 0, down))
    hp, wp = h + down, w + right
    x = x.reshape(b, hp // size, size, wp // size, size, c)
    return x.transpose(2, 3).reshape(-1, size, size, c), (hp, wp)


def merge(windows: Tensor, padded: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Undoes :func:`partition`: windows back to ``(B, H, W, C)``, padding cut off."""
    (hp, wp), (h, w) = padded, grid
    size, c = windows.shape[1], windows.shape[-1]
    x = windows.reshape(-1, hp // size, wp // size, size, size, c)
    return x.transpose(2, 3).reshape(-1, hp, wp, c)[:, :h, :w]
