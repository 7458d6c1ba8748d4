r"""Visual prompt tuning (Jia et al. 2022, arXiv:2203.12119): learned tokens beside the image's.

*Deep*: every block has its own prompts :math:`P_i`, and its output for them is dropped:

.. math:: [\_, x_{i+1}] = \mathrm{block}_i([P_i, x_i])

*Shallow*: only the first block has prompts; each block passes its output for them on:

.. math:: [Z_{i+1}, x_{i+1}] = \mathrm{block}_i([Z_i, x_i]), \quad Z_0 = P

The prompts pass each block's first norm with the stream and have no relative position. In windowed
blocks every window sees them, and the mean over an image's windows is passed on: the paper's rule
for Swin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samtune.adapters.base import ADAPTERS, Adapter
from samtune.options import Count, Rate
from samtune.sam.edits import BlockEdits
from samtune.sam.encoder import Encoder
from samtune.sam.model import Sam


@dataclass
class PromptStream:
    """The prompts of one forward pass."""

    encoder: Encoder
    """The frozen encoder; the prompts pass its norms and blocks."""
    normed_prompts: list[Tensor]
    """Normed prompts ``(P, C)`` or ``(B, P, C)`` of the blocks entered so far; with ``deep``, of
    all."""
    carried_prompts: Tensor | None = None
    """The prompts before the next block, ``(B, P, C)``, if they are ``shallow``."""


@ADAPTERS.register("vpt")
class VPT(Adapter):
    """Learned prompt tokens in the attention: new ones for every block, or the first block's only.

    Not an identity at the start: the prompts take attention from the image, whatever their values.
    """

    paper = "Jia et al. 2022, arXiv:2203.12119"
    sits = "tokens beside the image's, in every window"
    uses = ("tokens", "uniform")
    forms: ClassVar = {"shallow": {"depth": "shallow"}}
    identity_at_init = False
    changes_at_start = "prompts take attention from the image, whatever their values"

    @dataclass(frozen=True)
    class Config(Adapter.Config):
        """Options of :class:`VPT`."""

        depth: Literal["deep", "shallow"] = "deep"
        """``deep``: own prompts for every block; ``shallow``: prompts for the first block only,
        passed on from block to block."""
        tokens: Count = 5
        """Number of prompts per block."""
        dropout: Rate = 0.0
        """Dropout on the prompts while training."""

    def __init__(self, sam: Sam, config: Config) -> None:
        super().__init__()
        encoder = sam.image_encoder
        self.deep, self.dropout = config.depth == "deep", config.dropout
        count = len(encoder.blocks) if self.deep else 1
        # One tensor holds all prompts, as checkpoints store it, so all blocks must have one width.
        self.prompts = nn.Parameter(torch.empty(count, config.tokens, encoder.dim))
        bound = math.sqrt(6 / (3 * encoder.patch**2 + encoder.dim))
        nn.init.uniform_(self.prompts, -bound, bound)

    def begin(
        self, encoder: Encoder, pixels: Tensor, x: Tensor, tokens: Tensor | None
    ) -> PromptStream:
        """Norms the prompts of the blocks whose prompts are known: all, or the first."""
        prompts = F.dropout(self.prompts, self.dropout, self.training).unbind(0)
        blocks = list(encoder.blocks)[: len(prompts)]
        normed = [block.operation("norm1")(p) for block, p in zip(blocks, prompts, strict=True)]
        carried = None if self.deep else prompts[0].expand(len(x), -1, -1)
        return PromptStream(encoder, normed, carried)

    def enter(self, i: int, x: Tensor, state: PromptStream) -> Tensor:
        """Leaves the stream alone; passes shallow prompts through block ``i`` beside it."""
        blocks = state.encoder.blocks
        if state.carried_prompts is not None and i + 1 < len(blocks):
            state.carried_prompts = blocks[i].carry(x, state.carried_prompts)
            state.normed_prompts.append(blocks[i + 1].operation("norm1")(state.carried_prompts))
        return x

    def edits(self, i: int, state: PromptStream) -> BlockEdits:
        """The prompts of block ``i`` as keys and values; nothing else affects the image."""
        return BlockEdits(tokens=state.normed_prompts[i])
