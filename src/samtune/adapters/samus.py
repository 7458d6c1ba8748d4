r"""SAMUS (Lin et al. 2023, arXiv:2309.06824): a CNN stream that the global blocks attend to.

With tokens :math:`t` at 8 pixels each, a convolutional map :math:`c` of the same grid and, in every
global block, the normed tokens :math:`n`:

.. math::
    n &\leftarrow n + \mathrm{CrossAttn}(n, c, c), \quad
    c \leftarrow \mathrm{GELU}(\mathrm{LN}(K c)) \\
    t &\leftarrow t + \mathrm{Attn}(n), \quad
    t \leftarrow t + \mathrm{MLP}(n_2) + s \, \mathrm{Adapter}(n_2)

and :math:`t + c / 2` enters the neck. Windowed blocks stay as they are. The form here is the one
compared in arXiv:2408.12406; its encoder is the original's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from samtune.adapters.base import ADAPTERS
from samtune.adapters.sm_adaptformer import Bottleneck, bottleneck_width
from samtune.adapters.strided import StridedAdapter, global_blocks
from samtune.ops import resize
from samtune.sam.edits import NONE, BlockEdits
from samtune.sam.encoder import Encoder
from samtune.sam.layers import LayerNorm2d
from samtune.sam.model import Sam

WIDTHS = (64, 128, 256)
"""Widths of the CNN stream's stages; the last stage has the encoder's width."""


class CrossAttention(nn.Module):
    """Multi-head attention of tokens to a convolutional map, without positions."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.proj = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Attends from queries to keys and values, ``(B, H, W, C)`` each: ``(B, H, W, C)``."""
        q, k, v = (
            proj(t).flatten(1, 2).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for proj, t in ((self.q, x), (self.k, c), (self.v, c))
        )
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).flatten(2)).view_as(x)


@dataclass
class ConvolutionalStream:
    """The CNN stream of one forward pass; it advances after each global block."""

    c: Tensor
    """``(B, C, H, W)``."""
    projections: dict[int, Tensor]
    """The frozen query-key-value weights ``(3C, C)`` of the global blocks."""


@ADAPTERS.register("samus")
class SAMUS(StridedAdapter):
    """A CNN branch, cross-attention to it in the global blocks, and finer tokens.

    The embedding changes from the start: tokens are 8 pixels apart and branches start at random.
    """

    paper = "Lin et al. 2023, arXiv:2309.06824"
    sits = "a CNN stream that global blocks attend to; patch embedding, positions, global MLPs"
    uses = ("qkv", "mlp", "params", "uniform", "patches", "positions", "tables")
    changes_at_start = (
        "patches overlap, positions pass a new convolution, blocks attend to a random stream"
    )

    def __init__(self, sam: Sam, config: StridedAdapter.Config) -> None:
        super().__init__(sam, config)
        dim = sam.image_encoder.dim
        hidden = bottleneck_width(dim, config.ratio)
        self.stem = nn.ModuleList(
            _conv_norm(a, b) for a, b in zip((3, *WIDTHS), (*WIDTHS, dim), strict=True)
        )
        self.positions = _conv_norm(dim, dim)
        blocks = {str(i): sam.image_encoder.blocks[i] for i in global_blocks(sam)}
        self.cross = nn.ModuleDict({i: CrossAttention(dim, b.heads) for i, b in blocks.items()})
        self.refine = nn.ModuleDict({i: _conv_norm(dim, dim) for i in blocks})
        self.bottlenecks = nn.ModuleDict({i: Bottleneck(dim, hidden, config.scale) for i in blocks})

    def embed(self, encoder: Encoder, pixels: Tensor) -> Tensor:
        """Overlapping patches through a bottleneck, with SAM's positions pooled and convolved."""
        x = super().embed(encoder, pixels)
        table = F.max_pool2d(encoder.pos_embed.permute(0, 3, 1, 2), 2)
        table = self.positions(table).permute(0, 2, 3, 1)
        return x + resize.positions(table, (x.shape[1], x.shape[2]))

    def begin(
        self, encoder: Encoder, pixels: Tensor, x: Tensor, tokens: Tensor | None
    ) -> ConvolutionalStream:
        """The CNN stream at the tokens' grid."""
        c = self.stem[0](pixels)
        for stage in self.stem[1:]:
            c = stage(F.max_pool2d(c, 2))
        blocks = {int(i): encoder.blocks[int(i)] for i in self.cross}
        weights: dict[int, Tensor] = {
            i: block.get_parameter(f"{block.places['qkv']}.weight") for i, block in blocks.items()
        }
        return ConvolutionalStream(c, weights)

    def edits(self, i: int, state: ConvolutionalStream) -> BlockEdits:
        """Cross-attention before attention, a bottleneck, and positions, all in global blocks."""
        key = str(i)
        if key not in self.cross:
            return NONE
        return BlockEdits(
            qkv=_attended_first(self.cross[key], state.c, state.projections[i]),
            mlp=self.bottlenecks[key],
            params=self.tables[key].params(),  # type: ignore[operator]
        )

    def leave(self, i: int, x: Tensor, state: ConvolutionalStream) -> Tensor:
        """Returns the stream as it is; the CNN stream advances after global blocks."""
        if str(i) in self.refine:
            state.c = self.refine[str(i)](state.c)
        return x

    def before_neck(self, x: Tensor, state: ConvolutionalStream) -> Tensor:
        """Adds half of the CNN stream to the stream."""
        return x + 0.5 * state.c.permute(0, 2, 3, 1)


def _attended_first(cross: nn.Module, c: Tensor, weight: Tensor) -> Callable[[Tensor], Tensor]:
    """The difference between projecting ``n + cross(n)`` and ``n``; the projection is linear."""
    tokens = c.permute(0, 2, 3, 1)
    return lambda n: F.linear(cross(n, tokens), weight)


def _conv_norm(dim: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(dim, out, 3, padding=1, bias=False), LayerNorm2d(out), nn.GELU())
