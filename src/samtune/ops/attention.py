r"""Attention with SAM's decomposed relative positions, in three forms that agree.

.. math:: \mathrm{softmax}(q k^\top / \sqrt{D} + q \cdot R_h + q \cdot R_w)\, v

*textbook* builds the ``N x N`` bias. *folded* exploits that the bias is linear in ``q``: the result
equals plain attention on ``q' = [q / sqrt(D), q R_h, q R_w]`` and
``k' = [k, onehot(row), onehot(column)]`` with scale 1, so no ``N x N`` matrix is stored (the
general idea: FlashBias, arXiv:2505.12044). *striped* passes the bias of a few query rows at a time
to the fused kernel; the memory of a stripe fits in the processor's cache, and queries and values
keep their width. The kernel has no gradient for a bias: if gradients are needed, a stripe uses the
textbook form and is computed again in the backward pass.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Form = Literal["auto", "textbook", "folded", "striped"]

LARGE = 1024
"""Number of queries from which ``auto`` avoids storing scores for the gradient; with fewer, storing
them is cheaper."""

STRIPE = 2**22
"""Numbers in the bias of a stripe, which has at least one row of queries."""


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
        form: ``textbook``, ``folded``, ``striped``, or ``auto``. On the CPU ``auto`` stripes large
            grids, and all grids if no gradient is needed. On other devices, and in compiled graphs,
            where a loop would make the graph long, it folds large grids.

    Returns:
        ``(B, heads, H * W, D)``.
    """
    if rel_h is None or rel_w is None:
        return F.scaled_dot_product_attention(q, k, v)
    rel_h, rel_w = rel_h.to(q.dtype), rel_w.to(q.dtype)
    if form == "auto":
        large = q.shape[2] >= LARGE
        if q.device.type != "cpu" or torch.compiler.is_compiling():
            form = "folded" if large else "textbook"
        else:
            small = not large and _is_differentiated(q, k, v, rel_h, rel_w)
            form = "textbook" if small else "striped"
    by_form = {"textbook": _textbook, "folded": _folded, "striped": _striped}[form]
    return by_form(q, k, v, rel_h, rel_w, extra)


def _is_differentiated(*tensors: Tensor) -> bool:
    """Whether a gradient is needed."""
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def _biases(q: Tensor, rel_h: Tensor, rel_w: Tensor) -> tuple[Tensor, Tensor]:
    """``q . R`` per row ``(B, heads, H, W, kh)`` and per column ``(B, heads, H, W, kw)``."""
    grid = q.unflatten(2, (rel_h.shape[0], rel_w.shape[0]))
    by_row = torch.einsum("bnhwd,hkd->bnhwk", grid, rel_h)
    by_column = torch.einsum("bnhwd,wkd->bnhwk", grid, rel_w)
    return by_row, by_column


def _bias(q: Tensor, rel_h: Tensor, rel_w: Tensor, extra: int) -> Tensor:
    """The sum of both, ``(B, heads, H * W, kh * kw + extra)``."""
    by_row, by_column = _biases(q, rel_h, rel_w)
    bias = (by_row[..., :, None] + by_column[..., None, :]).flatten(4).flatten(2, 3)
    return F.pad(bias, (0, extra)) if extra else bias


def _textbook(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, extra: int) -> Tensor:
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    scores = scores + _bias(q, rel_h, rel_w, extra)
    return scores.softmax(-1) @ v


def _striped(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, extra: int) -> Tensor:
    width = rel_w.shape[0]
    rows = max(1, STRIPE // max(1, q[..., 0].numel() // rel_h.shape[0] * k.shape[2]))
    stripe = _recomputed if _is_differentiated(q, k, v, rel_h, rel_w) else _fused
    stripes = zip(q.split(rows * width, 2), rel_h.split(rows), strict=True)
    return torch.cat([stripe(part, k, v, rel, rel_w, extra) for part, rel in stripes], 2)


def _fused(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, extra: int) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=_bias(q, rel_h, rel_w, extra))


def _recomputed(*given: Any) -> Tensor:
    return checkpoint(_textbook, *given, use_reentrant=False, preserve_rng_state=False)


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
    # The fused CPU kernels need values as wide as the keys; otherwise the scores are stored.
    wide_v = F.pad(v, (0, wide_k.shape[-1] - v.shape[-1]))
    out = F.scaled_dot_product_attention(wide_q, wide_k, wide_v, scale=1.0)
    return out[..., : v.shape[-1]]
