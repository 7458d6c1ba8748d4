r"""SAM-Adapter (Chen et al. 2023, arXiv:2304.09148): prompts added to the stream before each block.

.. math:: P_i = W_{up}\, \mathrm{GELU}(W_i F + b_i) + b_{up}, \quad
    F = W_{pe}\, \mathrm{patches}(I) + \mathrm{conv}(|\mathrm{highpass}(I)|), \quad
    x_i = \mathrm{block}_i(x_{i-1} + P_i)

:math:`W_i` belongs to one block, :math:`W_{up}` is shared. Patches are taken before positions are
added. This is the authors' code; another published form is ``sam_adapter_kyyle``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from samtune.adapters.base import ADAPTERS, Adapter
from samtune.errors import InputError
from samtune.ops.frequency import high_pass
from samtune.options import Count, Fraction
from samtune.sam.encoder import Encoder
from samtune.sam.layers import PatchEmbed
from samtune.sam.model import Sam


@dataclass(frozen=True)
class PromptFeatures:
    """The features from which all prompts of one forward pass are made."""

    tokens: Tensor
    """``(B, H, W, T)``: the sum of patch features and high-frequency features."""


class HighPassPatches(nn.Module):
    """Projects patches of an image's high frequencies.

    Args:
        patch: Side of a patch in pixels.
        width: Width ``T`` of the projection.
        rate: Fraction of the spectrum around frequency zero that is removed.

    Raises:
        InputError: The width is below 1.
    """

    def __init__(self, patch: int, width: int, rate: float) -> None:
        super().__init__()
        if width < 1:
            raise InputError(
                f"adapter: prompts of width {width}; choose options that give at least 1"
            )
        self.embed = PatchEmbed(patch, width)
        self.rate = rate

    def forward(self, pixels: Tensor) -> Tensor:
        """``(B, 3, h, w)`` normalised pixels to ``(B, H, W, T)``."""
        return self.embed(high_pass(pixels, self.rate).to(pixels.dtype))


def mixed_cells(patches: Tensor) -> Tensor:
    """Reorders ``(B, H, W, C)`` as the published code does, which reads it as channels-first.

    An image's memory is read as ``(C, H * W)``, so feature ``c`` at cell ``n`` is number
    ``c * H * W + n`` of the channels-last array: every cell sees a mixture of cells and channels of
    the whole image.
    """
    b, h, w, c = patches.shape
    return patches.reshape(b, c, h * w).transpose(1, 2).reshape(b, h, w, c)


@ADAPTERS.register("sam_adapter")
class SamAdapter(Adapter):
    """Prompts from patch embedding and high frequencies before every block.

    Not an identity at the start: the shared up-projection is drawn with a standard deviation of
    0.02, so the first prompts are small (about 0.003) but not zero.
    """

    paper = "Chen et al. 2023, arXiv:2304.09148"
    sits = "added to the stream before every block"
    uses = ("uniform", "patches")
    forms: ClassVar = {"fixed": {"embedding_layout": "fixed"}}
    identity_at_init = False
    changes_at_start = (
        "the shared up-projection starts with a standard deviation of 0.02, not at zero"
    )

    @dataclass(frozen=True)
    class Config(Adapter.Config):
        """Options of :class:`SamAdapter`."""

        scale_factor: Count = 32
        """Divisor of the encoder's width that gives the inner width of the prompts."""
        rate: Fraction = 0.25
        """Fraction of the spectrum, around frequency zero, that is removed from the image."""
        embedding_layout: Literal["reference", "fixed"] = "reference"
        """How the patch embedding is read: ``reference``, the published code's mixture of cells
        over the whole image; ``fixed``, each cell from its own embedding, as the paper describes.
        """

    def __init__(self, sam: Sam, config: Config) -> None:
        super().__init__()
        encoder = sam.image_encoder
        width = encoder.dim // config.scale_factor
        self.high_pass = HighPassPatches(encoder.patch, width, config.rate)
        self.embedding = nn.Linear(encoder.dim, width)
        self.tune = nn.ModuleList(nn.Linear(width, width) for _ in encoder.blocks)
        self.up = nn.Linear(width, encoder.dim)
        self.mixes_cells = config.embedding_layout == "reference"
        self._initialise()

    def _initialise(self) -> None:
        for linear in (self.embedding, *self.tune, self.up):
            nn.init.trunc_normal_(linear.weight, std=0.02)  # type: ignore[arg-type]
            nn.init.zeros_(linear.bias)  # type: ignore[arg-type]
        conv = self.high_pass.embed.proj
        fan_out = conv.out_channels * math.prod(conv.kernel_size)
        nn.init.normal_(conv.weight, std=math.sqrt(2 / fan_out))
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def begin(
        self, encoder: Encoder, pixels: Tensor, x: Tensor, tokens: Tensor | None
    ) -> PromptFeatures:
        """The features of the image, from its patches before positions are added."""
        patches = encoder.patch_embed(pixels)
        embedded = self.embedding(mixed_cells(patches) if self.mixes_cells else patches)
        return PromptFeatures(embedded + self.high_pass(pixels))

    def prompt(self, i: int, state: PromptFeatures) -> Tensor:
        """Prompt ``i`` of an image, ``(B, H, W, C)``."""
        return self.up(F.gelu(self.tune[i](state.tokens)))

    def enter(self, i: int, x: Tensor, state: PromptFeatures) -> Tensor:
        """Adds the prompt of block ``i`` to the stream."""
        return x + self.prompt(i, state)
