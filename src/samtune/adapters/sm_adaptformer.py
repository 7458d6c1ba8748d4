r"""SM-AdaptFormer (arXiv:2408.12406): AdaptFormer with a pyramid of convolutions inside.

.. math::
    x &\leftarrow x + \mathrm{MLP}(n) + s \, W_2\, P(\mathrm{GELU}(W_1 n)), \quad
    n = \mathrm{LN}(x) \\
    P(z) &= z + \mathrm{ReLU}(K_1 z) + \sum_{d} \mathrm{ReLU}(K_d z)
    + \mathrm{ReLU}(K_p\, \bar z), \quad d = 12, 24, 36

with :math:`3 \times 3` convolutions :math:`K` of dilation :math:`d`, a :math:`1 \times 1` one on
the mean :math:`\bar z` over the image, and neither bias nor norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from samtune.adapters.base import ADAPTERS, Adapter
from samtune.errors import InputError
from samtune.sam.edits import BlockEdits
from samtune.sam.model import Sam

DILATIONS = (1, 12, 24, 36)


class Pyramid(nn.Module):
    """Sums a map, its convolutions at four dilations, and a convolution of its mean."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dilated = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=d, dilation=d, bias=False) for d in DILATIONS
        )
        self.pooled = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, H, W, c)`` to the same."""
        z = x.permute(0, 3, 1, 2)
        out = z + self.pooled(z.mean((2, 3), keepdim=True)).relu()
        for conv in self.dilated:
            out = out + conv(z).relu()
        return out.permute(0, 2, 3, 1)


class Bottleneck(nn.Module):
    """Down, GELU, optionally a pyramid over the grid, up; PyTorch's initialisation.

    Args:
        dim: Width ``C`` of the tokens.
        hidden: Width of the bottleneck.
        scale: Weight of the branch.
        pyramid: Whether the tokens are mixed over the grid inside.
    """

    def __init__(self, dim: int, hidden: int, scale: float = 1.0, pyramid: bool = False) -> None:
        super().__init__()
        self.down = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.pyramid = Pyramid(hidden) if pyramid else None
        self.up = nn.Linear(hidden, dim)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """``(B, H, W, C)`` to the branch's ``(B, H, W, C)``."""
        hidden = self.act(self.down(x))
        if self.pyramid is not None:
            hidden = self.pyramid(hidden)
        return self.scale * self.up(hidden)


@ADAPTERS.register("sm_adaptformer")
class SMAdaptFormer(Adapter):
    """A bottleneck with dilated convolutions beside every MLP.

    The published form starts at PyTorch's random initialisation, so a fresh adapter changes the
    embedding; with ``zero_init`` its output starts at zero.
    """

    paper = "Kato et al. 2024 (Generalized SAM), arXiv:2408.12406"
    sits = "beside every MLP"
    uses = ("mlp",)
    forms: ClassVar = {"zero_init": {"zero_init": True}}
    identity_at_init = False
    changes_at_start = "up-projections start at random as published; zero_init starts them at zero"

    @dataclass(frozen=True)
    class Config(Adapter.Config):
        """Options of :class:`SMAdaptFormer`."""

        ratio: float = 0.25
        """Width of each bottleneck as a fraction of its block's."""
        scale: float = 0.5
        """Weight of the branch."""
        zero_init: bool = False
        """Start the up-projections at zero, so that the untrained encoder equals SAM's."""

    def __init__(self, sam: Sam, config: Config) -> None:
        super().__init__()
        bottlenecks = []
        for block in sam.image_encoder.blocks:
            hidden = bottleneck_width(block.dim, config.ratio)
            bottlenecks.append(Bottleneck(block.dim, hidden, config.scale, pyramid=True))
        self.identity_at_init = config.zero_init  # type: ignore[misc]
        if config.zero_init:
            for bottleneck in bottlenecks:
                nn.init.zeros_(bottleneck.up.weight)
                nn.init.zeros_(bottleneck.up.bias)
        self.bottlenecks = nn.ModuleList(bottlenecks)

    def edits(self, i: int, state: None) -> BlockEdits:
        """The branch beside the MLP of block ``i``."""
        return BlockEdits(mlp=self.bottlenecks[i])


def bottleneck_width(dim: int, ratio: float) -> int:
    """A fraction of the width ``dim``, rounded down.

    Raises:
        InputError: The width rounds down to 0.
    """
    if int(dim * ratio) < 1:
        raise InputError(
            f"adapter.ratio={ratio}: gives width 0 for a width of {dim}; set a larger fraction"
        )
    return int(dim * ratio)
