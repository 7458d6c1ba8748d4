r"""BitFit (Ben Zaken et al. 2022, arXiv:2106.10199): the biases are trained, the weights are not.

The bias :math:`b` of every operation :math:`W x + b` of a block, and of its two norms, is trained
from the base's value on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from samtune.adapters.base import ADAPTERS
from samtune.adapters.block_tensors import TunedTensors, chosen_parts
from samtune.adapters.lora import PARTS
from samtune.sam.encoder import OPERATIONS, EncoderBlock
from samtune.sam.model import Sam


@ADAPTERS.register("bitfit")
class BitFit(TunedTensors):
    """Trains the blocks' biases; exact identity at the start, mergeable."""

    paper = "Ben Zaken et al. 2022, arXiv:2106.10199"
    sits = "the biases of every block"
    uses = ("params",)
    forms: ClassVar = {"paper": {"which": "q+lin1"}}

    @dataclass(frozen=True)
    class Config(TunedTensors.Config):
        """Options of :class:`BitFit`."""

        which: str = "all"
        """``all`` biases, or some of ``q``, ``k``, ``v``, ``norm1``, ``proj``, ``norm2``, ``lin1``,
        ``lin2`` joined by ``+``; the paper's small subset is ``q+lin1``. A bias of keys has no
        effect: attention ignores a term that all keys share."""
        blocks: tuple[int, ...] | str = "all"
        """``all``, ``global``, ``windowed``, or block indices (negative ones count from the
        end)."""

    def __init__(self, sam: Sam, config: Config) -> None:
        operations = [part for part in OPERATIONS if part != "qkv"]
        parts = chosen_parts("which", config.which, [*PARTS, *operations])
        self.thirds = [PARTS[part] for part in parts if part in PARTS]
        places = sam.image_encoder.blocks[0].places
        self.fused_bias = f"{places['qkv']}.bias"
        names = [f"{places[part]}.bias" for part in parts if part not in PARTS]
        super().__init__(sam, config.blocks, [self.fused_bias] * bool(self.thirds) + names)

    def start(self, name: str, block: EncoderBlock) -> Tensor:
        """Returns a copy of a bias; for the fused projection only the chosen thirds."""
        bias = super().start(name, block)
        if name != self.fused_bias:
            return bias
        thirds = block.parts(bias)
        return torch.cat([thirds[k] for k in self.thirds])

    def replacements(self, i: int, block: EncoderBlock) -> dict[str, Tensor]:
        """The trained biases of block ``i``, with the frozen thirds of a projection filled in."""
        biases = super().replacements(i, block)
        if self.thirds:
            thirds = list(block.parts(block.get_parameter(self.fused_bias)))
            tuned = biases[self.fused_bias].chunk(len(self.thirds))
            for third, bias in zip(self.thirds, tuned, strict=True):
                thirds[third] = bias
            biases[self.fused_bias] = block.fused(thirds)
        return biases
