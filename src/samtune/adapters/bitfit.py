r"""BitFit (Ben Zaken et al. 2022, arXiv:2106.10199): the biases are trained, the weights are not.

Of every operation :math:`W x + b` of a block, and of its two norms, :math:`b` is trained, starting
from the base's value.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from samtune.adapters.base import ADAPTERS
from samtune.adapters.block_tensors import PLACES, TunedTensors, chosen_parts
from samtune.adapters.lora import PARTS
from samtune.sam.image_encoder import Block
from samtune.sam.model import Sam

QKV = "attn.qkv.bias"


@ADAPTERS.register("bitfit")
class BitFit(TunedTensors):
    """Trains the blocks' biases; exact identity at the start, mergeable."""

    paper = "Ben Zaken et al. 2022, arXiv:2106.10199"
    sits = "the biases of every block"

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
        names = [f"{PLACES[part]}.bias" for part in parts if part not in PARTS]
        super().__init__(sam, config.blocks, [QKV] * bool(self.thirds) + names)

    def start(self, name: str, block: Block) -> Tensor:
        """A copy of a bias; of the fused projection's, only the chosen thirds."""
        bias = super().start(name, block)
        return bias.unflatten(0, (3, -1))[self.thirds].flatten() if name == QKV else bias

    def replaced(self, i: int, block: Block) -> dict[str, Tensor]:
        """The trained biases of block ``i``, with the frozen thirds of a projection filled in."""
        biases = super().replaced(i, block)
        if len(self.thirds) in (1, 2):
            rows = list(block.attn.qkv.bias.chunk(3))
            for third, own in zip(self.thirds, biases[QKV].chunk(len(self.thirds)), strict=True):
                rows[third] = own
            biases[QKV] = torch.cat(rows)
        return biases
