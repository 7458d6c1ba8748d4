r"""AdaptFormer (Chen et al. 2022, arXiv:2205.13535): a bottleneck beside every MLP.

.. math:: x \leftarrow x + \mathrm{MLP}(n) + s \, W_{up}\, \mathrm{ReLU}(W_{down}\, n), \quad n =
\mathrm{LN}(x)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samtune.adapters.base import ADAPTERS, Adapter
from samtune.sam.edits import BlockEdits
from samtune.sam.model import Sam


class Bottleneck(nn.Module):
    """Down, ReLU, up; the up-projection starts at zero, so the branch starts as nothing."""

    def __init__(self, dim: int, hidden: int, scale: float | None, dropout: float) -> None:
        super().__init__()
        self.down = nn.Linear(dim, hidden)
        self.up = nn.Linear(hidden, dim)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for zeroed in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zeroed)
        self.scale = nn.Parameter(torch.ones(1)) if scale is None else scale
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """``(..., C)`` normed tokens to the branch's ``(..., C)``."""
        hidden = F.dropout(self.down(x).relu(), self.dropout, self.training)
        return self.up(hidden) * self.scale


@ADAPTERS.register("adaptformer")
class AdaptFormer(Adapter):
    """A parallel bottleneck at every block's MLP; exact identity at the start."""

    paper = "Chen et al. 2022, arXiv:2205.13535"
    sits = "beside every MLP"

    @dataclass(frozen=True)
    class Config:
        """Options of :class:`AdaptFormer`."""

        hidden: int = 64
        """Width of the bottleneck."""
        scale: float | None = 0.1
        """Weight of the branch; ``null`` learns one per block, starting at 1."""
        dropout: float = 0.0
        """Dropout inside the bottleneck while training."""

    def __init__(self, sam: Sam, config: Config) -> None:
        super().__init__()
        dim = sam.image_encoder.dim
        self.bottlenecks = nn.ModuleList(
            Bottleneck(dim, config.hidden, config.scale, config.dropout)
            for _ in sam.image_encoder.blocks
        )

    def edits(self, i: int, state: None) -> BlockEdits:
        """The branch beside the MLP of block ``i``."""
        return BlockEdits(mlp=self.bottlenecks[i])
