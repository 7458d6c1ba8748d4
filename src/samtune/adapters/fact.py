r"""FacT (Jie and Deng 2023, arXiv:2212.03145): weight updates that share factors across all blocks.

The updates of all adapted projections, :math:`\Delta W \in R^{n \times C \times C}` with the update
of :math:`x W_i` in its slice :math:`i`, are one tensor. FacT-TT factors it as a tensor train,
FacT-TK by Tucker's decomposition; only the factors are trained:

.. math::
    \mathrm{TT:} \quad \Delta W_i &= s \, U \Sigma_i V^T,
    \quad U, V \in R^{C \times r}, \; \Sigma \in R^{n \times r \times r} \\
    \mathrm{TK:} \quad \Delta W_i &= s \, U \Big(\sum_t P_{it} C_t\Big) V^T,
    \quad P \in R^{n \times r}, \; C \in R^{r \times r \times r}

:math:`V` starts at zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samtune.adapters.base import ADAPTERS, Adapter, Factors
from samtune.adapters.block_tensors import chosen_parts
from samtune.adapters.lora import PARTS, chosen_blocks, weight_name
from samtune.options import Count, Rate
from samtune.sam.edits import NONE, BlockEdits
from samtune.sam.model import Sam


@ADAPTERS.register("fact")
class FacT(Adapter):
    """Low-rank updates that share outer factors; exact identity at the start, mergeable."""

    paper = (
        "Jie and Deng 2023, arXiv:2212.03145; on SAM: MA-SAM, Chen et al. 2023, arXiv:2309.08842"
    )
    sits = "query and value projections, with factors shared by all blocks"
    uses = ("qkv", "uniform")
    forms: ClassVar = {"tucker": {"form": "tk"}}
    former_names: ClassVar = {"core": "c"}

    @dataclass(frozen=True)
    class Config(Adapter.Config):
        """Options of :class:`FacT`."""

        form: Literal["tt", "tk"] = "tt"
        """``tt`` (tensor train) or ``tk`` (Tucker)."""
        target: str = "q+v"
        """Projections that are updated: one or more of ``q``, ``k``, ``v`` joined by ``+``, or
        ``all``."""
        rank: Count = 16
        """Width of all factors."""
        scale: float = 1.0
        """Weight of the update."""
        dropout: Rate = 0.0
        """Dropout before the last factor while training."""
        blocks: tuple[int, ...] | str = "all"
        """``all``, ``global``, ``windowed``, or block indices (negative ones count from the
        end)."""

    def __init__(self, sam: Sam, config: Config) -> None:
        super().__init__()
        self.parts = [PARTS[part] for part in chosen_parts("target", config.target, PARTS)]
        self.blocks = sorted(chosen_blocks(config.blocks, sam))
        self.scale, self.dropout = config.scale, config.dropout
        dim, rank, slices = sam.image_encoder.dim, config.rank, len(self.blocks) * len(self.parts)
        self.u = nn.Parameter(torch.empty(dim, rank).uniform_(-(dim**-0.5), dim**-0.5))
        self.v = nn.Parameter(torch.zeros(dim, rank))
        self.tucker = config.form == "tk"
        if self.tucker:
            self.p = nn.Parameter(nn.init.xavier_uniform_(torch.empty(slices, rank)))
            self.c = nn.Parameter(nn.init.xavier_uniform_(torch.empty(rank, rank, rank)))
        else:
            bound = 1 / math.sqrt(rank)
            self.sigma = nn.Parameter(torch.empty(slices, rank, rank).uniform_(-bound, bound))

    def inner(self, i: int) -> Tensor:
        """The middle factors of block ``i``, one per updated projection: ``(n, r, r)``."""
        first = self.blocks.index(i) * len(self.parts)
        rows = slice(first, first + len(self.parts))
        if self.tucker:
            return torch.einsum("nt,tab->nab", self.p[rows], self.c)
        return self.sigma[rows]

    def update(self, i: int, x: Tensor) -> Tensor:
        """``(b, h, w, C)`` normed tokens to the ``(b, h, w, 3C)`` update of block ``i``."""
        hidden = x @ self.u
        updates = [hidden.new_zeros(x.shape)] * 3
        for part, sigma in zip(self.parts, self.inner(i), strict=True):
            middle = F.dropout(hidden @ sigma, self.dropout, self.training)
            updates[part] = middle @ self.v.T * self.scale
        return torch.cat(updates, -1)

    def first_block(self, depth: int) -> int:
        """The first of the chosen blocks."""
        return min(self.blocks, default=depth)

    def edits(self, i: int, state: None) -> BlockEdits:
        """The update of block ``i``, if it is adapted."""
        return BlockEdits(qkv=partial(self.update, i)) if i in self.blocks else NONE

    def deltas(self, sam: Sam) -> dict[str, Tensor]:
        """The updates as weight differences of each block's fused projection."""
        deltas: dict[str, Tensor] = {}
        for i in self.blocks:
            delta = self.u.new_zeros(3, len(self.u), len(self.u))
            for part, sigma in zip(self.parts, self.inner(i), strict=True):
                delta[part] = (self.u @ sigma @ self.v.T * self.scale).T
            deltas |= sam.image_encoder.projection_delta(i, delta.flatten(0, 1))
        return deltas

    def factors(self, sam: Sam) -> dict[str, Factors]:
        """The updates of each block's fused projection, whose inner factor is the same for all."""
        products = {}
        for i in self.blocks:
            block = sam.image_encoder.blocks[i]
            b = self.u.new_zeros(3, len(self.v), self.v.shape[1])
            for part, sigma in zip(self.parts, self.inner(i), strict=True):
                b[part] = self.v @ sigma.T
            products[weight_name(block)] = Factors(self.u.T, block.fused(b.unbind()), self.scale)
        return products
