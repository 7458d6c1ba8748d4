"""MobileSAM's image encoder: TinyViT, convolutions first and then windowed attention.

Wu et al. 2022 (TinyViT, arXiv:2207.10666); Zhang et al. 2023 (MobileSAM, arXiv:2306.14289), whose
parameter names are used. The grid is halved between stages except before the last, so a token is 16
pixels wide as in SAM's ViTs. There are no absolute positions. Each attention looks its biases up by
distance in every pass, because a cached table would be stale after loading weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from samtune.ops import windows
from samtune.ops.frozen import Conv2d, Linear
from samtune.sam.edits import NONE, BlockEdits
from samtune.sam.encoder import ENCODERS, Encoder, EncoderBlock
from samtune.sam.layers import check_names, check_size, neck, through_hidden
from samtune.sam.spec import SamSpec

EXPANSION = 4
"""Expansion factor of the convolution blocks and of the MLPs."""
STEM = 4
"""Pixels from one token to the next after the stem."""


class ConvNorm(nn.Module):
    """A convolution without bias and batch normalisation, which stays in evaluation mode."""

    name = ""
    """Its name within the encoder."""

    def __init__(self, dim: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.c = Conv2d(dim, out, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out)

    def forward(self, x: Tensor, edits: BlockEdits = NONE) -> Tensor:
        """Maps ``(B, dim, H, W)`` to ``(B, out, H / stride, W / stride)``, rounded up."""
        x = self.c(x)
        return self.bn(x) if edits.norm is None else edits.norm(self.name, self.bn, x)


class PatchEmbed(nn.Module):
    """Two convolutions, each of which halves the image."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(
            ConvNorm(3, dim // 2, 3, stride=2), nn.GELU(), ConvNorm(dim // 2, dim, 3, stride=2)
        )

    def forward(self, pixels: Tensor, edits: BlockEdits = NONE) -> Tensor:
        """Maps ``(B, 3, h, w)`` normalised pixels to ``(B, dim, h / 4, w / 4)``."""
        first, act, second = self.seq
        return second(act(first(pixels, edits)), edits)


class PatchMerging(nn.Module):
    """Pointwise, depthwise and pointwise convolution; the depthwise one has the stride."""

    def __init__(self, dim: int, hidden: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = ConvNorm(dim, hidden, 1)
        self.conv2 = ConvNorm(hidden, hidden, 3, stride, groups=hidden)
        self.conv3 = ConvNorm(hidden, out, 1)

    def forward(self, x: Tensor, edits: BlockEdits = NONE) -> Tensor:
        """Maps ``(B, dim, H, W)`` to ``(B, out, H / stride, W / stride)``, rounded up."""
        x = F.gelu(self.conv1(x, edits))
        return self.conv3(F.gelu(self.conv2(x, edits)), edits)


class MBConv(PatchMerging):
    """An inverted bottleneck with a residual, and the activation after the sum."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, EXPANSION * dim, dim)

    def forward(self, x: Tensor, edits: BlockEdits = NONE) -> Tensor:
        """Maps ``(B, dim, H, W)`` to the same shape."""
        return F.gelu(x + super().forward(x, edits))


class Attention(nn.Module):
    """Multi-head attention in a window, with a bias per head and per distance along both axes."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.norm = nn.LayerNorm(dim)
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))

    def bias(self) -> Tensor:
        """The bias on the logits of each pair of tokens of a window: ``(heads, n, n)``."""
        along = torch.arange(self.window, device=self.attention_biases.device)
        row, column = along.repeat_interleave(self.window), along.repeat(self.window)
        down, right = (row[:, None] - row).abs(), (column[:, None] - column).abs()
        return self.attention_biases[:, down * self.window + right]

    def by_head(self, rows: Tensor, dim: int = -1) -> Tensor:
        """Reorders ``3C`` rows from SAM's order (queries, keys, values) to one head by head."""
        return (
            rows.unflatten(dim, (3, self.heads, -1))
            .transpose(dim - 2, dim - 1)
            .flatten(dim - 2, dim)
        )

    def by_part(self, rows: Tensor) -> Tensor:
        """The inverse of :meth:`by_head`: reorders ``(3C, ...)`` to SAM's order."""
        return rows.unflatten(0, (self.heads, 3, -1)).transpose(0, 1).flatten(0, 2)

    def forward(self, x: Tensor, edits: BlockEdits) -> Tensor:
        """Attends within windows ``(b, h, w, C)``, padding included, as in the official code."""
        b, h, w, _ = x.shape
        x = self.norm(x)
        qkv = self.qkv(x)
        if edits.qkv is not None:
            qkv = qkv + self.by_head(edits.qkv(x))
        heads = qkv.flatten(1, 2).unflatten(-1, (self.heads, 3, -1))
        q, k, v = heads.permute(3, 0, 2, 1, 4).unbind(0)
        out = F.scaled_dot_product_attention(q, k, v, self.bias().to(q.dtype))
        return self.proj(out.transpose(1, 2).reshape(b, h, w, -1))


class MLP(nn.Module):
    """Norm, two linear layers and GELU between them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = Linear(dim, EXPANSION * dim)
        self.fc2 = Linear(EXPANSION * dim, dim)

    def forward(self, x: Tensor, edits: BlockEdits) -> Tensor:
        """Maps ``(..., C)`` to ``(..., C)``."""
        normed = self.norm(x)
        out = through_hidden(lambda x: self.fc2(F.gelu(self.fc1(x))), normed)
        return out if edits.mlp is None else out + edits.mlp(normed)


class Block(nn.Module, EncoderBlock):
    """Windowed attention, a depthwise convolution, an MLP."""

    places: ClassVar[Mapping[str, str]] = {
        "norm1": "attn.norm",
        "qkv": "attn.qkv",
        "proj": "attn.proj",
        "norm2": "mlp.norm",
        "lin1": "mlp.fc1",
        "lin2": "mlp.fc2",
    }

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.dim, self.heads, self.window = dim, heads, window
        self.attn = Attention(dim, heads, window)
        self.local_conv = ConvNorm(dim, dim, 3, groups=dim)
        self.mlp = MLP(dim)

    def forward(self, x: Tensor, edits: BlockEdits = NONE) -> Tensor:
        """Maps the token stream ``(B, H, W, C)`` to the next one, with ``edits`` applied.

        ``edits.qkv`` returns rows in SAM's order: all queries, all keys, all values.

        Raises:
            ValueError: An edit that this attention does not support, or a parameter that the block
                does not have.
        """
        if edits.heads is not None or edits.tokens is not None:
            raise ValueError("a TinyViT block does not support edits of heads or extra tokens")
        if edits.params:
            check_names(self, edits.params)
            plain = replace(edits, params={})
            return functional_call(self, dict(edits.params), (x, plain), strict=False)
        cut, padded = windows.partition(x, self.window)
        attended = windows.merge(self.attn(cut, edits), padded, (x.shape[1], x.shape[2]))
        if edits.attended is not None:
            attended = edits.attended(attended)
        x = self.local_conv((x + attended).permute(0, 3, 1, 2), edits).permute(0, 2, 3, 1)
        return x + self.mlp(x, edits)

    def parts(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Splits rows ``(3C, ...)``, ordered head by head, into queries, keys and values."""
        q, k, v = self.attn.by_part(rows).chunk(3)
        return q, k, v

    def fused(self, parts: Sequence[Tensor]) -> Tensor:
        """The inverse: rows ``(3C, ...)``, head by head."""
        rows = torch.cat(list(parts))
        return self.attn.by_head(rows, -rows.dim())


class Step(EncoderBlock):
    """One block of the stream; the first of a stage includes the merging before it.

    Args:
        name: Name of the block within the encoder.
        block: The frozen block, whose operations and parameters are the step's.
        merging: The layer that halves the grid before it, if any.
        stride: Pixels from one of its tokens to the next.
    """

    places = Block.places

    def __init__(self, name: str, block: Block, merging: PatchMerging | None, stride: int) -> None:
        self.name, self.block, self.merging, self.stride = name, block, merging, stride
        self.dim, self.heads, self.window = block.dim, block.heads, block.window

    def get_parameter(self, target: str) -> nn.Parameter:
        """A parameter of the block by its name within it."""
        return self.block.get_parameter(target)

    def get_submodule(self, target: str) -> nn.Module:
        """A module of the block by its name within it."""
        return self.block.get_submodule(target)

    def parts(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Splits rows as the block does."""
        return self.block.parts(rows)

    def fused(self, parts: Sequence[Tensor]) -> Tensor:
        """Fuses rows as the block does."""
        return self.block.fused(parts)

    def __call__(self, x: Tensor, edits: BlockEdits = NONE) -> Tensor:
        """The next stream ``(B, H, W, C)``; a merging halves the grid and widens the stream."""
        if self.merging is not None:
            x = self.merging(x.permute(0, 3, 1, 2), edits).permute(0, 2, 3, 1)
        return self.block(x, edits)


@ENCODERS.register("tiny_vit")
class TinyViT(Encoder):
    """Stages of growing width; the grid is halved before each of them except the last.

    ``blocks`` are the blocks with attention, each with the merging before it if there is one; the
    convolutional stage belongs to ``embed``. The official model's classifier, which is never
    called, is left out.
    """

    offers = frozenset({"qkv", "attended", "mlp", "params", "norm"})
    anchor = "image_encoder.patch_embed.seq.0.c.weight"
    unused: ClassVar[Mapping[str, tuple[int, ...]]] = {
        "image_encoder.norm_head.weight": (320,),
        "image_encoder.norm_head.bias": (320,),
        "image_encoder.head.weight": (1000, 320),
        "image_encoder.head.bias": (1000,),
    }
    """The classifier for ImageNet."""

    def __init__(self, spec: SamSpec) -> None:
        super().__init__(spec)
        first, *others = spec.stages
        self.patch, self.dim = STEM, spec.stages[-1].dim
        self.patch_embed = PatchEmbed(first.dim)
        stages: list[list[nn.Module]] = [[MBConv(first.dim) for _ in range(first.depth)]]
        stages += [[Block(s.dim, s.heads, s.window) for _ in range(s.depth)] for s in others]
        self.layers = nn.ModuleList(nn.ModuleDict({"blocks": nn.ModuleList(m)}) for m in stages)
        steps, stride = [], STEM
        for i, (here, after) in enumerate(zip(spec.stages, others, strict=False), start=1):
            halving = 1 if after is spec.stages[-1] else 2
            stride *= halving
            merging = PatchMerging(here.dim, after.dim, after.dim, halving)
            layer = self.layers[i - 1]
            assert isinstance(layer, nn.ModuleDict)
            layer["downsample"] = merging
            for j, block in enumerate(stages[i]):
                assert isinstance(block, Block)
                before = None if j else merging
                steps.append(Step(f"layers.{i}.blocks.{j}", block, before, stride))
        # Not in the module tree, which already holds these blocks under the official names.
        self.blocks = tuple(steps)
        self.neck = neck(self.dim, spec.prompt_dim)
        for name, module in self.named_modules():
            if isinstance(module, ConvNorm):
                module.name = name

    def embed(self, pixels: Tensor, edits: BlockEdits = NONE) -> Tensor:
        """Stem and first stage: ``(B, 3, h, w)`` to ``(B, h / 4, w / 4, C)``.

        Raises:
            InputError: 16 does not divide ``h`` or ``w``.
        """
        check_size(pixels, self.stride)
        x = self.patch_embed(pixels, edits)
        for block in self.layers[0]["blocks"]:  # type: ignore[index]
            x = block(x, edits)
        return x.permute(0, 2, 3, 1)

    @property
    def norms(self) -> dict[str, nn.BatchNorm2d]:
        """The batch normalisations by the name that edits receive."""
        return {m.name: m.bn for m in self.modules() if isinstance(m, ConvNorm)}

    @classmethod
    def sizes(cls, state: Mapping[str, Tensor]) -> dict[str, int]:
        """Width of the last stage, read from the neck."""
        neck = state.get("image_encoder.neck.0.weight")
        return {} if neck is None else {"embed_dim": neck.shape[1]}
