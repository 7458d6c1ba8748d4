"""SAM's image encoder: a ViTDet with windowed and global blocks, and a convolutional neck.

Kirillov et al. 2023 (arXiv:2304.02643); parameter names, epsilons and numerics are the official
ones.
Height and width of the input must be multiples of the patch. Absolute positions and relative tables
are resampled for sizes other than the native one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from samtune.ops import attention, frozen, resize, windows
from samtune.ops.frozen import Linear
from samtune.sam.edits import NONE, BlockEdits
from samtune.sam.encoder import ENCODERS, Encoder, EncoderBlock
from samtune.sam.layers import MLP, PatchEmbed, check_names, check_size, neck
from samtune.sam.spec import SamSpec

BLOCK = re.compile(r"image_encoder\.blocks\.(\d+)\.")


class Attention(nn.Module):
    """Multi-head attention over a grid with decomposed relative positions."""

    def __init__(self, dim: int, heads: int, native: tuple[int, int]) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * native[0] - 1, dim // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * native[1] - 1, dim // heads))
        self.form: attention.Form = "auto"

    def split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(B, n, 3C)`` to queries, keys, values ``(B, heads, n, D)``."""
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def forward(self, qkv: Tensor, edits: BlockEdits) -> Tensor:
        """Attends within a grid: ``qkv (b, h, w, 3C)`` to ``(b, h, w, C)``, not yet projected."""
        b, h, w, _ = qkv.shape
        q, k, v = self.split(qkv.flatten(1, 2))
        key_grid, extra = (h, w), 0
        if edits.heads is not None:
            q, k, v, key_grid = edits.heads(q, k, v, (h, w))
        if edits.tokens is not None:
            extra_k, extra_v = self._extra(edits.tokens, b)
            k, v = torch.cat([k, extra_k], 2), torch.cat([v, extra_v], 2)
            extra = extra_k.shape[2]
        rel_h = _relative(self.rel_pos_h, h, key_grid[0], q.dtype)
        rel_w = _relative(self.rel_pos_w, w, key_grid[1], q.dtype)
        out = attention.attend(q, k, v, rel_h, rel_w, extra, self.form)
        return out.transpose(1, 2).reshape(b, h, w, -1)

    def _extra(self, tokens: Tensor, b: int) -> tuple[Tensor, Tensor]:
        """Keys and values of extra tokens ``(b, heads, P, D)``, the same in all windows."""
        tokens = tokens if tokens.dim() == 3 else tokens[None]
        _, k, v = self.split(self.qkv(tokens))
        copies = b // tokens.shape[0]
        return k.repeat_interleave(copies, 0), v.repeat_interleave(copies, 0)


def _relative(table: Tensor, queries: int, keys: int, dtype: torch.dtype) -> Tensor:
    """The relative positions ``(queries, keys, D)`` of a table, for products in a type."""
    key = queries, keys, dtype
    return frozen.once(table, key, lambda t: resize.relative(t, queries, keys).to(dtype))


class Block(nn.Module, EncoderBlock):
    """A transformer block: windowed when ``window > 0``, global when 0."""

    places: ClassVar[Mapping[str, str]] = {
        "norm1": "norm1",
        "qkv": "attn.qkv",
        "proj": "attn.proj",
        "norm2": "norm2",
        "lin1": "mlp.lin1",
        "lin2": "mlp.lin2",
    }

    def __init__(
        self, dim: int, heads: int, mlp_ratio: float, window: int, native: tuple[int, int]
    ) -> None:
        super().__init__()
        self.dim, self.heads, self.window = dim, heads, window
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads, (window, window) if window else native)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLP(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor, edits: BlockEdits = NONE) -> Tensor:
        """Maps the token stream ``(B, H, W, C)`` to the next one, with ``edits`` applied.

        Raises:
            ValueError: ``edits.params`` names a parameter that the block does not have.
        """
        if edits.params:
            check_names(self, edits.params)
            plain = replace(edits, params={})
            return functional_call(self, dict(edits.params), (x, plain), strict=False)
        attended = self._attend(self.norm1(x), edits)
        if edits.attended is not None:
            attended = edits.attended(attended)
        x = x + attended
        normed = self.norm2(x)
        out = self.mlp(normed)
        if edits.mlp is not None:
            out = out + edits.mlp(normed)
        return x + out

    def _attend(self, x: Tensor, edits: BlockEdits) -> Tensor:
        grid = (x.shape[1], x.shape[2])
        if not self.window:
            return self.attn.proj(self.attn(self._project(x, edits), edits))
        if edits.qkv is not None:
            parts, padded = windows.partition(x, self.window)
            parts = self._project(parts, edits)
        else:
            # Padding follows the norm, so padded tokens are zeros and their projection is the bias:
            # projecting the real tokens alone gives the same numbers for less work.
            weight, bias = self.attn.qkv.weight, self.attn.qkv.bias
            parts, padded = windows.partition(frozen.linear(x, weight), self.window)
            # the bias in the type of the product, otherwise the sum would be float32
            parts = parts + frozen.in_compute_dtype(bias).to(parts.dtype)
        # Nothing is projected that merging cuts off.
        return self.attn.proj(windows.merge(self.attn(parts, edits), padded, grid))

    def _project(self, x: Tensor, edits: BlockEdits) -> Tensor:
        qkv = self.attn.qkv(x)
        return qkv if edits.qkv is None else qkv + edits.qkv(x)

    def carry(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Returns the block's output for tokens in the stream: their own queries in every window.

        The block itself runs on the image tokens alone, so their keys and values are projected a
        second time here.

        Args:
            x: The stream ``(B, H, W, C)`` before the block.
            tokens: ``(B, P, C)`` before it.

        Returns:
            ``(B, P, C)``; in a windowed block the mean over the windows of each image.
        """
        attn, image = self.attn, self.norm1(x)
        if self.window:
            image, _ = windows.partition(image, self.window)
        count = len(image) // len(x)
        q, k, v = attn.split(attn.qkv(self.norm1(tokens)).repeat_interleave(count, 0))
        weight, bias = attn.qkv.weight[x.shape[-1] :], attn.qkv.bias[x.shape[-1] :]
        both = F.linear(image.flatten(1, 2), weight, bias).unflatten(-1, (2, attn.heads, -1))
        image_k, image_v = both.permute(2, 0, 3, 1, 4)
        keys, values = torch.cat([image_k, k], 2), torch.cat([image_v, v], 2)
        out = F.scaled_dot_product_attention(q, keys, values)
        out = attn.proj(out.transpose(1, 2).flatten(2)).unflatten(0, (-1, count)).mean(1)
        tokens = tokens + out
        return tokens + self.mlp(self.norm2(tokens))


@ENCODERS.register("vit")
class ImageEncoder(Encoder):
    """The ViT: patches with positions, blocks, neck."""

    offers = frozenset(
        {
            "qkv",
            "heads",
            "tokens",
            "attended",
            "mlp",
            "params",
            "uniform",
            "patches",
            "positions",
            "tables",
        }
    )
    anchor = "image_encoder.patch_embed.proj.weight"

    def __init__(self, spec: SamSpec) -> None:
        super().__init__(spec)
        self.patch, self.dim = spec.patch_size, spec.embed_dim
        native = (spec.image_size // self.patch,) * 2
        dim, out = self.dim, spec.prompt_dim
        self.patch_embed = PatchEmbed(self.patch, dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, *native, dim))
        blocks = [
            Block(
                dim,
                spec.heads,
                spec.mlp_ratio,
                0 if i in spec.global_blocks else spec.window,
                native,
            )
            for i in range(spec.depth)
        ]
        for i, block in enumerate(blocks):
            block.name, block.stride = f"blocks.{i}", self.patch
        self.blocks = nn.ModuleList(blocks)  # type: ignore[assignment]  # it forgets their type
        self.neck = neck(dim, out)

    def embed(self, pixels: Tensor, edits: BlockEdits = NONE) -> Tensor:
        """Patches with absolute positions: ``(B, 3, h, w)`` to ``(B, H, W, C)``.

        Raises:
            InputError: The patch does not divide ``h`` or ``w``.
        """
        check_size(pixels, self.patch)
        x = self.patch_embed(pixels)
        grid = (x.shape[1], x.shape[2])
        return x + frozen.once(self.pos_embed, grid, lambda table: resize.positions(table, grid))

    @classmethod
    def sizes(cls, state: Mapping[str, Tensor]) -> dict[str, int]:
        """Width, patch and, if the tensors include blocks, depth."""
        width, _, _, patch = state[cls.anchor].shape
        indices = [int(hit[1]) for key in state if (hit := BLOCK.match(key))]
        depth = {"depth": max(indices) + 1} if indices else {}
        return {"embed_dim": width, "patch_size": patch, **depth}
