r"""CAT-SAM (Xiao et al. 2024, arXiv:2402.03631): the decoder's token prompts the image encoder.

Both variants read the high-quality token :math:`h` of the ``hq`` decoder through a *prompt bridge*;
the token is the decoder's own parameter and is not detached, so it gets gradients from both sides.

``cat_sam_t`` makes one prompt token for each block, a key and value of every window:

.. math:: t_i = W^{(2)}_i\, \mathrm{GELU}(W^{(1)}_i h + b^{(1)}_i) + b^{(2)}_i

``cat_sam_a`` is ``sam_adapter`` with one more summand, a map over the token grid whose channel
:math:`j` comes from the :math:`j`-th down-projection:

.. math:: F = W_{pe}\, \mathrm{patches}(I) + \mathrm{conv}(|\mathrm{highpass}(I)|) + b, \quad
    b_{\cdot j} = W_{up}\, \mathrm{GELU}(W_j h + b_j) + b_{up}
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samtune.adapters.base import ADAPTERS, Adapter
from samtune.adapters.sam_adapter import PromptFeatures, SamAdapter
from samtune.errors import InputError
from samtune.ops import resize
from samtune.options import Count, Fraction
from samtune.sam.edits import BlockEdits
from samtune.sam.encoder import Encoder
from samtune.sam.model import Sam


@ADAPTERS.register("cat_sam_t")
class CatSamT(Adapter):
    """Prompt tokens from the decoder's token, in the attention of every block.

    Not an identity at the start: the bridges are initialised as ordinary linear layers and have no
    gate, so the first token takes attention from the image at once.
    """

    paper = "Xiao et al. 2024, arXiv:2402.03631"
    sits = "a token in every window's keys and values"
    uses = ("tokens",)
    identity_at_init = False
    changes_at_start = (
        "all windows attend to the token without a gate, and its bridge starts as an ordinary layer"
    )
    decoders = ("hq",)

    @dataclass(frozen=True)
    class Config(Adapter.Config):
        """Options of :class:`CatSamT`."""

        hidden: Count = 64
        """Width between the two layers of each bridge."""

    def __init__(self, sam: Sam, config: Config) -> None:
        super().__init__()
        token, hidden = sam.spec.prompt_dim, config.hidden
        self.bridges = nn.ModuleList(
            nn.Sequential(nn.Linear(token, hidden), nn.GELU(), nn.Linear(hidden, block.dim_in))
            for block in sam.image_encoder.blocks
        )

    def begin(self, encoder: Encoder, pixels: Tensor, x: Tensor, tokens: Tensor | None) -> Tensor:
        """The decoder's token ``(1, prompt_dim)``; it does not depend on the image."""
        return _token_of(self, tokens)

    def edits(self, i: int, state: Tensor) -> BlockEdits:
        """The prompt token of block ``i``, computed from the decoder's token."""
        return BlockEdits(tokens=self.bridges[i](state))


@ADAPTERS.register("cat_sam_a")
class CatSamA(SamAdapter):
    """SAM-Adapter's prompts before every block, plus a map from the decoder's token.

    Not an identity at the start: neither the shared up-projection nor the bridge is zero.
    """

    paper = "Xiao et al. 2024, arXiv:2402.03631"
    sits = "added to the stream before every block"
    identity_at_init = False
    changes_at_start = "neither the shared up-projection nor the bridge starts at zero"
    decoders = ("hq",)

    @dataclass(frozen=True)
    class Config(Adapter.Config):
        """Options of :class:`CatSamA`."""

        scale_factor: Count = 32
        """Divisor of the encoder's width that gives the inner width of the prompts."""
        rate: Fraction = 0.25
        """Fraction of the spectrum, around frequency zero, that is removed from the image."""
        hidden: Count = 32
        """Width between the two layers of each bridge."""

    def __init__(self, sam: Sam, config: Config) -> None:
        super().__init__(sam, SamAdapter.Config(config.scale_factor, config.rate, "fixed"))
        self.grid = sam.spec.grid
        self.bridge_down = nn.ModuleList(
            nn.Linear(sam.spec.prompt_dim, config.hidden)
            for _ in range(self.embedding.out_features)
        )
        self.bridge_up = nn.Linear(config.hidden, self.grid[0] * self.grid[1])

    def begin(
        self, encoder: Encoder, pixels: Tensor, x: Tensor, tokens: Tensor | None
    ) -> PromptFeatures:
        """The sum of the image's features and the decoder's token features."""
        image = super().begin(encoder, pixels, x, tokens).tokens
        # The bridge writes the native grid; for another grid its map is resampled as the positions
        # are.
        bridge = resize.positions(self.bridge(_token_of(self, tokens)), (x.shape[1], x.shape[2]))
        return PromptFeatures(image + bridge)

    def bridge(self, token: Tensor) -> Tensor:
        """The token ``(1, prompt_dim)`` as a map over the native grid, ``(1, H, W, T)``."""
        hidden = torch.cat([F.gelu(down(token)) for down in self.bridge_down])
        return self.bridge_up(hidden).T.unflatten(0, self.grid)[None]


def _token_of(adapter: Adapter, tokens: Tensor | None) -> Tensor:
    if tokens is None:
        raise InputError(f"{adapter.name}: this decoder offers no token; use the decoder hq")
    return tokens
