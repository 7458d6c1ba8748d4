r"""Attention with SAM's decomposed relative positions, in two forms that agree.

.. math:: \mathrm{softmax}(q k^\top / \sqrt{D} + q \cdot R_h + q \cdot R_w)\, v

*textbook* builds the ``N x N`` bias. *folded* uses that the bias is linear in ``q``: it equals
plain
attention on ``q' = [q / sqrt(D), q R_h, q R_w]`` and ``k' = [k, onehot(row), onehot(column)]`` with
scale 1, so that nothing ``N x N`` is stored (the general idea: FlashBias, arXiv:2505.12044).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Form = Literal["auto", "textbook", "folded"]

FOLD_FROM = 1024
"""``auto`` folds from this many queries on: smaller score matrices cost less than the wider
heads."""


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rel_h: Tensor | None,
    rel_w: Tensor | None,
    extra: int = 0,
    form: Form = "auto",
) -> Tensor:
    """Attention over a token grid, with optional extra keys that carry no position.

    Args:
        q: ``(B, heads, H * W, D)``, not yet scaled.
        k: ``(B, heads, kh * kw + extra, D)``; the last ``extra`` are not on the grid.
        v: Like ``k``.
        rel_h: ``(H, kh, D)`` relative positions of the rows; ``None`` for plain attention.
        rel_w: ``(W, kw, D)`` relative positions of the columns.
        extra: How many keys at the end lie outside the grid.
        form: ``textbook``, ``folded``, or ``auto`` to choose by size.

    Returns:
        ``(B, heads, H * W, D)``.
    """
    if rel_h is None or rel_w is None:
        return F.scaled_dot_product_attention(q, k, v)
    rel_h, rel_w = rel_h.to(q.dtype), rel_w.to(q.dtype)
    if form == "auto":
        form = "folded" if q.shape[2] >= FOLD_FROM else "textbook"
    by_form = _folded if form == "folded" else _textbook
    return by_form(q, k, v, rel_h, rel_w, extra)


def _biases(q: Tensor, rel_h: Tensor, rel_w: Tensor) -> tuple[Tensor, Tensor]:
    """``q . R`` per row ``(B, heads, H, W, kh)`` and per column ``(B, heads, H, W, kw)``."""
    grid = q.unflatten(2, (rel_h.shape[0], rel_w.shape[0]))
    by_row = torch.einsum("bnhwd,hkd->bnhwk", grid, rel_h)
    by_column = torch.einsum("bnhwd,wkd->bnhwk", grid, rel_w)
    return by_row, by_column


def _textbook(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, extra: int) -> Tensor:
    by_row, by_column = _biases(q, rel_h, rel_w)
    bias = (by_row[..., :, None] + by_column[..., None, :]).flatten(4).flatten(2, 3)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    scores = scores + F.pad(bias, (0, extra))
    return scores.softmax(-1) @ v


def _folded(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, extra: int) -> Tensor:
    by_row, by_column = _biases(q, rel_h, rel_w)
    kh, kw = rel_h.shape[1], rel_w.shape[1]
    wide_q = torch.cat(
        [q * q.shape[-1] ** -0.5, by_row.flatten(2, 3), by_column.flatten(2, 3)], dim=-1
    )
    rows = torch.eye(kh, dtype=k.dtype, device=k.device).repeat_interleave(kw, 0)
    columns = torch.eye(kw, dtype=k.dtype, device=k.device).repeat(kh, 1)
    place = F.pad(torch.cat([rows, columns], 1), (0, 0, 0, extra))
    wide_k = torch.cat([k, place.expand(*k.shape[:2], -1, -1)], dim=-1)
    # The fused kernels on the CPU need values as wide as the keys; without them the scores are
    # stored.
    wide_v = F.pad(v, (0, wide_k.shape[-1] - v.shape[-1]))
    out = F.scaled_dot_product_attention(wide_q, wide_k, wide_v, scale=1.0)
    return out[..., : v.shape[-1]]
