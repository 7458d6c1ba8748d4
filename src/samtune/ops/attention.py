r"""Attention with SAM's decomposed relative positions, in three forms that agree.

.. math:: \mathrm{softmax}(q k^\top / \sqrt{D} + q \cdot R_h + q \cdot R_w)\, v

*textbook* builds the ``N x N`` bias, and autograd keeps the scores. *folded* exploits that the bias
is linear in ``q``: the result equals plain attention on wider queries and keys
(``samtune.ops.relative``; the general idea: FlashBias, arXiv:2505.12044), for which every device
has a fused kernel. *striped* takes a few queries at a time, so that their scores fit in the
processor's cache. For the gradient, *folded* and *striped* keep queries, keys and values only, and
make the rest again in the backward pass.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from samtune.ops import relative
from samtune.ops.dtypes import compute_dtype
from samtune.ops.folding import Folded, folded
from samtune.ops.stripes import Striped, striped

Form = Literal["auto", "textbook", "folded", "striped"]

LARGE = 1024
"""Number of queries from which ``auto`` folds, where stripes would make many small kernels."""

SMALL = 100
"""Number of queries up to which ``auto`` uses the textbook form for a gradient on the CPU: its
scores are smaller than what making them again costs."""


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
        form: ``textbook``, ``folded``, ``striped``, or ``auto``. On the CPU ``auto`` stripes,
            except for the gradient of small grids. On other devices it folds large grids, and takes
            the smaller in one stripe if a gradient is needed. In compiled graphs, where a loop
            would make the graph long, it folds large grids and has the compiler choose what is kept
            of the others.

    Returns:
        ``(B, heads, H * W, D)``.
    """
    if rel_h is None or rel_w is None:
        return F.scaled_dot_product_attention(q, k, v)
    differentiated = _is_differentiated(q, k, v, rel_h, rel_w)
    if form == "auto":
        form = _best_form(q, differentiated)
    if form == "textbook":
        return _textbook(q, k, v, rel_h.to(q.dtype), rel_w.to(q.dtype), extra)
    dtype = compute_dtype(q)  # the backward pass has no autocast
    q, k, v, rel_h, rel_w = (t.to(dtype) for t in (q, k, v, rel_h, rel_w))
    plain = torch.compiler.is_compiling() or not differentiated
    if form == "folded":
        fold = folded if plain else Folded.apply
        return fold(q, k, v, rel_h, rel_w, extra)
    stripe = striped if plain else Striped.apply
    return stripe(q, k, v, rel_h, rel_w, extra)


def _best_form(q: Tensor, differentiated: bool) -> Form:
    """The form for these queries on their device."""
    large = q.shape[2] >= LARGE
    if torch.compiler.is_compiling():
        return "folded" if large else "textbook"
    if q.device.type != "cpu":
        return "folded" if large else "striped" if differentiated else "textbook"
    return "textbook" if differentiated and q.shape[2] <= SMALL else "striped"


def _is_differentiated(*tensors: Tensor) -> bool:
    """Whether a gradient is needed."""
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def _textbook(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, extra: int) -> Tensor:
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    scores = scores + relative.bias(q, rel_h, rel_w, extra)
    return scores.softmax(-1) @ v
