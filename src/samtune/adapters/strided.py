"""Tokens 8 pixels apart on a base with larger patches: the common part of SAMUS and GSAM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch.nn.functional as F
from torch import Tensor, nn

from samtune.adapters.base import Adapter
from samtune.adapters.sm_adaptformer import Bottleneck, bottleneck_width
from samtune.errors import InputError
from samtune.options import Range
from samtune.sam.encoder import Encoder, EncoderBlock
from samtune.sam.model import Sam
from samtune.sam.spec import SamSpec

STRIDE = 8
"""Pixels from one token to the next."""
TABLES = ("attn.rel_pos_h", "attn.rel_pos_w")
"""Names of a block's relative position tables, within the block."""


def strided_patches(encoder: Encoder, pixels: Tensor) -> Tensor:
    """SAM's patch embedding with overlap: ``(B, 3, h, w)`` to ``(B, h // 8, w // 8, C)``.

    The image is first enlarged by the difference of patch and stride, so that there is one patch
    per stride.
    """
    proj, extra = encoder.patch_projection, encoder.patch - STRIDE
    if extra:
        size = (pixels.shape[-2] + extra, pixels.shape[-1] + extra)
        pixels = F.interpolate(pixels, size, mode="bilinear", align_corners=False)
    return F.conv2d(pixels, proj.weight, proj.bias, stride=STRIDE).permute(0, 2, 3, 1)


class RelativeTables(nn.Module):
    """A global block's relative positions, resampled to another side and trained."""

    def __init__(self, block: EncoderBlock, side: int) -> None:
        super().__init__()
        self.h, self.w = (
            nn.Parameter(
                F.interpolate(table.detach().T[None], 2 * side - 1, mode="linear")[0].T.contiguous()
            )
            for table in map(block.get_parameter, TABLES)
        )

    def params(self) -> dict[str, Tensor]:
        """The tables to use in place of the block's own."""
        return dict(zip(TABLES, (self.h, self.w), strict=True))


def global_blocks(sam: Sam) -> list[int]:
    """The indices of the blocks that attend to the whole grid."""
    return [i for i, block in enumerate(sam.image_encoder.blocks) if not block.window]


class StridedAdapter(Adapter):
    """Overlapping patches through a bottleneck, and relative positions of the finer grid.

    Args:
        sam: The base.
        config: The method's options.
    """

    identity_at_init = False
    changes_at_start = "patches overlap and lie 8 pixels apart, and the bottlenecks start at random"
    stride = STRIDE

    @dataclass(frozen=True)
    class Config(Adapter.Config):
        """Options of methods with tokens 8 pixels apart."""

        ratio: float = 0.25
        """Width of the bottlenecks as a fraction of the encoder's."""
        scale: float = 0.5
        """Weight of the bottlenecks beside the MLPs."""
        table_size: Annotated[int, Range(at_least=STRIDE, note=" pixels")] = 256
        """Side in pixels of the image that the relative positions are resampled for; for other
        image sizes they are resampled again on the fly."""

    @classmethod
    def check(cls, spec: SamSpec) -> None:
        """Refuses bases with patches under 8 pixels.

        Raises:
            InputError: Such a base.
        """
        if spec.patch_size < STRIDE:
            raise InputError(
                f"base.name={spec.name}: its patches of {spec.patch_size} pixels leave gaps at a "
                f"stride of {STRIDE}; choose another adapter"
            )

    def __init__(self, sam: Sam, config: Config) -> None:
        super().__init__()
        self.check(sam.spec)
        encoder, side = sam.image_encoder, config.table_size // STRIDE
        self.input = Bottleneck(encoder.dim, bottleneck_width(encoder.dim, config.ratio))
        self.tables = nn.ModuleDict(
            {str(i): RelativeTables(encoder.blocks[i], side) for i in global_blocks(sam)}
        )

    def embed(self, encoder: Encoder, pixels: Tensor) -> Tensor:
        """Overlapping patches through a bottleneck, without positions."""
        x = strided_patches(encoder, pixels)
        return x + self.input(x)
