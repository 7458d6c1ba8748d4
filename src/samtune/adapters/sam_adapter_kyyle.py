r"""SAM-Adapter as Kyyle2114 implements it: prompts before the first block and after every block.

.. math:: P_i = W_{up}\, \mathrm{GELU}(W_i F + b_i) + b_{up}, \; i = 0 \ldots D, \quad
    F = W_{pe}\, x_{pos} + W_{hfc}\, \mathrm{patches}(|\mathrm{highpass}(I)|)

The idea is that of ``sam_adapter`` (Chen et al. 2023, arXiv:2304.09148). The differences: the
patches carry their positions (:math:`x_{pos}`), the widths are fixed (192, then 32) instead of a
fraction of the encoder's, there is one more prompt, after the last block, and layers have torch's
default initialisation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from samtune.adapters.base import ADAPTERS, Adapter
from samtune.adapters.sam_adapter import HighPassPatches, PromptFeatures
from samtune.options import Count, Fraction
from samtune.sam.encoder import Encoder
from samtune.sam.model import Sam


@ADAPTERS.register("sam_adapter_kyyle")
class SamAdapterKyyle(Adapter):
    """SAM-Adapter with wider features, positions in them, and a prompt before the neck.

    Not an identity at the start: the shared up-projection starts as an ordinary linear layer, so
    the first prompts change the stream (by about 0.15 per value on ViT-B).
    """

    paper = "Kyyle2114 2024, SAM-Adapter-Pytorch-Implementation; Chen et al. 2023, arXiv:2304.09148"
    sits = "added to the stream before the first block and after every block"
    uses = ("uniform",)
    identity_at_init = False
    changes_at_start = "the shared up-projection starts as an ordinary linear layer, not at zero"

    @dataclass(frozen=True)
    class Config(Adapter.Config):
        """Options of :class:`SamAdapterKyyle`."""

        width: Count = 192
        """Width of the features from which all prompts are made."""
        hidden: Count = 32
        """Width of each prompt's hidden layer."""
        rate: Fraction = 0.25
        """Fraction of the spectrum, around frequency zero, that is removed from the image."""

    def __init__(self, sam: Sam, config: Config) -> None:
        super().__init__()
        encoder = sam.image_encoder
        self.high_pass = HighPassPatches(encoder.patch, config.width, config.rate)
        self.embedding = nn.Linear(encoder.dim, config.width)
        prompts = len(encoder.blocks) + 1
        self.tune = nn.ModuleList(nn.Linear(config.width, config.hidden) for _ in range(prompts))
        self.up = nn.Linear(config.hidden, encoder.dim)

    def begin(
        self, encoder: Encoder, pixels: Tensor, x: Tensor, tokens: Tensor | None
    ) -> PromptFeatures:
        """The features of the image, from its patches with their positions."""
        return PromptFeatures(self.embedding(x) + self.high_pass(pixels))

    def prompt(self, i: int, state: PromptFeatures) -> Tensor:
        """Prompt ``i`` of an image, ``(B, H, W, C)``."""
        return self.up(F.gelu(self.tune[i](state.tokens)))

    def enter(self, i: int, x: Tensor, state: PromptFeatures) -> Tensor:
        """Adds the first prompt before block 0."""
        return x + self.prompt(0, state) if i == 0 else x

    def leave(self, i: int, x: Tensor, state: PromptFeatures) -> Tensor:
        """Adds the next prompt to the output of block ``i``."""
        return x + self.prompt(i + 1, state)
