"""The seam: the places of one transformer block that an adapter can change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

Fn = Callable[[Tensor], Tensor]
Heads = Callable[
    [Tensor, Tensor, Tensor, tuple[int, int]], tuple[Tensor, Tensor, Tensor, tuple[int, int]]
]
Norm = Callable[[str, nn.BatchNorm2d, Tensor], Tensor]


@dataclass(frozen=True)
class BlockEdits:
    """The changes of an adapter inside one block; an unset field changes nothing.

    Only ``norm`` may keep statistics; it must count a block that runs a second time once.

        x - norm1 - qkv (+ qkv) - heads - attention (+ tokens) - attended - (+ x) - norm2 - mlp (+
        mlp) - (+ x)

    Fields are pure functions of their inputs: under activation checkpointing a block runs twice.
    """

    qkv: Fn | None = None
    """``b h w C -> b h w 3C``, added to the frozen projection of the normed (windowed) tokens."""
    heads: Heads | None = None
    """``q, k, v (b heads n D), grid -> q, k, v, key grid``, after the projection."""
    tokens: Tensor | None = None
    """``P C`` or ``B P C``: extra keys and values of every window. They enter the qkv projection as
    they are (not normed) and have no relative position."""
    attended: Fn | None = None
    """``B H W C -> B H W C``: the attention's output, projected, before the residual."""
    mlp: Fn | None = None
    """``B H W C -> B H W C``: added beside the MLP, from the same normed input."""
    params: Mapping[str, Tensor] = field(default_factory=dict)
    """Tensors used in place of the block's own, by their names within the block."""
    norm: Norm | None = None
    """``name, module, B C H W -> B C H W``: replaces each batch normalisation, named as in the
    encoder; also those before the blocks."""


NONE = BlockEdits()
"""No edit: the plain block."""
