"""Attention a stripe at a time: some heads, some rows of queries, all keys.

For the gradient only queries, keys and values are kept. The scores of a stripe are made again in
the backward pass, which is written out here, because autograd would pass over them more often.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from samtune.ops import relative
from samtune.ops.dtypes import has_matrix_units

STRIPE = 2**20
"""Numbers in the scores of a stripe on the CPU, which has at least one row of queries; in half
precision, whose products like larger ones, four times as many."""

HALVES = (torch.bfloat16, torch.float16)
"""The types of half precision."""

FEW = 1024
"""Number of queries below which wide products in half precision are faster on any CPU."""

STRIPE_ELSEWHERE = 2**27
"""The same on other devices, where few large kernels are faster than many small ones."""


def striped(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, extra: int) -> Tensor:
    """The attention of ``samtune.ops.attention`` in stripes, without a gradient of its own.

    The bias of a stripe is what its product is added to. In half precision products of the wide
    queries and keys are faster, and more exact, except for large grids on a CPU without matrix
    units.
    """
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()  # else each stripe would copy them
    with torch.autocast(q.device.type, enabled=False):
        scores = _Scores(q, k, rel_h, rel_w, extra)
        values, out = v.flatten(0, 1), torch.empty_like(q).flatten(0, 1)
        for heads, queries in scores.stripes():
            out[heads, queries] = scores.of(heads, queries).softmax(-1) @ values[heads]
    return out.view_as(q)


def _folds(q: Tensor) -> bool:
    """Whether wide products are cheaper than adding a bias: where products cost little."""
    if q.dtype not in HALVES:
        return False
    return q.device.type != "cpu" or q.shape[2] < FEW or has_matrix_units()


class _Scores:
    """The scores of one call, by stripe; heads of all images are counted through."""

    def __init__(self, q: Tensor, k: Tensor, rel_h: Tensor, rel_w: Tensor, extra: int) -> None:
        self.d, self.extra = q.shape[-1], extra
        self.grid = rel_h.shape[0], rel_w.shape[0]
        self.key_grid = rel_h.shape[1], rel_w.shape[1]
        self.queries = relative.wide_queries(q, rel_h, rel_w).flatten(0, 1)
        keys = relative.wide_keys(k, *self.key_grid, extra) if _folds(q) else k
        self.keys = keys.flatten(0, 1)

    def stripes(self) -> Iterator[tuple[slice, slice]]:
        """The heads and the queries of each stripe: whole rows of the grid."""
        (h, w), (groups, count) = self.grid, self.keys.shape[:2]
        of_cpu = STRIPE * (4 if self.keys.dtype in HALVES else 1)
        most = of_cpu if self.keys.device.type == "cpu" else STRIPE_ELSEWHERE
        rows = min(h, max(1, most // (w * count)))
        heads = min(groups, max(1, most // (rows * w * count)))
        for first in range(0, groups, heads):
            for row in range(0, h, rows):
                yield slice(first, first + heads), slice(row * w, (row + rows) * w)

    def of(self, heads: slice, queries: slice) -> Tensor:
        """``(heads, queries, keys)`` before the softmax."""
        wide, keys = self.queries[heads, queries], self.keys[heads].mT
        if wide.shape[-1] == keys.shape[-2]:
            return wide @ keys
        scaled, by_row, by_column = wide.split((self.d, *self.key_grid), -1)
        return relative.spread(by_row, by_column, self.extra).baddbmm_(scaled, keys)

    def backward(self, grad: Tensor, heads: slice) -> Tensor:
        """The gradient of wide queries, from that of their scores ``(heads, queries, keys)``."""
        keys = self.keys[heads]
        if self.queries.shape[-1] == keys.shape[-1]:
            return grad @ keys
        on_grid = grad[..., : grad.shape[-1] - self.extra].unflatten(-1, self.key_grid)
        return torch.cat([grad @ keys, on_grid.sum(-1), on_grid.sum(-2)], -1)


class Striped(torch.autograd.Function):
    """:func:`striped` with its gradient: what is kept grows with the tokens, not their square."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        """``q, k, v, rel_h, rel_w, extra``, as in ``attend``."""
        q, k, v, rel_h, rel_w, extra = given
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        ctx.save_for_backward(q, k, v, rel_h, rel_w)
        ctx.extra = extra
        return striped(q, k, v, rel_h, rel_w, extra)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        """The gradients of all five tensors."""
        q, k, v, rel_h, rel_w = ctx.saved_tensors
        with torch.autocast(q.device.type, enabled=False):
            scores = _Scores(q, k, rel_h, rel_w, ctx.extra)
            grad, values = grads[0].contiguous().flatten(0, 1), v.flatten(0, 1)
            wide = torch.empty_like(scores.queries)
            # Sums over stripes are single precision, since half would round each time.
            summed = torch.promote_types(q.dtype, torch.float32)
            grad_k, grad_v = (torch.zeros_like(values, dtype=summed) for _ in range(2))
            for heads, queries in scores.stripes():
                part, scaled = grad[heads, queries], scores.queries[heads, queries, : q.shape[-1]]
                share = scores.of(heads, queries).softmax(-1)
                # The small factor is transposed, since a product would copy transposed scores.
                grad_v[heads] += (part.mT @ share).mT
                from_share = part @ values[heads].mT
                on_scores = torch._softmax_backward_data(from_share, share, -1, share.dtype)
                wide[heads, queries] = scores.backward(on_scores, heads)
                grad_k[heads] += (scaled.mT @ on_scores).mT
            whole = wide.unflatten(0, q.shape[:2])
            grad_q = relative.query_gradient(whole, q, rel_h, rel_w)
            tables: tuple[Tensor | None, Tensor | None] = (None, None)
            if any(ctx.needs_input_grad[3:5]):
                tables = relative.table_gradients(whole, q, rel_h, rel_w)
        keys, values = (t.to(q.dtype).view_as(k) for t in (grad_k, grad_v))
        return grad_q, keys, values, *tables, None
