"""A small hierarchical encoder that no adapter file knows, built as SAM 2's Hiera is.

Patches of 4 pixels overlap, the first block of each later stage widens the stream and halves its
grid by pooling its queries, and only the last stage attends to the whole grid.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import deterministic
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from samtune.ops import resize, windows
from samtune.sam.edits import NONE, BlockEdits
from samtune.sam.encoder import ENCODERS, Encoder, EncoderBlock
from samtune.sam.layers import check_names, check_size, neck
from samtune.sam.model import Sam
from samtune.sam.spec import SamSpec, Stage
from samtune.sam.weights import from_state

PATCH = 4
TINY = SamSpec(
    "tiny_hierarchical",
    embed_dim=32,
    depth=5,
    heads=4,
    global_blocks=(4,),
    image_size=64,
    prompt_dim=32,
    decoder_hidden=64,
    iou_hidden=32,
    encoder="hierarchical",
    stages=(Stage(16, 1, 2, 4), Stage(24, 2, 3, 4), Stage(32, 2, 4)),
)


def base() -> Sam:
    """A frozen base whose every tensor holds the fill."""
    return from_state(TINY, deterministic.fill(Sam(TINY).state_dict()))


class Patches(nn.Module):
    """Overlapping patches: one convolution with a kernel wider than its stride."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, 7, PATCH, padding=3)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.proj(pixels).permute(0, 2, 3, 1)


class Block(nn.Module, EncoderBlock):
    """Attention whose queries may be pooled, and an MLP under names of its own."""

    places: ClassVar[Mapping[str, str]] = {
        "norm1": "norm1",
        "qkv": "attn.qkv",
        "proj": "attn.proj",
        "norm2": "norm2",
        "lin1": "mlp.0",
        "lin2": "mlp.2",
    }

    def __init__(self, before: int, stage: Stage, window: int) -> None:
        super().__init__()
        self.dim, self.heads, self.window = stage.dim, stage.heads, window
        self.pools = before != stage.dim
        self.norm1 = nn.LayerNorm(before)
        self.attn = nn.ModuleDict(
            {"qkv": nn.Linear(before, 3 * self.dim), "proj": nn.Linear(self.dim, self.dim)}
        )
        if self.pools:
            self.proj = nn.Linear(before, self.dim)
        self.norm2 = nn.LayerNorm(self.dim)
        self.mlp = nn.Sequential(
            nn.Linear(self.dim, 2 * self.dim), nn.GELU(), nn.Linear(2 * self.dim, self.dim)
        )

    @property
    def dim_in(self) -> int:
        return self.norm1.normalized_shape[0]

    def forward(self, x: Tensor, edits: BlockEdits = NONE) -> Tensor:
        if edits.params:
            check_names(self, edits.params)
            plain = replace(edits, params={})
            return functional_call(self, dict(edits.params), (x, plain), strict=False)
        normed = self.norm1(x)
        attended = self._attend(normed, edits)
        if edits.attended is not None:
            attended = edits.attended(attended)
        x = (_halved(self.proj(normed)) if self.pools else x) + attended
        normed = self.norm2(x)
        out = self.mlp(normed)
        return x + out + (0 if edits.mlp is None else edits.mlp(normed))

    def _attend(self, x: Tensor, edits: BlockEdits) -> Tensor:
        if not self.window:
            return self._within(x, edits)
        cut, padded = windows.partition(x, self.window)
        step = 2 if self.pools else 1
        grid, padded = ((a // step, b // step) for a, b in (x.shape[1:3], padded))
        return windows.merge(self._within(cut, edits), padded, grid)

    def _within(self, x: Tensor, edits: BlockEdits) -> Tensor:
        grid = (x.shape[1], x.shape[2])
        qkv = self.attn["qkv"](x)
        if edits.qkv is not None:
            qkv = qkv + edits.qkv(x)
        q, k, v = self._split(qkv.flatten(1, 2))
        if edits.heads is not None:
            q, k, v, _ = edits.heads(q, k, v, grid)
        if edits.tokens is not None:
            tokens = self.attn["qkv"](edits.tokens).expand(len(x), -1, -1)
            _, more_k, more_v = self._split(tokens)
            k, v = torch.cat([k, more_k], 2), torch.cat([v, more_v], 2)
        if self.pools:
            pooled = _halved(q.flatten(0, 1).unflatten(1, grid))
            grid = (pooled.shape[1], pooled.shape[2])
            q = pooled.flatten(1, 2).unflatten(0, q.shape[:2])
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return self.attn["proj"](out.flatten(2).unflatten(1, grid))

    def _split(self, qkv: Tensor) -> list[Tensor]:
        """``(b, n, 3C)`` to queries, keys, values ``(b, heads, n, D)``."""
        return list(qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4))


@ENCODERS.register("hierarchical")
class Hierarchical(Encoder):
    """Stages of growing width and of grids that are halved."""

    offers = frozenset(
        {"qkv", "heads", "tokens", "attended", "mlp", "params", "patches", "positions"}
    )
    resize = "stretch"
    anchor = "image_encoder.patch_embed.proj.weight"

    def __init__(self, spec: SamSpec) -> None:
        super().__init__(spec)
        first = before = spec.stages[0]
        native = spec.image_size // PATCH
        self.patch, self.dim, stride = PATCH, spec.stages[-1].dim, PATCH
        self.patch_embed = Patches(first.dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, native, native, first.dim))
        self.blocks = nn.ModuleList()
        for stage in spec.stages:
            stride *= 1 if stage is first else 2
            for _ in range(stage.depth):
                block = Block(before.dim, stage, before.window)  # a stage begins in the last's
                block.name, block.stride = f"blocks.{len(self.blocks)}", stride
                self.blocks.append(block)
                before = stage
        self.neck = neck(self.dim, spec.prompt_dim)

    def embed(self, pixels: Tensor, edits: BlockEdits = NONE) -> Tensor:
        check_size(pixels, self.stride)
        x = self.patch_embed(pixels)
        return x + resize.positions(self.pos_embed, (x.shape[1], x.shape[2]))


def _halved(x: Tensor) -> Tensor:
    """``(b, h, w, C)`` to the greatest of each four."""
    return F.max_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
