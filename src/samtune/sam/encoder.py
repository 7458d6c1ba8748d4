"""The interface of an image encoder, and the words for the abilities that it offers to adapters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn

from samtune.registry import Registry
from samtune.sam.edits import NONE, BlockEdits

if TYPE_CHECKING:
    from samtune.sam.spec import SamSpec

Ability = Literal[
    "qkv",
    "heads",
    "tokens",
    "attended",
    "mlp",
    "params",
    "norm",
    "uniform",
    "patches",
    "positions",
    "tables",
]

ABILITIES: Mapping[Ability, str] = {
    "qkv": "blocks whose projection takes an addition",
    "heads": "blocks whose heads can be changed",
    "tokens": "blocks that attend to extra tokens",
    "attended": "blocks whose attention's output can be changed",
    "mlp": "blocks that take a branch beside the MLP",
    "params": "blocks whose tensors can be replaced",
    "norm": "batch normalisations that can be replaced",
    "uniform": "blocks of one width and one grid",
    "patches": "patches that one convolution projects",
    "positions": "absolute positions",
    "tables": "tables of relative positions",
}
"""The abilities that an encoder may offer and an adapter may use, each as the object of "needs".

The first seven are the fields of :class:`~samtune.sam.edits.BlockEdits`. The others:

- ``uniform``: the stream has one width and one grid from the first block to the last; with
  ``tokens``, blocks can also carry tokens on (:meth:`EncoderBlock.carry`);
- ``patches``: ``patch_embed`` maps pixels to the first stream before positions are added, by the
  convolution :attr:`Encoder.patch_projection`;
- ``positions``: ``pos_embed``, ``(1, H, W, C)`` at the native grid, is added to the patches;
- ``tables``: every block has the parameters ``attn.rel_pos_h`` and ``attn.rel_pos_w``.
"""

OPERATIONS = ("norm1", "qkv", "proj", "norm2", "lin1", "lin2")
"""The operations of a block that have a weight and a bias, in their order, by short names."""


class EncoderBlock:
    """One frozen block of the stream, as the forward loop runs it and as adapters see it.

    A block that is a module inherits from ``nn.Module`` first; the defaults here are those of a
    block whose projection has all queries first, then all keys, then all values.
    """

    name: str = ""
    """Its name within the encoder, with which the names of its parameters begin."""
    dim: int
    """Width ``C`` of its attention's output, of its MLP's input and of the stream after it."""
    heads: int
    """Number of attention heads."""
    window: int
    """Side of its windows in tokens; 0 for attention over the whole grid."""
    stride: int
    """Pixels from one token to the next in the stream after it."""
    places: ClassVar[Mapping[str, str]]
    """The modules of its :data:`OPERATIONS`, by their names within the block: the same in all
    blocks of an encoder."""

    @property
    def dim_in(self) -> int:
        """Width of the normed tokens that it projects."""
        return self.dim

    def __call__(self, x: Tensor, edits: BlockEdits = NONE) -> Tensor:
        """The next stream ``(B, H, W, C)``, with ``edits`` applied."""
        raise NotImplementedError

    def get_parameter(self, target: str) -> nn.Parameter:
        """A parameter by its name within the block."""
        raise NotImplementedError

    def get_submodule(self, target: str) -> nn.Module:
        """A module by its name within the block."""
        raise NotImplementedError

    def operation(self, short: str) -> nn.Module:
        """The module of one of its :data:`OPERATIONS`."""
        return self.get_submodule(self.places[short])

    def parts(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Splits rows ``(3C, ...)`` into those of queries, keys and values, ``(C, ...)`` each.

        Within each of the three the heads follow one another.
        """
        q, k, v = rows.chunk(3)
        return q, k, v

    def fused(self, parts: Sequence[Tensor]) -> Tensor:
        """The inverse of :meth:`parts`: rows ``(3C, ...)`` in the order of this projection."""
        return torch.cat(list(parts))

    def carry(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Returns the block's output for tokens ``(B, P, C)`` beside the stream ``(B, H, W, C)``.

        Raises:
            NotImplementedError: The encoder does not offer both ``tokens`` and ``uniform``.
        """
        raise NotImplementedError(f"{type(self).__name__} does not carry tokens on")


class Encoder(nn.Module):
    """An image encoder, run step by step by ``FineTuned.encode``: embed, blocks, neck.

    A subclass registers itself in :data:`ENCODERS`, is constructed as ``(spec)`` and names its
    parameters as the official files do.
    """

    name: ClassVar[str] = "unregistered"
    """Set by the registry; ``SamSpec.encoder`` chooses by it."""
    offers: ClassVar[frozenset[Ability]]
    """The abilities that adapters may use."""
    resize: ClassVar[Literal["longest", "stretch"]] = "longest"
    """How an image is fitted to the native square by default."""
    anchor: ClassVar[str]
    """The official name of a tensor that every file of such a base contains."""
    unused: ClassVar[Mapping[str, tuple[int, ...]]] = {}
    """Tensors of official files that no forward pass reads, with their shapes: they are left out of
    the model, and strict readers of other programs want them."""

    patch: int
    """Pixels from one token to the next in the first stream."""
    stride: int
    """The same in the image embedding; both sides of an input are multiples of it."""
    dim: int
    """Width of the last stream; of every stream if the encoder is ``uniform``."""
    blocks: Sequence[EncoderBlock]
    patch_embed: nn.Module
    pos_embed: Tensor
    neck: nn.Module

    def __init__(self, spec: SamSpec) -> None:
        super().__init__()
        self.stride = spec.patch_size

    def embed(self, pixels: Tensor, edits: BlockEdits = NONE) -> Tensor:
        """The first stream: ``(B, 3, h, w)`` normalised pixels to ``(B, H, W, C)``.

        Args:
            pixels: The model's input.
            edits: Only ``norm`` acts here, on the batch normalisations before the blocks.

        Raises:
            InputError: The stride does not divide ``h`` or ``w``.
        """
        raise NotImplementedError

    @property
    def norms(self) -> dict[str, nn.BatchNorm2d]:
        """Batch normalisations by the name that edits receive: that of a layer, as ``bn``.

        Empty if the encoder does not offer ``norm``.
        """
        return {}

    @property
    def patch_projection(self) -> nn.Conv2d:
        """The convolution ``patch_embed.proj`` of an encoder that offers ``patches``."""
        proj = self.patch_embed.get_submodule("proj")
        assert isinstance(proj, nn.Conv2d)
        return proj

    def apply_neck(self, x: Tensor) -> Tensor:
        """The last stream ``(B, H, W, C)`` to the image embedding ``(B, prompt_dim, H, W)``."""
        return self.neck(x.permute(0, 3, 1, 2))

    def projection_delta(self, i: int, update: Tensor) -> Mapping[str, Tensor]:
        """An update of block ``i``'s projection, by the name of the tensor that it is added to.

        Args:
            i: Index of the block.
            update: ``(3C, C)``, all queries first, then all keys, then all values.
        """
        block = self.blocks[i]
        key = f"image_encoder.{block.name}.{block.places['qkv']}.weight"
        return {key: block.fused(update.chunk(3))}

    def forward(self, pixels: Tensor) -> Tensor:
        """The plain encoder: ``(B, 3, h, w)`` normalised pixels to the image embedding."""
        x = self.embed(pixels)
        for block in self.blocks:
            x = block(x)
        return self.apply_neck(x)

    @classmethod
    def sizes(cls, state: Mapping[str, Tensor]) -> dict[str, int]:
        """Reads the fields of a specification from the tensors of a base, by official names.

        Args:
            state: Tensors, including the :attr:`anchor`.
        """
        return {}


ENCODERS: Registry[Encoder] = Registry("encoder", members="samtune.sam")
"""The kinds of image encoder by name; each is a module of this package, or registers itself."""
