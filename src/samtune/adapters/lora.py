r"""LoRA (Hu et al. 2021, arXiv:2106.09685) on the fused query-key-value projection of each block.

.. math:: W' = W + \frac{\alpha}{r} B A, \quad A \sim \mathrm{Kaiming}, \; B = 0

Two forms are common on SAM and differ: one pair for the whole projection (``qkv``, as PEFT's LoRA
on ``SamModel``), and one pair each for queries and for values (``q+v``, SAMed, arXiv:2304.13785).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from samtune.adapters.base import ADAPTERS, Adapter, Factors
from samtune.errors import InputError
from samtune.options import Count, Rate
from samtune.sam.edits import NONE, BlockEdits
from samtune.sam.encoder import EncoderBlock
from samtune.sam.model import Sam

PARTS = {"q": 0, "k": 1, "v": 2}


class LowRank(nn.Module):
    """A low-rank update added to some parts of a ``dim -> 3C`` projection.

    Args:
        dim: Width of the tokens that are projected.
        out: ``C``, the width of queries, keys and values each.
        slots: The thirds that each pair writes to: ``[(0, 1, 2)]`` for one pair over all,
            ``[(0,), (2,)]`` for separate pairs on queries and on values.
        rank: Width of the bottleneck.
        alpha: The update is scaled by ``alpha / rank``, so that its size does not depend on the
            rank.
        dropout: Dropout rate on the update's input in training.
    """

    former_names: ClassVar = {r"down\.(\d)": r"a.\1", r"up\.(\d)": r"b.\1"}

    def __init__(
        self,
        dim: int,
        out: int,
        slots: list[tuple[int, ...]],
        rank: int,
        alpha: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.slots, self.out, self.scale = slots, out, alpha / rank
        self.a = nn.ParameterList(torch.empty(rank, dim) for _ in slots)
        self.b = nn.ParameterList(torch.zeros(len(slot) * out, rank) for slot in slots)
        for a in self.a:
            nn.init.kaiming_uniform_(a, a=math.sqrt(5))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``(b, h, w, dim)`` normed tokens to the ``(b, h, w, 3C)`` update."""
        x = self.dropout(x)
        return self.place([x @ a.T @ b.T for a, b in zip(self.a, self.b, strict=True)])

    def place(self, updates: list[Tensor]) -> Tensor:
        """Writes each pair's scaled output to its thirds of ``(..., 3C)``."""
        parts = [updates[0].new_zeros(())] * 3
        for slot, update in zip(self.slots, updates, strict=True):
            for third, part in zip(slot, (update * self.scale).split(self.out, -1), strict=True):
                parts[third] = part
        shape = (*updates[0].shape[:-1], self.out)
        return torch.cat([part.expand(shape) for part in parts], -1)

    def factors(self, block: EncoderBlock) -> Factors:
        """All pairs as one of their joint rank, in the block's own order of rows."""
        ranks = [len(a) for a in self.a]
        b = self.a[0].new_zeros(3, self.out, sum(ranks))
        for slot, rows, columns in zip(
            self.slots, self.b, torch.arange(sum(ranks)).split(ranks), strict=True
        ):
            for third, part in zip(slot, rows.split(self.out), strict=True):
                b[third][:, columns] = part
        return Factors(torch.cat(list(self.a)), block.fused(b.unbind()), self.scale)

    def weight(self) -> Tensor:
        """The update as a ``(3C, dim)`` matrix."""
        full = self.a[0].new_zeros(3, self.out, self.a[0].shape[1])
        for slot, a, b in zip(self.slots, self.a, self.b, strict=True):
            for third, rows in zip(slot, (b @ a * self.scale).split(self.out), strict=True):
                full[third] = rows
        return full.flatten(0, 1)


def chosen_blocks(choice: tuple[int, ...] | str, sam: Sam) -> set[int]:
    """Returns the block indices for ``all``, ``global``, ``windowed`` or a list of indices.

    Raises:
        InputError: An index that the base does not have.
    """
    blocks = sam.image_encoder.blocks
    if isinstance(choice, str):
        kinds = {
            "all": lambda b: True,
            "global": lambda b: not b.window,
            "windowed": lambda b: bool(b.window),
        }
        if choice not in kinds:
            raise InputError(
                f"adapter.blocks={choice}: must be all, global, windowed or a list of indices"
            )
        chosen = {i for i, block in enumerate(blocks) if kinds[choice](block)}
        if not chosen:
            raise InputError(f"adapter.blocks={choice}: {sam.spec.name} has no such block; set all")
        return chosen
    wrong = [i for i in choice if not -len(blocks) <= i < len(blocks)]
    if wrong:
        raise InputError(
            f"adapter.blocks={list(choice)}: {wrong[0]} is no block of {sam.spec.name}, "
            f"which has 0 to {len(blocks) - 1}"
        )
    return {i % len(blocks) for i in choice}


@dataclass(frozen=True)
class LowRankConfig(Adapter.Config):
    """Options of low-rank updates of the projections."""

    target: str = "q+v"
    """``qkv`` for one pair over the fused projection, or several projections with one pair each:
    ``q+v``, ``q+k+v``, ..."""
    rank: Count = 4
    """Width of the low-rank bottleneck."""
    alpha: float | None = None
    """The update is scaled by alpha / rank; by default alpha is the rank."""
    blocks: tuple[int, ...] | str = "all"
    """``all``, ``global``, ``windowed``, or block indices (negative ones count from the end)."""

    @property
    def scaled_by(self) -> float:
        """Alpha, which is the rank by default."""
        return float(self.rank if self.alpha is None else self.alpha)


@ADAPTERS.register("lora")
class LoRA(Adapter):
    """Low-rank updates of the attention projections; exact identity at the start, mergeable."""

    paper = "Hu et al. 2021, arXiv:2106.09685; SAMed: Zhang and Liu 2023, arXiv:2304.13785"
    sits = "query and value projections, or others (target)"
    uses = ("qkv",)
    forms: ClassVar = {"fused": {"target": "qkv"}, "qkv": {"target": "q+k+v", "rank": 8}}

    @dataclass(frozen=True)
    class Config(LowRankConfig):
        """Options of :class:`LoRA`."""

        dropout: Rate = 0.0
        """Dropout on the update's input while training."""

    def __init__(self, sam: Sam, config: Config) -> None:
        super().__init__()
        slots = self.slots(config.target)
        blocks = sam.image_encoder.blocks
        self.updates = nn.ModuleDict(
            {
                str(i): LowRank(
                    blocks[i].dim_in,
                    blocks[i].dim,
                    slots,
                    config.rank,
                    config.scaled_by,
                    config.dropout,
                )
                for i in sorted(chosen_blocks(config.blocks, sam))
            }
        )

    @staticmethod
    def slots(target: str) -> list[tuple[int, ...]]:
        """The thirds of the projection that each pair of a ``target`` writes to.

        Raises:
            InputError: An unknown target.
        """
        if target == "qkv":
            return [(0, 1, 2)]
        parts = target.split("+")
        if not set(parts) <= PARTS.keys() or len(set(parts)) != len(parts):
            raise InputError(
                f"adapter.target={target}: must be qkv, or one or more of q, k, v joined by +"
            )
        return [(PARTS[part],) for part in parts]

    def first_block(self, depth: int) -> int:
        """The first of the chosen blocks."""
        return min([*map(int, self.updates), depth])

    def edits(self, i: int, state: None) -> BlockEdits:
        """The update of block ``i``, if it is adapted."""
        key = str(i)
        return BlockEdits(qkv=self.updates[key]) if key in self.updates else NONE

    def deltas(self, sam: Sam) -> dict[str, Tensor]:
        """The updates as weight differences of each block's fused projection."""
        deltas: dict[str, Tensor] = {}
        for i, update in self.updates.items():
            assert isinstance(update, LowRank)
            deltas.update(sam.image_encoder.projection_delta(int(i), update.weight()))
        return deltas

    def factors(self, sam: Sam) -> dict[str, Factors]:
        """The updates of each block's fused projection."""
        products = {}
        for i, update in self.updates.items():
            assert isinstance(update, LowRank)
            block = sam.image_encoder.blocks[int(i)]
            products[weight_name(block)] = update.factors(block)
        return products


def weight_name(block: EncoderBlock) -> str:
    """The official name of a block's projection to queries, keys and values."""
    return f"image_encoder.{block.name}.{block.places['qkv']}.weight"
