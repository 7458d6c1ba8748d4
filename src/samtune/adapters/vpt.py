r"""Visual prompt tuning (Jia et al. 2022, arXiv:2203.12119): learned tokens beside the image's.

*Deep*: every block has prompts :math:`P_i` of its own, and what it makes of them is dropped:

.. math:: [\_, x_{i+1}] = \mathrm{block}_i([P_i, x_i])

*Shallow*: only the first block has prompts; each block passes on what it made of them:

.. math:: [Z_{i+1}, x_{i+1}] = \mathrm{block}_i([Z_i, x_i]), \quad Z_0 = P

The prompts pass each block's first norm with the stream and have no relative position. In windowed
blocks every window sees them, and what passes on is the mean over an image's windows: the paper's
rule for Swin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samtune.adapters.base import ADAPTERS, Adapter
from samtune.ops import windows
from samtune.options import Count, Rate
from samtune.sam.edits import BlockEdits
from samtune.sam.image_encoder import Block, ImageEncoder
from samtune.sam.model import Sam


@dataclass
class PromptStream:
    """The prompts of one forward pass."""

    encoder: ImageEncoder
    """The frozen encoder, whose norms and blocks the prompts pass."""
    normed: list[Tensor]
    """Normed prompts ``(P, C)`` or ``(B, P, C)`` of the blocks entered so far; deep: of all."""
    carried: Tensor | None = None
    """Shallow: the prompts before the block to come, ``(B, P, C)``."""


@ADAPTERS.register("vpt")
class VPT(Adapter):
    """Learned prompt tokens in every block's attention, fresh ones or the first block's carried on.

    Not an identity at the start: the prompts take attention from the image, whatever their values.
    """

    paper = "Jia et al. 2022, arXiv:2203.12119"
    sits = "tokens beside the image's, in every window"
    forms: ClassVar = {"shallow": {"depth": "shallow"}}
    identity_at_init = False
    changes_at_start = "prompts take attention from the image, whatever their values"

    @dataclass(frozen=True)
    class Config:
        """Options of :class:`VPT`."""

        depth: Literal["deep", "shallow"] = "deep"
        """``deep``: prompts of its own for every block; ``shallow``: for the first one alone,
        passed on from block to block."""
        tokens: Count = 5
        """Prompts of a block."""
        dropout: Rate = 0.0
        """Dropout on the prompts while training."""

    def __init__(self, sam: Sam, config: Config) -> None:
        super().__init__()
        encoder = sam.image_encoder
        self.deep, self.dropout = config.depth == "deep", config.dropout
        count = len(encoder.blocks) if self.deep else 1
        self.prompts = nn.Parameter(torch.empty(count, config.tokens, encoder.dim))
        bound = math.sqrt(6 / (3 * encoder.patch**2 + encoder.dim))
        nn.init.uniform_(self.prompts, -bound, bound)

    def begin(
        self, encoder: ImageEncoder, pixels: Tensor, x: Tensor, tokens: Tensor | None
    ) -> PromptStream:
        """The prompts, normed for the blocks whose prompts are known: all, or the first."""
        prompts = F.dropout(self.prompts, self.dropout, self.training).unbind(0)
        blocks = _blocks(encoder)[: len(prompts)]
        normed = [block.norm1(p) for block, p in zip(blocks, prompts, strict=True)]
        carried = None if self.deep else prompts[0].expand(len(x), -1, -1)
        return PromptStream(encoder, normed, carried)

    def enter(self, i: int, x: Tensor, state: PromptStream) -> Tensor:
        """Leaves the stream alone; shallow prompts are taken through block ``i`` beside it."""
        blocks = _blocks(state.encoder)
        if state.carried is not None and i + 1 < len(blocks):
            state.carried = carry(blocks[i], x, state.carried)
            state.normed.append(blocks[i + 1].norm1(state.carried))
        return x

    def edits(self, i: int, state: PromptStream) -> BlockEdits:
        """The prompts of block ``i`` as keys and values, which is all that the image sees."""
        return BlockEdits(tokens=state.normed[i])


def carry(block: Block, x: Tensor, prompts: Tensor) -> Tensor:
    """What a block makes of prompts in the stream: its own queries of every window.

    The block itself runs on the image tokens alone, so their keys and values are projected a second
    time here.

    Args:
        block: A frozen block.
        x: The stream ``(B, H, W, C)`` before it.
        prompts: ``(B, P, C)`` before it.

    Returns:
        ``(B, P, C)``; in a windowed block the mean over the windows of each image.
    """
    attn, image = block.attn, block.norm1(x)
    if block.window:
        image, _ = windows.partition(image, block.window)
    count = len(image) // len(x)
    q, k, v = attn.split(attn.qkv(block.norm1(prompts)).repeat_interleave(count, 0))
    weight, bias = attn.qkv.weight[x.shape[-1] :], attn.qkv.bias[x.shape[-1] :]
    both = F.linear(image.flatten(1, 2), weight, bias).unflatten(-1, (2, attn.heads, -1))
    image_k, image_v = both.permute(2, 0, 3, 1, 4)
    out = F.scaled_dot_product_attention(q, torch.cat([image_k, k], 2), torch.cat([image_v, v], 2))
    out = attn.proj(out.transpose(1, 2).flatten(2)).unflatten(0, (-1, count)).mean(1)
    prompts = prompts + out
    return prompts + block.mlp(block.norm2(prompts))


def _blocks(encoder: ImageEncoder) -> list[Block]:
    return list(encoder.blocks)  # type: ignore[arg-type]
