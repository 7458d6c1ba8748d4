r"""SSF (Lian et al. 2022, arXiv:2210.08823): scales and shifts the features after each operation.

.. math:: y \leftarrow \gamma \odot y + \beta

after the patch embedding and, in every block, after both norms and the four linear layers. Each of
them ends in :math:`W x + b`, or in a norm's gain and bias, so the paper merges it for inference:

.. math:: \gamma \odot (W x + b) + \beta = (\gamma \odot W)\, x + (\gamma \odot b + \beta)

Blocks use the merged form in training too, so that the features of a window's padding, which are
made after the norm, agree exactly with the merged weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from samtune.adapters.base import ADAPTERS
from samtune.adapters.block_tensors import BlockTensors, chosen_parts
from samtune.options import NotNegative
from samtune.sam.encoder import OPERATIONS, Encoder, EncoderBlock
from samtune.sam.model import Sam


class ScaleShift(nn.Module):
    """One scale and one shift per channel.

    Args:
        channels: Number of channels.
        std: Standard deviation of the scales around 1 and the shifts around 0 at the start.
    """

    def __init__(self, channels: int, std: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))
        if std:
            nn.init.normal_(self.scale, 1, std)
            nn.init.normal_(self.shift, 0, std)

    def fold_into(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Folds the scale and shift into an operation's weight ``(channels, ...)`` and bias."""
        scale = self.scale.reshape(-1, *[1] * (weight.dim() - 1))
        return scale * weight, self.scale * bias + self.shift


@ADAPTERS.register("ssf")
class SSF(BlockTensors):
    """Scales and shifts after each operation; exact identity at the start, mergeable."""

    paper = "Lian et al. 2022, arXiv:2210.08823"
    sits = "after the patch embedding and each operation of a block"
    uses = ("params", "patches")
    changes_at_start = "with std above 0, scales start around 1 and shifts around 0"

    @dataclass(frozen=True)
    class Config(BlockTensors.Config):
        """Options of :class:`SSF`."""

        which: str = "all"
        """``all``, or the operations to follow: one or more of ``patch``, ``norm1``, ``qkv``,
        ``proj``, ``norm2``, ``lin1``, ``lin2`` joined by ``+``."""
        std: NotNegative = 0.0
        """Standard deviation of the scales around 1 and the shifts around 0 at the start; with 0
        the untrained encoder equals SAM's."""
        blocks: tuple[int, ...] | str = "all"
        """``all``, ``global``, ``windowed``, or block indices (negative ones count from the
        end)."""

    def __init__(self, sam: Sam, config: Config) -> None:
        parts = chosen_parts("which", config.which, ["patch", *OPERATIONS])
        of_block = sam.image_encoder.blocks[0].places
        places = {part: of_block[part] for part in parts if part in OPERATIONS}
        terms = (f"{place}.{term}" for place in places.values() for term in ("weight", "bias"))
        super().__init__(sam, config.blocks, terms)
        self.identity_at_init = config.std == 0  # type: ignore[misc]
        self.patch = None
        if "patch" in parts:
            channels = sam.image_encoder.patch_projection.out_channels
            self.patch = ScaleShift(channels, config.std)
        self.places = places
        self.features = nn.ModuleDict()
        for i in self.blocks:
            block = sam.image_encoder.blocks[i]
            widths = {p: len(block.get_parameter(f"{n}.bias")) for p, n in self.places.items()}
            self.features[str(i)] = nn.ModuleDict(
                {part: ScaleShift(width, config.std) for part, width in widths.items()}
            )

    def embed(self, encoder: Encoder, pixels: Tensor) -> Tensor:
        """Patches, scaled and shifted, and positions: ``(B, 3, h, w) -> (B, H, W, C)``."""
        x = encoder.embed(pixels)
        if self.patch is None:
            return x
        return x + (self.patch.scale - 1) * encoder.patch_embed(pixels) + self.patch.shift

    def replacements(self, i: int, block: EncoderBlock) -> dict[str, Tensor]:
        """Weight and bias of the operations of block ``i``, scaled and shifted."""
        tensors: dict[str, Tensor] = {}
        for part, features in self.features[str(i)].items():  # type: ignore[operator]
            names = [f"{self.places[part]}.{term}" for term in ("weight", "bias")]
            new = features.fold_into(*(block.get_parameter(name) for name in names))
            tensors.update(zip(names, new, strict=True))
        return tensors

    def deltas(self, sam: Sam) -> dict[str, Tensor]:
        """The differences of the tensors of the blocks and of the patch embedding."""
        deltas = super().deltas(sam)
        if self.patch is not None:
            base = sam.image_encoder.patch_projection
            assert base.bias is not None
            weight, bias = self.patch.fold_into(base.weight, base.bias)
            prefix = "image_encoder.patch_embed.proj"
            deltas[f"{prefix}.weight"] = weight - base.weight
            deltas[f"{prefix}.bias"] = bias - base.bias
        return deltas
