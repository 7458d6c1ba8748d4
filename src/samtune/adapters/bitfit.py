r"""BitFit (Ben Zaken et al. 2022, arXiv:2106.10199): the biases are trained, the weights are not.

Of every operation :math:`W x + b` of a block, and of its two norms, :math:`b` is trained, starting
from the base's value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from samtune.adapters.base import ADAPTERS
from samtune.adapters.block_tensors import (
    PLACES,
    AnyBlock,
    TunedTensors,
    chosen_parts,
    places_of,
)
from samtune.adapters.lora import PARTS
from samtune.sam.model import Sam
from samtune.sam.tiny_vit import Block as TinyBlock

QKV = "attn.qkv.bias"


@ADAPTERS.register("bitfit")
class BitFit(TunedTensors):
    """Trains the blocks' biases; exact identity at the start, mergeable."""

    paper = "Ben Zaken et al. 2022, arXiv:2106.10199"
    sits = "the biases of every block"
    forms: ClassVar = {"paper": {"which": "q+lin1"}}
    encoders = ("vit", "tiny_vit")

    @dataclass(frozen=True)
    class Config:
        """Options of :class:`BitFit`."""

        which: str = "all"
        """``all`` biases, or some of ``q``, ``k``, ``v``, ``norm1``, ``proj``, ``norm2``, ``lin1``,
        ``lin2`` joined by ``+``; the paper's small subset is ``q+lin1``. A bias of keys has no
        effect, for attention ignores what is the same for all keys."""
        blocks: tuple[int, ...] | str = "all"
        """``all``, ``global``, ``windowed``, or block indices (negative ones count from the
        end)."""

    def __init__(self, sam: Sam, config: Config) -> None:
        operations = [part for part in PLACES if part != "qkv"]
        parts = chosen_parts("which", config.which, [*PARTS, *operations])
        self.thirds = [PARTS[part] for part in parts if part in PARTS]
        places = places_of(sam)
        names = [f"{places[part]}.bias" for part in parts if part not in PARTS]
        super().__init__(sam, config.blocks, [QKV] * bool(self.thirds) + names)

    def start(self, name: str, block: AnyBlock) -> Tensor:
        """A copy of a bias; of the fused projection's, only the chosen thirds."""
        bias = super().start(name, block)
        return torch.cat([_thirds(block, bias)[k] for k in self.thirds]) if name == QKV else bias

    def replaced(self, i: int, block: AnyBlock) -> dict[str, Tensor]:
        """The trained biases of block ``i``, with the frozen thirds of a projection filled in."""
        biases = super().replaced(i, block)
        if self.thirds:
            rows = _thirds(block, block.attn.qkv.bias)
            for third, own in zip(self.thirds, biases[QKV].chunk(len(self.thirds)), strict=True):
                rows[third] = own
            joined = torch.cat(rows)
            biases[QKV] = block.attn.by_head(joined) if isinstance(block, TinyBlock) else joined
        return biases


def _thirds(block: AnyBlock, bias: Tensor) -> list[Tensor]:
    """The biases ``(C,)`` of queries, keys and values, out of a projection's."""
    # TinyViT's stand head by head.
    return list((block.attn.by_part(bias) if isinstance(block, TinyBlock) else bias).chunk(3))
