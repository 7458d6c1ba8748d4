r"""The parts of attention with decomposed relative positions that its forms have in common.

The bias :math:`q \cdot R_h + q \cdot R_w` is linear in the query, so the scores are one product:
:math:`[q / \sqrt{D}, q R_h, q R_w] \cdot [k, \mathrm{onehot}(row), \mathrm{onehot}(column)]`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def by_axis(q: Tensor, rel_h: Tensor, rel_w: Tensor) -> tuple[Tensor, Tensor]:
    """``q . R`` per row ``(B, heads, H, W, kh)`` and per column ``(B, heads, H, W, kw)``."""
    grid = q.unflatten(2, (rel_h.shape[0], rel_w.shape[0]))
    by_row = torch.einsum("bnhwd,hkd->bnhwk", grid, rel_h)
    by_column = torch.einsum("bnhwd,wkd->bnhwk", grid, rel_w)
    return by_row, by_column


def bias(q: Tensor, rel_h: Tensor, rel_w: Tensor, extra: int) -> Tensor:
    """The sum of both, ``(B, heads, H * W, kh * kw + extra)``."""
    by_row, by_column = by_axis(q, rel_h, rel_w)
    return spread(by_row, by_column, extra).flatten(2, 3)


def spread(by_row: Tensor, by_column: Tensor, extra: int) -> Tensor:
    """The bias ``(..., kh * kw + extra)`` of rows ``(..., kh)`` and columns ``(..., kw)``."""
    both = (by_row[..., :, None] + by_column[..., None, :]).flatten(-2)
    return F.pad(both, (0, extra)) if extra else both


def wide_queries(q: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """``[q / sqrt(D), q R_h, q R_w]``, ``(B, heads, H * W, D + kh + kw)``."""
    by_row, by_column = by_axis(q, rel_h, rel_w)
    scaled = q * q.shape[-1] ** -0.5
    return torch.cat([scaled, by_row.flatten(2, 3), by_column.flatten(2, 3)], dim=-1)


def wide_keys(k: Tensor, kh: int, kw: int, extra: int) -> Tensor:
    """``[k, onehot(row), onehot(column)]``; extra keys are at no place."""
    rows = torch.eye(kh, dtype=k.dtype, device=k.device).repeat_interleave(kw, 0)
    columns = torch.eye(kw, dtype=k.dtype, device=k.device).repeat(kh, 1)
    place = F.pad(torch.cat([rows, columns], 1), (0, 0, 0, extra))
    return torch.cat([k, place.expand(*k.shape[:2], -1, -1)], dim=-1)


def query_gradient(wide: Tensor, q: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """The gradient of ``q``, from that of :func:`wide_queries`."""
    scaled, rows, columns = _split(wide, q, rel_h, rel_w)
    by_row = torch.einsum("bnhwk,hkd->bnhwd", rows, rel_h)
    by_column = torch.einsum("bnhwk,wkd->bnhwd", columns, rel_w)
    return torch.add(by_row + by_column, scaled, alpha=q.shape[-1] ** -0.5).flatten(2, 3)


def table_gradients(wide: Tensor, q: Tensor, rel_h: Tensor, rel_w: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of ``rel_h`` and ``rel_w``, from that of :func:`wide_queries`."""
    _, rows, columns = _split(wide, q, rel_h, rel_w)
    grid = q.unflatten(2, (rel_h.shape[0], rel_w.shape[0]))
    return (
        torch.einsum("bnhwk,bnhwd->hkd", rows, grid),
        torch.einsum("bnhwk,bnhwd->wkd", columns, grid),
    )


def _split(wide: Tensor, q: Tensor, rel_h: Tensor, rel_w: Tensor) -> tuple[Tensor, ...]:
    size = (rel_h.shape[0], rel_w.shape[0])
    return wide.unflatten(2, size).split((q.shape[-1], rel_h.shape[1], rel_w.shape[1]), -1)
