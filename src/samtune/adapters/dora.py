r"""DoRA (Liu et al. 2024, arXiv:2402.09353) on the fused query-key-value projection of each block.

.. math:: W' = m \odot \frac{V}{\lVert V \rVert}, \quad V = W + \frac{\alpha}{r} B A, \quad
    m = \lVert W \rVert \text{ and } B = 0 \text{ at first}

Each row of a projection, which makes one feature of the queries, keys or values, is a direction and
a magnitude; the low-rank update turns the direction, and :math:`m` is trained separately. The norms
are those of rows of torch's ``(out, in)`` weights; the paper writes them as columns of the
transpose. As in its section 4.3 no gradient flows through the norm of :math:`V`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from samtune.adapters.base import ADAPTERS, Factors
from samtune.adapters.block_tensors import BlockTensors
from samtune.adapters.lora import LoRA, LowRank, LowRankConfig, weight_name
from samtune.sam.encoder import EncoderBlock
from samtune.sam.model import Sam


class WeightDecomposition(nn.Module):
    """The weights of a ``dim -> 3C`` projection, split into updated directions and magnitudes.

    Args:
        rows: ``(3C, dim)``, the frozen weights: all queries, then all keys, then all values.
        slots: The thirds that each pair of factors writes to, see :class:`LowRank`. Other rows stay
            as they are.
        rank: Width of the bottleneck.
        alpha: The update is scaled by ``alpha / rank``.
    """

    def __init__(self, rows: Tensor, slots: list[tuple[int, ...]], rank: int, alpha: float) -> None:
        super().__init__()
        out, dim = rows.shape[0] // 3, rows.shape[1]
        self.update = LowRank(dim, out, slots, rank, alpha, dropout=0.0)
        self.thirds = sorted(itertools.chain(*slots))
        norms = rows.detach().norm(dim=1).unflatten(0, (3, out))
        self.m = nn.Parameter(norms[self.thirds].clone())  # (thirds, C)

    def forward(self, rows: Tensor) -> Tensor:
        """Maps the frozen weights ``(3C, dim)`` to those that replace them."""
        directions = rows + self.update.weight()
        norms = directions.detach().norm(dim=1)
        scales = torch.ones_like(norms).unflatten(0, (3, -1))
        scales[self.thirds] = self.m / norms.unflatten(0, (3, -1))[self.thirds]
        return scales.flatten()[:, None] * directions


@ADAPTERS.register("dora")
class DoRA(BlockTensors):
    """LoRA with a trained magnitude per feature; exact identity at the start, mergeable."""

    paper = "Liu et al. 2024, arXiv:2402.09353"
    sits = "query and value projections, or others (target)"
    uses = ("params",)
    forms: ClassVar = {"fused": {"target": "qkv"}}

    @dataclass(frozen=True)
    class Config(LowRankConfig):
        """Options of :class:`DoRA`."""

    def __init__(self, sam: Sam, config: Config) -> None:
        blocks = sam.image_encoder.blocks
        super().__init__(sam, config.blocks, [f"{blocks[0].places['qkv']}.weight"])
        slots = LoRA.slots(config.target)
        self.projections = nn.ModuleDict(
            {
                str(i): WeightDecomposition(
                    self._rows(blocks[i]), slots, config.rank, config.scaled_by
                )
                for i in self.blocks
            }
        )

    def _rows(self, block: EncoderBlock) -> Tensor:
        """The frozen projection of a block, ``(3C, dim)``: queries, keys, values."""
        [name] = self.in_block
        return torch.cat(block.parts(block.get_parameter(name)))

    def replacements(self, i: int, block: EncoderBlock) -> dict[str, Tensor]:
        """The projection of block ``i`` with its magnitudes, in the block's own order of rows."""
        [name] = self.in_block
        return {name: block.fused(self.projections[str(i)](self._rows(block)).chunk(3))}

    def factors(self, sam: Sam) -> dict[str, Factors]:
        """The directions' updates, and the magnitudes of all rows: untouched ones keep theirs."""
        products = {}
        for i in self.blocks:
            block, part = sam.image_encoder.blocks[i], self.projections[str(i)]
            assert isinstance(part, WeightDecomposition)
            lengths = self._rows(block).norm(dim=1).unflatten(0, (3, -1))
            lengths[part.thirds] = part.m
            products[weight_name(block)] = replace(
                part.update.factors(block), magnitudes=block.fused(lengths.unbind())
            )
        return products
