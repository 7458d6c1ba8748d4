"""SAM's mask decoder: a two-way transformer between tokens and image, then one head per mask.

Official parameter names and numerics (LayerNorm eps 1e-5 in the transformer, where transformers'
``SamModel`` has 1e-6). All prompts of a batch are decoded in one call, each with its image's
embedding.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samtune.batch import Masks
from samtune.ops.frozen import ConvTranspose2d, Linear
from samtune.sam.layers import MLP, LayerNorm2d
from samtune.sam.prompt_encoder import PromptEmbedding

MASKS = 4
"""Mask tokens: 0 for a single unambiguous answer, 1 to 3 for whole, part and subpart."""


class DecoderAttention(nn.Module):
    """Multi-head attention with its own projections, optionally of reduced width."""

    def __init__(self, dim: int, heads: int, reduce: int = 1) -> None:
        super().__init__()
        self.heads = heads
        inner = dim // reduce
        self.q_proj = Linear(dim, inner)
        self.k_proj = Linear(dim, inner)
        self.v_proj = Linear(dim, inner)
        self.out_proj = Linear(inner, dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, present: Tensor | None = None) -> Tensor:
        """Attends ``(N, nq, C)`` over ``(N, nk, C)``, hiding keys not ``present (N, nk)``."""
        q, k, v = (
            proj(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for proj, x in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v))
        )
        mask = None if present is None else present[:, None, None, :]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out_proj(out.transpose(1, 2).flatten(2))


class TwoWayBlock(nn.Module):
    """Tokens among themselves, tokens to image, MLP on tokens, image to tokens."""

    def __init__(self, dim: int, heads: int, hidden: int, reduce: int, first: bool) -> None:
        super().__init__()
        self.self_attn = DecoderAttention(dim, heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = DecoderAttention(dim, heads, reduce)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, hidden, nn.ReLU)
        self.norm3 = nn.LayerNorm(dim)
        self.norm4 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = DecoderAttention(dim, heads, reduce)
        self.first = first

    def forward(
        self,
        tokens: Tensor,
        image: Tensor,
        token_pe: Tensor,
        image_pe: Tensor,
        present: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """One round over ``tokens (N, T, C)`` and ``image (N, H*W, C)`` with their positions."""
        if self.first:  # without positions on the queries (SAM, skip_first_layer_pe)
            tokens = self.self_attn(tokens, tokens, tokens, present)
        else:
            q = tokens + token_pe
            tokens = tokens + self.self_attn(q, q, tokens, present)
        tokens = self.norm1(tokens)
        attended = self.cross_attn_token_to_image(tokens + token_pe, image + image_pe, image)
        tokens = self.norm2(tokens + attended)
        tokens = self.norm3(tokens + self.mlp(tokens))
        attended = self.cross_attn_image_to_token(
            image + image_pe, tokens + token_pe, tokens, present
        )
        return tokens, self.norm4(image + attended)


class TwoWayTransformer(nn.Module):
    """Two rounds, then a final attention from the tokens to the image."""

    def __init__(self, dim: int, heads: int, hidden: int, depth: int = 2, reduce: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TwoWayBlock(dim, heads, hidden, reduce, first=i == 0) for i in range(depth)
        )
        self.final_attn_token_to_image = DecoderAttention(dim, heads, reduce)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(
        self, image: Tensor, image_pe: Tensor, tokens: Tensor, present: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Updates ``image (N, C, H, W)`` and ``tokens (N, T, C)``; the image as ``(N, H*W, C)``."""
        image = image.flatten(2).transpose(1, 2)
        image_pe = image_pe.flatten(2).transpose(1, 2)
        token_pe = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, token_pe, image_pe, present)
        last = self.final_attn_token_to_image(tokens + token_pe, image + image_pe, image)
        return self.norm_final_attn(tokens + last), image


class Head(nn.Module):
    """A small MLP with ReLU between its layers."""

    def __init__(self, dim: int, hidden: int, out: int, depth: int = 3) -> None:
        super().__init__()
        widths = [dim] + [hidden] * (depth - 1) + [out]
        self.layers = nn.ModuleList(Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(..., dim)`` to ``(..., out)``."""
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)


class MaskDecoder(nn.Module):
    """Predicts masks and their estimated IoU from an image embedding and prompt embeddings."""

    def __init__(self, dim: int = 256, hidden: int = 2048, iou_hidden: int = 256) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer(dim, heads=8, hidden=hidden)
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(MASKS, dim)
        self.output_upscaling = nn.Sequential(
            ConvTranspose2d(dim, dim // 4, kernel_size=2, stride=2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            ConvTranspose2d(dim // 4, dim // 8, kernel_size=2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            Head(dim, dim, dim // 8) for _ in range(MASKS)
        )
        self.iou_prediction_head = Head(dim, iou_hidden, MASKS)

    def transform(
        self,
        embedding: Tensor,
        positions: Tensor,
        prompts: PromptEmbedding,
        extra: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Runs the two-way transformer for ``N`` prompts.

        Args:
            embedding: ``(N, C, H, W)``, each prompt's own image embedding.
            positions: ``(1, C, H, W)`` dense position code.
            prompts: The embeddings of the prompts.
            extra: ``(t, C)`` further output tokens, placed after SAM's own five.

        Returns:
            Output tokens ``(N, 5 + t, C)`` in the order IoU, four masks, extra; and the image
            ``(N, C, H, W)``.
        """
        own = [self.iou_token.weight, self.mask_tokens.weight] + ([] if extra is None else [extra])
        output = torch.cat(own)
        n, t = embedding.shape[0], output.shape[0]
        tokens = torch.cat([output.expand(n, -1, -1), prompts.sparse], dim=1)
        present = prompts.present
        if present is not None:
            present = F.pad(present, (t, 0), value=True)
        tokens, image = self.transformer(
            embedding + prompts.dense, positions.expand(n, -1, -1, -1), tokens, present
        )
        return tokens[:, :t], image.transpose(1, 2).unflatten(2, embedding.shape[-2:])

    def forward(
        self,
        embedding: Tensor,
        positions: Tensor,
        prompts: PromptEmbedding,
        multimask: bool = False,
    ) -> Masks:
        """Predicts masks for ``N`` prompts: token 0 alone, or tokens 1 to 3 with ``multimask``.

        Only these masks are computed, so unused heads get no gradient.
        """
        tokens, image = self.transform(embedding, positions, prompts)
        return self.read(tokens, self.output_upscaling(image), multimask)

    def read(self, tokens: Tensor, upscaled: Tensor, multimask: bool = False) -> Masks:
        """Reads SAM's masks from tokens ``(N, 5 + t, C)`` and image ``(N, C / 8, 4H, 4W)``."""
        which = range(1, MASKS) if multimask else range(1)
        weights = torch.stack(
            [self.output_hypernetworks_mlps[i](tokens[:, 1 + i]) for i in which], dim=1
        )
        logits = torch.einsum("nkc,nchw->nkhw", weights, upscaled)
        iou = self.iou_prediction_head(tokens[:, 0])
        return Masks(logits, iou[:, which.start : which.stop])
