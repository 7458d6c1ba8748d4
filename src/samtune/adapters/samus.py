r"""SAMUS (Lin et al. 2023, arXiv:2309.06824): a CNN stream that the global blocks attend to.

With tokens :math:`t` at 8 pixels each, a convolutional map :math:`c` of the same grid and, in every
global block, the normed tokens :math:`n`:

.. math::
    n &\leftarrow n + \mathrm{CrossAttn}(n, c, c), \quad
    c \leftarrow \mathrm{GELU}(\mathrm{LN}(K c)) \\
    t &\leftarrow t + \mathrm{Attn}(n), \quad
    t \leftarrow t + \mathrm{MLP}(n_2) + s \, \mathrm{Adapter}(n_2)

and :math:`t + c / 2` enters the neck. Windowed blocks stay as they are. The form here is that
of the comparison in arXiv:2408.12406, whose encoder is the original's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from samtune.adapters.base import ADAPTERS, Adapter
from samtune.adapters.sm_adaptformer import Bottleneck, bottleneck_width
from samtune.errors import InputError
from samtune.ops import resize
from samtune.sam.edits import NONE, BlockEdits
from samtune.sam.image_encoder import Attention, ImageEncoder, LayerNorm2d
from samtune.sam.model import Sam, SamSpec

STRIDE = 8
"""Pixels from one token to the next."""
WIDTHS = (64, 128, 256)
"""Of the CNN stream's stages before the last, which has the encoder's."""


def strided_patches(encoder: ImageEncoder, pixels: Tensor) -> Tensor:
    """SAM's patch embedding with overlap: ``(B, 3, h, w)`` to ``(B, h // 8, w // 8, C)``.

    The image is first enlarged by what a patch is longer than the stride, so that there are as many
    patches as strides.
    """
    proj, extra = encoder.patch_embed.proj, encoder.patch - STRIDE
    if extra:
        size = (pixels.shape[-2] + extra, pixels.shape[-1] + extra)
        pixels = F.interpolate(pixels, size, mode="bilinear", align_corners=False)
    return F.conv2d(pixels, proj.weight, proj.bias, stride=STRIDE).permute(0, 2, 3, 1)


def check_stride(spec: SamSpec) -> None:
    """Refuses bases whose patches are smaller than the stride.

    Raises:
        InputError: Such a base.
    """
    if spec.patch_size < STRIDE:
        raise InputError(
            f"base.name={spec.name}: its patches of {spec.patch_size} pixels leave gaps at a "
            f"stride of {STRIDE}; choose another adapter"
        )


class RelativeTables(nn.Module):
    """A global block's relative positions, resampled to another side and trained."""

    def __init__(self, attention: Attention, side: int) -> None:
        super().__init__()
        self.h, self.w = (
            nn.Parameter(
                F.interpolate(table.detach().T[None], 2 * side - 1, mode="linear")[0].T.contiguous()
            )
            for table in (attention.rel_pos_h, attention.rel_pos_w)
        )

    def params(self) -> dict[str, Tensor]:
        """What to use in place of the block's own tables."""
        return {"attn.rel_pos_h": self.h, "attn.rel_pos_w": self.w}


class CrossAttention(nn.Module):
    """Multi-head attention of tokens to a convolutional map, without positions."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.proj = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Queries ``(B, H, W, C)`` over keys and values from ``(B, H, W, C)``: ``(B, H, W, C)``."""
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
class SAMUS(Adapter):
    """A CNN branch, cross-attention to it in the global blocks, and finer tokens.

    The embedding changes from the start: tokens are 8 pixels apart and branches start at random.
    """

    paper = "Lin et al. 2023, arXiv:2309.06824"
    sits = "a CNN stream that global blocks attend to; patch embedding, positions, global MLPs"
    identity_at_init = False
    stride = STRIDE

    @dataclass(frozen=True)
    class Config:
        """Options of :class:`SAMUS`."""

        ratio: float = 0.25
        """Width of the bottlenecks as a part of the encoder's."""
        scale: float = 0.5
        """Weight of the bottlenecks beside the MLPs."""
        table_size: int = 256
        """Side in pixels of the image that the relative positions are resampled for; other images
        work too, by resampling on the way."""

    @classmethod
    def check(cls, spec: SamSpec) -> None:
        """Refuses bases with patches under 8 pixels."""
        check_stride(spec)

    def __init__(self, sam: Sam, config: Config) -> None:
        super().__init__()
        check_stride(sam.spec)
        encoder, dim = sam.image_encoder, sam.image_encoder.dim
        hidden = bottleneck_width(dim, config.ratio)
        self.stem = nn.ModuleList(
            _conv_norm(a, b) for a, b in zip((3, *WIDTHS), (*WIDTHS, dim), strict=True)
        )
        self.positions = _conv_norm(dim, dim)
        self.input = Bottleneck(dim, hidden)
        blocks = {str(i): encoder.blocks[i] for i in sam.spec.global_blocks}
        self.cross = nn.ModuleDict({i: CrossAttention(dim, sam.spec.heads) for i in blocks})
        self.refine = nn.ModuleDict({i: _conv_norm(dim, dim) for i in blocks})
        self.bottlenecks = nn.ModuleDict({i: Bottleneck(dim, hidden, config.scale) for i in blocks})
        side = table_side(config.table_size)
        self.tables = nn.ModuleDict(
            {i: RelativeTables(block.attn, side) for i, block in blocks.items()}  # type: ignore[arg-type]
        )

    def embed(self, encoder: ImageEncoder, pixels: Tensor) -> Tensor:
        """Overlapping patches through a bottleneck, with SAM's positions pooled and convolved."""
        x = strided_patches(encoder, pixels)
        x = x + self.input(x)
        table = F.max_pool2d(encoder.pos_embed.permute(0, 3, 1, 2), 2)
        table = self.positions(table).permute(0, 2, 3, 1)
        return x + resize.positions(table, (x.shape[1], x.shape[2]))

    def begin(
        self, encoder: ImageEncoder, pixels: Tensor, x: Tensor, tokens: Tensor | None
    ) -> ConvolutionalStream:
        """The CNN stream at the tokens' grid."""
        c = self.stem[0](pixels)
        for stage in self.stem[1:]:
            c = stage(F.max_pool2d(c, 2))
        weights = {
            int(i): encoder.blocks[int(i)].attn.qkv.weight  # type: ignore[union-attr]
            for i in self.cross
        }
        return ConvolutionalStream(c, weights)  # type: ignore[arg-type]

    def edits(self, i: int, state: ConvolutionalStream) -> BlockEdits:
        """Cross-attention before the attention, a bottleneck, own positions: in global blocks."""
        key = str(i)
        if key not in self.cross:
            return NONE
        return BlockEdits(
            qkv=_attended_first(self.cross[key], state.c, state.projections[i]),
            mlp=self.bottlenecks[key],
            params=self.tables[key].params(),  # type: ignore[operator]
        )

    def leave(self, i: int, x: Tensor, state: ConvolutionalStream) -> Tensor:
        """The stream as it is; the CNN stream advances after global blocks."""
        if str(i) in self.refine:
            state.c = self.refine[str(i)](state.c)
        return x

    def end(self, x: Tensor, state: ConvolutionalStream) -> Tensor:
        """The stream with half of the CNN stream."""
        return x + 0.5 * state.c.permute(0, 2, 3, 1)


def table_side(size: int) -> int:
    """Tokens along the side of an image of ``size`` pixels.

    Raises:
        InputError: Fewer than one.
    """
    if size < STRIDE:
        raise InputError(f"adapter.table_size={size}: must be at least {STRIDE} pixels")
    return size // STRIDE


def _attended_first(cross: nn.Module, c: Tensor, weight: Tensor) -> Callable[[Tensor], Tensor]:
    """What projecting ``n + cross(n)`` adds to projecting ``n``: the projection is linear."""
    tokens = c.permute(0, 2, 3, 1)
    return lambda n: F.linear(cross(n, tokens), weight)


def _conv_norm(dim: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(dim, out, 3, padding=1, bias=False), LayerNorm2d(out), nn.GELU())
