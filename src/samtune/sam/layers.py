"""The layers and checks that image encoders share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from samtune.errors import InputError
from samtune.ops.frozen import Conv2d, Linear


class _Hidden:
    """A class, and no context variable, so that blocks are still compiled in one graph."""

    is_made_again = False
    """Whether MLPs make what lies between their layers again."""


class LayerNorm2d(nn.Module):
    """Layer normalisation over the channels of ``(B, C, H, W)``, in the official formula."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalises ``(B, C, H, W)`` per pixel."""
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + self.eps)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class _NoValues(TorchFunctionMode):
    """Leaves tensors unfilled: filling on the meta device first imports a compiler (seconds)."""

    fills = (Tensor.normal_, Tensor.uniform_, Tensor.fill_, Tensor.zero_)
    draws = (torch.rand, torch.randn)

    def __torch_function__(
        self, func: Callable, types: object, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func in self.fills or getattr(func, "__module__", None) == nn.init.__name__:
            return args[0] if args else given["tensor"]
        return (torch.empty if func in self.draws else func)(*args, **given)


@contextmanager
def shapes_alone() -> Iterator[None]:
    """Context in which modules are built on the meta device: nothing is stored, drawn or filled."""
    with torch.device("meta"), _NoValues():
        yield


class MLP(nn.Module):
    """Two linear layers with an activation between, exact GELU by default."""

    def __init__(self, dim: int, hidden: int, act: type[nn.Module] = nn.GELU) -> None:
        super().__init__()
        self.lin1 = Linear(dim, hidden)
        self.lin2 = Linear(hidden, dim)
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(..., C)`` to ``(..., C)``."""
        return through_hidden(lambda x: self.lin2(self.act(self.lin1(x))), x)


def through_hidden(layers: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Runs an MLP's two layers, whose hidden half may be made again, see `hidden_made_again`."""
    if not (_Hidden.is_made_again and x.requires_grad and torch.is_grad_enabled()):
        return layers(x)
    # The second run ends with what the activation keeps, before the second layer.
    return checkpoint(layers, x, use_reentrant=False, preserve_rng_state=False)


@contextmanager
def hidden_made_again() -> Iterator[None]:
    """Context in which MLPs keep their input for the gradient, not that of their activation.

    That is four times as wide; the backward pass makes it again.
    """
    before, _Hidden.is_made_again = _Hidden.is_made_again, True
    try:
        yield
    finally:
        _Hidden.is_made_again = before


class PatchEmbed(nn.Module):
    """Cuts ``(B, 3, h, w)`` into patches and projects them to ``(B, H, W, C)``."""

    def __init__(self, patch: int, dim: int) -> None:
        super().__init__()
        self.proj = Conv2d(3, dim, kernel_size=patch, stride=patch)

    def forward(self, pixels: Tensor) -> Tensor:
        """Maps ``(B, 3, h, w)`` normalised pixels to tokens ``(B, H, W, C)``."""
        return self.proj(pixels).permute(0, 2, 3, 1)


def check_names(block: nn.Module, params: Mapping[str, Tensor]) -> None:
    """Refuses tensors for parameters that a block does not have, because torch would ignore them.

    Raises:
        ValueError: Unknown names.
    """
    own = [name for name, _ in block.named_parameters()]
    unknown = [name for name in params if name not in own]
    if unknown:
        raise ValueError(f"no parameter {', '.join(unknown)} in a block: it has {own}")


def check_size(pixels: Tensor, patch: int) -> None:
    """Refuses an input ``(B, 3, h, w)`` that the patch does not divide.

    Raises:
        InputError: The height or width is no multiple of the patch.
    """
    h, w = pixels.shape[-2:]
    if h % patch or w % patch:
        up = tuple(-(-s // patch) * patch for s in (h, w))
        raise InputError(
            f"input of {h}x{w} pixels: both sides must be multiples of the patch, "
            f"{patch}; resize or pad to {up[0]}x{up[1]}"
        )


def neck(dim: int, out: int) -> nn.Sequential:
    """The convolutions between the last block and the embedding: ``(B, dim, H, W)`` to ``out``."""
    return nn.Sequential(
        Conv2d(dim, out, kernel_size=1, bias=False),
        LayerNorm2d(out),
        Conv2d(out, out, kernel_size=3, padding=1, bias=False),
        LayerNorm2d(out),
    )
