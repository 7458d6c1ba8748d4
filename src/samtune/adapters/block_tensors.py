"""The common part of methods that replace tensors of a block by their own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from samtune.adapters.base import Adapter
from samtune.adapters.lora import chosen_blocks
from samtune.errors import InputError
from samtune.sam.edits import NONE, BlockEdits
from samtune.sam.encoder import Encoder, EncoderBlock
from samtune.sam.model import Sam


@dataclass(frozen=True)
class FrozenEncoder:
    """The base's encoder during one forward pass."""

    encoder: Encoder


class BlockTensors(Adapter):
    """Replaces tensors of the chosen blocks; a subclass only says by which values.

    Every edit is another value of one of SAM's tensors, so merging is exact.

    Args:
        sam: The base.
        blocks: ``all``, ``global``, ``windowed``, or block indices.
        names: The tensors, by their names within a block.
    """

    def __init__(self, sam: Sam, blocks: tuple[int, ...] | str, names: Iterable[str]) -> None:
        super().__init__()
        self.blocks, self.in_block = sorted(chosen_blocks(blocks, sam)), tuple(names)

    def first_block(self, depth: int) -> int:
        """The first of the chosen blocks."""
        return min(self.blocks, default=depth)

    def replaces(self) -> frozenset[str]:
        """The same tensors of each chosen block."""
        return frozenset(f"{i}.{name}" for i in self.blocks for name in self.in_block)

    def replacements(self, i: int, block: EncoderBlock) -> dict[str, Tensor]:
        """Returns the replacements for tensors of the frozen block ``i``, by name within it."""
        raise NotImplementedError

    def begin(
        self, encoder: Encoder, pixels: Tensor, x: Tensor, tokens: Tensor | None
    ) -> FrozenEncoder:
        """Keeps a reference to the frozen encoder for this pass."""
        return FrozenEncoder(encoder)

    def edits(self, i: int, state: FrozenEncoder) -> BlockEdits:
        """The replacements for the tensors of block ``i``, if it is chosen."""
        if i not in self.blocks:
            return NONE
        return BlockEdits(params=self.replacements(i, state.encoder.blocks[i]))

    def deltas(self, sam: Sam) -> dict[str, Tensor]:
        """The difference between each replacement and the base's tensor."""
        deltas = {}
        for i in self.blocks:
            block = sam.image_encoder.blocks[i]
            for name, tensor in self.replacements(i, block).items():
                deltas[f"image_encoder.{block.name}.{name}"] = tensor - block.get_parameter(name)
        return deltas


class TunedTensors(BlockTensors):
    """Trains copies of tensors of the chosen blocks, starting from the base's values.

    Args:
        sam: The base.
        blocks: ``all``, ``global``, ``windowed``, or block indices.
        names: The tensors, by their names within a block.
    """

    def __init__(self, sam: Sam, blocks: tuple[int, ...] | str, names: Iterable[str]) -> None:
        super().__init__(sam, blocks, names)
        self.names = {name.replace(".", "_"): name for name in self.in_block}
        self.tuned = nn.ModuleDict()
        for i in self.blocks:
            block = sam.image_encoder.blocks[i]
            copies = {k: nn.Parameter(self.start(n, block)) for k, n in self.names.items()}
            self.tuned[str(i)] = nn.ParameterDict(copies)

    def start(self, name: str, block: EncoderBlock) -> Tensor:
        """Returns the initial value of the trained tensor that replaces a frozen one: a copy."""
        return block.get_parameter(name).detach().clone()

    def replacements(self, i: int, block: EncoderBlock) -> dict[str, Tensor]:
        """The trained copies of block ``i``."""
        copies = self.tuned[str(i)]
        return {name: getattr(copies, key) for key, name in self.names.items()}


def chosen_parts(option: str, words: str, names: Iterable[str]) -> list[str]:
    """Returns the names that ``all``, or some joined by ``+``, stands for, as ``names`` is ordered.

    Raises:
        InputError: An unknown or a repeated name.
    """
    names = list(names)
    parts = names if words == "all" else words.split("+")
    if not set(parts) <= set(names) or len(set(parts)) < len(parts):
        raise InputError(
            f"adapter.{option}={words}: must be all, or some of {', '.join(names)} joined by +"
        )
    return [part for part in names if part in parts]
