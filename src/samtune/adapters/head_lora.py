r"""Low-rank residuals of each head's queries, keys and values, as in Generalized SAM.

Kato et al. 2024 (arXiv:2408.12406) call it LoRA, although it does not act on the weights. On ``t``,
the queries, keys or values of one head after the frozen projection,

.. math:: t \leftarrow t + \frac{s}{r} \, t A B, \quad A \in R^{D \times r}, \; B = 0

with one pair for queries, one for keys and one for values of a block, shared by all its heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from samtune.adapters.base import ADAPTERS, Adapter, Factors
from samtune.adapters.lora import chosen_blocks, weight_name
from samtune.adapters.sm_adaptformer import bottleneck_width
from samtune.sam.edits import NONE, BlockEdits
from samtune.sam.model import Sam


class HeadLowRank(nn.Module):
    """A low-rank residual of tokens of width ``D``; it is zero at the start.

    Args:
        dim: ``D``.
        rank: Width of the bottleneck.
        scale: The residual is weighed by ``scale / rank``.
    """

    former_names: ClassVar = {"down": "a", "up": "b"}

    def __init__(self, dim: int, rank: int, scale: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(dim, rank))
        self.b = nn.Parameter(torch.zeros(rank, dim))
        # Its fan-in is the rank, because PyTorch reads weights as (out, in): U(-1/sqrt(r),
        # 1/sqrt(r)).
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))
        self.scale = scale / rank

    def forward(self, t: Tensor, grid: tuple[int, int]) -> Tensor:
        """``(b, heads, n, D)`` to the residual of the same shape."""
        return t @ self.a @ self.b * self.scale

    def matrix(self) -> Tensor:
        """The residual as a ``(D, D)`` matrix, to be multiplied from the right."""
        return self.a @ self.b * self.scale


class HeadUpdates(nn.Module):
    """The residuals of queries, keys and values of one block."""

    def __init__(self, q: nn.Module, k: nn.Module, v: nn.Module) -> None:
        super().__init__()
        self.q, self.k, self.v = q, k, v

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor, tuple[int, int]]:
        """Adds the residuals to queries, keys and values, ``(b, heads, n, D)`` each."""
        return q + self.q(q, grid), k + self.k(k, grid), v + self.v(v, grid), grid


class PerHead(Adapter):
    """A residual of every head's queries, keys and values, shared by the heads of a block."""

    uses = ("heads",)
    residual: type[HeadLowRank] = HeadLowRank

    @dataclass(frozen=True)
    class Config(Adapter.Config):
        """Options of the methods that work on split heads."""

        ratio: float = 0.25
        """Width of the low-rank bottleneck as a fraction of a head's."""
        scale: float = 0.5
        """The residual is weighed by scale / width of the bottleneck."""
        blocks: tuple[int, ...] | str = "all"
        """``all``, ``global``, ``windowed``, or block indices (negative ones count from the
        end)."""

    def __init__(self, sam: Sam, config: Config) -> None:
        super().__init__()
        self.updates = nn.ModuleDict()
        for i in sorted(chosen_blocks(config.blocks, sam)):
            block = sam.image_encoder.blocks[i]
            dim = block.dim // block.heads
            rank = bottleneck_width(dim, config.ratio)
            residuals = (self.residual(dim, rank, config.scale) for _ in "qkv")
            self.updates[str(i)] = HeadUpdates(*residuals)

    def first_block(self, depth: int) -> int:
        """The first of the chosen blocks."""
        return min([*map(int, self.updates), depth])

    def edits(self, i: int, state: None) -> BlockEdits:
        """The residuals of block ``i``, if it is adapted."""
        key = str(i)
        return BlockEdits(heads=self.updates[key]) if key in self.updates else NONE


@ADAPTERS.register("head_lora")
class HeadLoRA(PerHead):
    """Generalized SAM's LoRA, on split heads; exact identity at the start, mergeable."""

    paper = "Kato et al. 2024 (Generalized SAM), arXiv:2408.12406"
    sits = "each head's queries, keys and values"

    def deltas(self, sam: Sam) -> dict[str, Tensor]:
        """The residuals as differences of each block's projection, weight and bias."""
        deltas = {}
        for i, updates in self.updates.items():
            block = sam.image_encoder.blocks[int(i)]
            matrices = [getattr(updates, part).matrix() for part in "qkv"]
            turn = torch.stack(matrices)[:, None].mT  # of q, k, v: the same for all heads
            for term in ("weight", "bias"):
                name = f"{block.places['qkv']}.{term}"
                parts = torch.stack(block.parts(block.get_parameter(name)))
                rows = parts.reshape(3, block.heads, turn.shape[-1], -1)
                turned = (turn @ rows).reshape_as(parts)
                deltas[f"image_encoder.{block.name}.{name}"] = block.fused(turned.unbind())
        return deltas

    def factors(self, sam: Sam) -> dict[str, Factors]:
        """The residuals as one pair for each block's projection, with a rank for every head."""
        biases, products = self.deltas(sam), {}
        for i, updates in self.updates.items():
            block = sam.image_encoder.blocks[int(i)]
            name = weight_name(block)
            weight = block.get_parameter(f"{block.places['qkv']}.weight")
            parts = [getattr(updates, part) for part in "qkv"]
            heads = torch.stack(block.parts(weight)).unflatten(1, (block.heads, -1))  # 3 heads D in
            turn = torch.stack([each.a for each in parts])[:, None].mT  # 3 1 r D
            back = torch.block_diag(*(p.b.mT * p.scale for p in parts for _ in range(block.heads)))
            b = block.fused(back.unflatten(0, (3, -1)).unbind())
            bias = biases[f"{name.removesuffix('weight')}bias"]
            products[name] = Factors((turn @ heads).flatten(0, 2), b, bias=bias)
        return products
