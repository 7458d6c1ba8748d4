"""A gradient through folded attention that keeps what it was folded from.

The fused kernels keep their inputs, and folded inputs are wide: the one-hot places of the keys,
the positions in the queries, zeros beside the values. They are made again in the backward pass; the
kernel itself, whichever the device chooses, does not run again.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.autograd.graph import get_gradient_edge, saved_tensors_hooks

from samtune.ops import relative


def folded(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, extra: int) -> Tensor:
    """The attention of ``samtune.ops.attention`` as plain attention on wider inputs."""
    wide_q, wide_k, wide_v = _widened(q, k, v, rel_h, rel_w, extra)
    out = F.scaled_dot_product_attention(wide_q, wide_k, wide_v, scale=1.0)
    return out[..., : v.shape[-1]]


def _widened(
    q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, extra: int
) -> tuple[Tensor, Tensor, Tensor]:
    wide_k = relative.wide_keys(k, rel_h.shape[1], rel_w.shape[1], extra)
    # The fused CPU kernels need values as wide as the keys; otherwise the scores are stored.
    wide_v = F.pad(v, (0, wide_k.shape[-1] - v.shape[-1]))
    return relative.wide_queries(q, rel_h, rel_w), wide_k, wide_v


class _Source(torch.autograd.Function):
    """Tensors whose graph begins here, and does not hold them as a leaf's would."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The tensors, which now need a gradient."""
        return tuple(t.view_as(t) for t in tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Nothing: gradients are read before they come here."""
        return (None, *[None] * len(grads))


class _KernelMemory:
    """The tensors that a kernel keeps: folded inputs are only noted, others are held for a while.

    The kernel's graph refers to each by a note, which :meth:`tensor` follows in the backward pass.
    """

    def __init__(self, wide: tuple[Tensor, ...]) -> None:
        self.wide: tuple[Tensor, ...] = wide
        self.others: list[Tensor] = []
        self.out: int | None = None
        """Index of the kernel's output among the others."""
        self.stride: tuple[int, ...] = ()
        """The output's, before it was cut."""

    def note(self, tensor: Tensor) -> tuple[int, int, Any]:
        """A note of a tensor that the kernel keeps."""
        storage = tensor.untyped_storage().data_ptr()
        for i, wide in enumerate(self.wide):
            if wide.untyped_storage().data_ptr() == storage:
                view = tensor.shape, tensor.stride(), tensor.storage_offset()
                return 0, i, view
        self.others.append(tensor)
        return 1, len(self.others) - 1, None

    def narrow(self, out: Tensor, width: int) -> None:
        """Cuts the kernel's output, if it is kept, to what is not zero by the values' zeros."""
        for i, other in enumerate(self.others):
            if other.data_ptr() == out.data_ptr() and other.shape == out.shape:
                self.out, self.others[i] = i, other[..., :width].contiguous()
                self.stride = other.stride()

    def tensor(self, note: tuple[int, int, Any]) -> Tensor:
        """The tensor of a note."""
        kind, i, view = note
        if kind == 0:
            return self.wide[i].as_strided(*view)
        if i != self.out:
            return self.others[i]
        narrow, width = self.others[i], self.wide[2].shape[-1]
        shape = (*narrow.shape[:-1], width)
        whole = torch.empty_strided(shape, self.stride, dtype=narrow.dtype, device=narrow.device)
        whole[..., narrow.shape[-1] :] = 0
        whole[..., : narrow.shape[-1]] = narrow
        return whole


class Folded(torch.autograd.Function):
    """:func:`folded` with its gradient by the kernel's own backward pass."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        """``q, k, v, rel_h, rel_w, extra``, as in ``attend``."""
        q, k, v, rel_h, rel_w, extra = given
        wide = _widened(q, k, v, rel_h, rel_w, extra)
        memory, width = _KernelMemory(wide), v.shape[-1]
        with torch.enable_grad(), saved_tensors_hooks(memory.note, memory.tensor):
            inputs = _Source.apply(torch.zeros((), requires_grad=True), *wide)
            out = F.scaled_dot_product_attention(inputs[0], inputs[1], inputs[2], scale=1.0)
        memory.narrow(out, width)
        ctx.edges = get_gradient_edge(out), [get_gradient_edge(t) for t in inputs]
        # What the kernel keeps is kept as this function's own, so that checkpointing sees it.
        ctx.save_for_backward(q, k, v, rel_h, rel_w, *memory.others)
        ctx.memory, ctx.extra = memory, extra
        memory.wide, memory.others = (), []
        return out.detach()[..., :width]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        """The gradients of all five tensors."""
        q, k, v, rel_h, rel_w, *others = ctx.saved_tensors
        memory: _KernelMemory = ctx.memory
        memory.wide, memory.others = _widened(q, k, v, rel_h, rel_w, ctx.extra), others
        d, (out, inputs) = v.shape[-1], ctx.edges
        grad = F.pad(grads[0], (0, memory.wide[2].shape[-1] - d))
        # kept for a second pass, as nothing hangs on the kernel's graph
        wide_q, wide_k, wide_v = torch.autograd.grad([out], inputs, [grad], retain_graph=True)
        memory.wide, memory.others = (), []
        grad_q = relative.query_gradient(wide_q, q, rel_h, rel_w)
        tables: tuple[Tensor | None, Tensor | None] = (None, None)
        if any(ctx.needs_input_grad[3:5]):
            tables = relative.table_gradients(wide_q, q, rel_h, rel_w)
        return grad_q, wide_k[..., :d], wide_v[..., :d], *tables, None
