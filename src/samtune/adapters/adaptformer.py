r"""AdaptFormer (Chen et al. 2022, arXiv:2205.13535): a bottleneck beside every MLP.

.. math:: x \leftarrow x + \mathrm{MLP}(n) + s \, W_{up}\, \mathrm{ReLU}(W_{down}\, n), \quad n =
\mathrm{LN}(x)
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
from samtune.sam.model import Sam

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}


class Bottleneck(nn.Module):
    """Down, activation, up."""

    def __init__(self, dim: int, config: AdaptFormer.Config) -> None:
        super().__init__()
        self.down = nn.Linear(dim, config.hidden)
        self.up = nn.Linear(config.hidden, dim)
        if config.zero_init:
            nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
            for zeroed in (self.down.bias, self.up.weight, self.up.bias):
                nn.init.zeros_(zeroed)
        self.act = ACTIVATIONS[config.activation]()
        self.scale = nn.Parameter(torch.ones(1)) if config.scale is None else config.scale
        self.dropout = config.dropout

    def forward(self, x: Tensor) -> Tensor:
        """``(..., C)`` normed tokens to the branch's ``(..., C)``."""
        hidden = F.dropout(self.act(self.down(x)), self.dropout, self.training)
        return self.up(hidden) * self.scale


@ADAPTERS.register("adaptformer")
class AdaptFormer(Adapter):
    """A parallel bottleneck at every block's MLP; exact identity at the start.

    Generalized SAM (arXiv:2408.12406) has another form: bottlenecks of a quarter of the encoder's
    width (``hidden=192`` for ViT-B), ``scale=0.5``, ``activation=gelu`` and ``zero_init=false``.
    """

    paper = "Chen et al. 2022, arXiv:2205.13535"
    sits = "beside every MLP"
    uses = ("mlp",)
    forms: ClassVar = {
        "gsam": {"hidden": 192, "scale": 0.5, "activation": "gelu", "zero_init": False},
        "learned_scale": {"scale": None},
    }
    changes_at_start = "without zero_init the up-projections start at random"

    @dataclass(frozen=True)
    class Config(Adapter.Config):
        """Options of :class:`AdaptFormer`."""

        hidden: Count = 64
        """Width of the bottleneck."""
        scale: float | None = 0.1
        """Weight of the branch; ``null`` learns one per block, starting at 1."""
        dropout: Rate = 0.0
        """Dropout inside the bottleneck while training."""
        activation: Literal["relu", "gelu"] = "relu"
        """Activation between the down- and up-projection: ``relu`` or ``gelu``."""
        zero_init: bool = True
        """Start the up-projections at zero, so that the untrained encoder equals SAM's; otherwise
        they start at PyTorch's random initialisation."""

    def __init__(self, sam: Sam, config: Config) -> None:
        super().__init__()
        self.identity_at_init = config.zero_init  # type: ignore[misc]
        blocks = sam.image_encoder.blocks
        self.bottlenecks = nn.ModuleList(Bottleneck(block.dim, config) for block in blocks)

    def edits(self, i: int, state: None) -> BlockEdits:
        """The branch beside the MLP of block ``i``."""
        return BlockEdits(mlp=self.bottlenecks[i])
