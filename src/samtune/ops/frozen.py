"""Values that follow from frozen weights alone, computed once instead of in every pass.

Autocast keeps the casts of weights that need a gradient, and casts frozen ones again in every call.
Here they are stored in the precision of the computation at their first use, and so are positions
for a size of grid. Trained weights, and tensors that stand in for a block's own, are left to torch.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.weak import WeakTensorKeyDictionary

from samtune.ops.dtypes import compute_dtype

SIZES = 16
"""Most values that are stored of one tensor, such as its positions for several sizes."""

_stored: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
"""The state of each frozen tensor, and the values that follow from it by their keys."""


def once(
    source: Tensor, key: Hashable, compute: Callable[[Tensor], Tensor], constant: bool = False
) -> Tensor:
    """A value that follows from a tensor; of a frozen parameter it is computed once.

    Args:
        source: The tensor.
        key: Names the value among those of this tensor.
        compute: Gives the value, from the tensor and what is in the key.
        constant: Whether the tensor is a buffer that never needs a gradient, which is then treated
            like a frozen parameter.
    """
    if not _is_frozen(source, Tensor if constant else nn.Parameter):
        return compute(source)
    state = source.data_ptr(), source._version, source.device, source.dtype
    entry = _stored.get(source)
    if entry is None or entry[0] != state:
        entry = _stored[source] = (state, {})
    values: dict[Hashable, Tensor] = entry[1]
    if key not in values:
        # Not as an inference tensor, and without autocast: it also serves other passes.
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            torch.autocast(source.device.type, enabled=False),
        ):
            value = compute(source.detach())
        if len(values) >= SIZES:
            values.pop(next(iter(values)))
        values[key] = value
    return values[key]


def _is_frozen(tensor: Tensor, kind: type[Tensor] = nn.Parameter) -> bool:
    """Whether a tensor is a frozen weight of a module, in a pass that is not traced."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    plain = type(tensor) is kind and not tensor.requires_grad
    return plain and not (tensor.is_meta or tensor.is_inference())


def in_compute_dtype(weight: Tensor) -> Tensor:
    """A weight in the type of the computation, if it is frozen; others as they are."""
    dtype = compute_dtype(weight)
    if dtype == weight.dtype or not _is_frozen(weight):
        return weight
    return once(weight, dtype, lambda w: w.to(dtype))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``torch.nn.functional.linear``, which does not count frozen weights as activations.

    Autograd keeps the weight of a linear layer for the gradient of its input. What is kept of
    activations may be moved or computed again, a frozen weight need not.
    """
    biases = None if bias is None else in_compute_dtype(bias)
    frozen = _is_frozen(weight) and (bias is None or _is_frozen(bias))
    if not (frozen and x.requires_grad and torch.is_grad_enabled()):
        return F.linear(x, in_compute_dtype(weight), biases)
    return _FrozenLinear.apply(x.to(compute_dtype(x)), in_compute_dtype(weight), biases)


class _FrozenLinear(torch.autograd.Function):
    """A linear layer with the gradient of its input alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """``(..., C)`` to ``(..., D)``."""
        ctx.weight = weight
        return F.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        """The gradient of ``x``."""
        grad = grads[0]
        # flat, because a product with a batch would repeat the weight if the gradient has gaps
        flat = grad.reshape(-1, grad.shape[-1]) @ ctx.weight
        return flat.view(*grad.shape[:-1], ctx.weight.shape[1]), None, None


class Linear(nn.Linear):
    """A linear layer of the base."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(..., C)`` to ``(..., D)``."""
        return linear(x, self.weight, self.bias)


class Conv2d(nn.Conv2d):
    """A convolution of the base."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(B, C, H, W)`` to ``(B, D, H', W')``."""
        bias = None if self.bias is None else in_compute_dtype(self.bias)
        return self._conv_forward(x, in_compute_dtype(self.weight), bias)


class ConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution of the base, without an output size of its own."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Maps ``(B, C, H, W)`` to ``(B, D, H', W')``."""
        bias = None if self.bias is None else in_compute_dtype(self.bias)
        assert isinstance(self.padding, tuple)
        return F.conv_transpose2d(
            x,
            in_compute_dtype(self.weight),
            bias,
            self.stride,
            self.padding,
            self.output_padding,
            self.groups,
            self.dilation,
        )
