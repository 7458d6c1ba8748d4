"""Resampling of position tables to another token grid, and the pixels that a zoom reads.

At the native size a table is returned unchanged.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def positions(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resamples absolute positions ``(1, H0, W0, C)`` to ``(1, H, W, C)``.

    The resampling is bilinear without antialiasing, as in the published variable-size adaptations
    of SAM.
    """
    if tuple(table.shape[1:3]) == tuple(grid):
        return table
    moved = F.interpolate(_widened(table).permute(0, 3, 1, 2), grid, mode="bilinear")
    return moved.permute(0, 2, 3, 1).to(table.dtype)


def relative_table(table: Tensor, length: int) -> Tensor:
    """A table of relative positions ``(L, D)`` linearly interpolated to ``(length, D)``."""
    if table.shape[0] == length:
        return table
    return F.interpolate(_widened(table).T[None], length, mode="linear")[0].T.to(table.dtype)


def relative(table: Tensor, queries: int, keys: int) -> Tensor:
    """The relative positions of each query and key along one axis, ``(queries, keys, D)``.

    A table ``(L, D)`` of another length than ``2 * max(queries, keys) - 1`` is linearly
    interpolated; the shorter axis is stretched over the longer one (SAM, ``get_rel_pos``).
    """
    table = relative_table(table, 2 * max(queries, keys) - 1)
    stretch_q, stretch_k = max(keys / queries, 1.0), max(queries / keys, 1.0)
    q = torch.arange(queries, device=table.device)[:, None] * stretch_q
    k = torch.arange(keys, device=table.device)[None] * stretch_k
    return table[((q - k) + (keys - 1) * stretch_k).long()]


def enlargement(low: int, frame: int, content: Tensor, original: Tensor) -> Tensor:
    """The effect of enlarging along one axis, as a matrix ``(original, low)`` float32.

    Values at ``low`` places come to a frame by bilinear interpolation, are cut to its content, and
    come to the original size by bilinear interpolation again: SAM's post-processing. As a matrix it
    needs no size ahead of time, so that a traced program fits images of any shape.

    Args:
        low: How many values there are.
        frame: How many there are in the frame.
        content: How many of those are kept, a number of any kind.
        original: How many there shall be, a number of any kind.
    """
    values = torch.eye(low, device=content.device)
    if low != frame:
        values = F.interpolate(values[None], frame, mode="linear", align_corners=False)[0]
    count = original.to(torch.int64).item()  # a symbol while traced
    torch._check(count >= 1)
    at = torch.arange(count, dtype=torch.float64, device=content.device)
    step = content.double() / original.double()
    at = ((at + 0.5) * step - 0.5).clamp(min=0.0)
    before = at.floor()
    after = torch.minimum(before + 1, content.double() - 1)
    part = (at - before).float()[:, None]
    rows = values.T  # frame low
    return rows[before.long()] * (1 - part) + rows[after.long()] * part


def shrinkage(size: int, extent: Tensor, content: Tensor, frame: int, wide: bool) -> Tensor:
    """The effect of resizing an image along one axis, as a matrix ``(frame, size)`` float32.

    The first ``extent`` of ``size`` pixels come to the first ``content`` of a frame by bilinear
    interpolation as Pillow has it: over as many pixels as fall on one, so that fine patterns
    vanish rather than show up as coarse ones. The rest of the frame is 0. At equal sizes the matrix
    is the identity.

    Args:
        size: How many pixels there are.
        extent: How many of them are the image, a number of any kind.
        content: How many there shall be, a number of any kind.
        frame: How many there are in the frame.
        wide: Whether a smaller image is antialiased in this way.
    """
    step = extent.double() / content.double()
    reach = step.clamp(min=1.0) if wide else torch.ones_like(step)
    at = torch.arange(size, dtype=torch.float64, device=extent.device)
    places = torch.arange(frame, dtype=torch.float64, device=extent.device)
    apart = at + 0.5 - (places[:, None] + 0.5) * step
    weights = (1 - apart.abs() / reach).clamp(min=0.0)
    is_there = (at < extent) & (places[:, None] < content)
    weights = torch.where(is_there, weights, 0.0)
    return (weights / weights.sum(1, keepdim=True).clamp(min=1e-9)).float()


def nearest_in_zoom(source: int, target: int) -> Tensor:
    """The source index of each of ``target`` pixels: ``(target,)`` int64; -1 for none.

    It repeats the arithmetic of ``scipy.ndimage.zoom`` of order 0 along an axis, which at some
    sizes (512 to 224) rounds the last pixel out of the source and leaves it empty.
    """
    step = (source - 1) / (target - 1) if target > 1 else 1.0
    at = torch.arange(target, dtype=torch.float64) * step
    return torch.where(at > source - 1, -1, (at + 0.5).floor().long())


def _widened(table: Tensor) -> Tensor:
    """Converts half precision to float32, for interpolation."""
    return table.to(torch.promote_types(table.dtype, torch.float32))
