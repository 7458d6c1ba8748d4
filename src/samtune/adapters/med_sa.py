r"""The Medical SAM Adapter's block for images (Wu et al. 2023, arXiv:2304.12620).

Two bottlenecks in every block: one in series with the attention, before its residual connection,
and one beside the MLP, scaled:

.. math::
    a &= \mathrm{Attn}(\mathrm{LN}(x)), \quad x \leftarrow x + a + A_1(a) \\
    n &= \mathrm{LN}(x), \quad x \leftarrow x + \mathrm{MLP}(n) + s \, A_2(n) \\
    A(z) &= W_{up}\, \mathrm{ReLU}(W_{down}\, z)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from samtune.adapters.adaptformer import AdaptFormer, Bottleneck
from samtune.adapters.base import ADAPTERS, Adapter
from samtune.adapters.sm_adaptformer import bottleneck_width
from samtune.sam.edits import BlockEdits
from samtune.sam.model import Sam


class Series(nn.Module):
    """A bottleneck in series: its output is added to its input."""

    def __init__(self, dim: int, config: AdaptFormer.Config) -> None:
        super().__init__()
        self.bottleneck = Bottleneck(dim, config)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., C)`` to ``(..., C)``."""
        return x + self.bottleneck(x)


@ADAPTERS.register("med_sa")
class MedSA(Adapter):
    """Bottlenecks after the attention and beside the MLP; exact identity at the start."""

    paper = "Wu et al. 2023, arXiv:2304.12620"
    sits = "after every attention and beside every MLP"
    uses = ("attended", "mlp")
    forms: ClassVar = {"gelu": {"activation": "gelu", "zero_init": False}}
    changes_at_start = "without zero_init the up-projections start at random"

    @dataclass(frozen=True)
    class Config(Adapter.Config):
        """Options of :class:`MedSA`."""

        ratio: float = 0.25
        """Width of the bottlenecks as a fraction of the encoder's."""
        scale: float = 0.5
        """Weight of the bottleneck beside the MLP."""
        activation: Literal["relu", "gelu"] = "relu"
        """Activation between the down- and up-projection: ``relu`` or ``gelu``."""
        zero_init: bool = True
        """Start the up-projections at zero, so that the untrained encoder equals SAM's; otherwise
        they start at PyTorch's random initialisation."""

    def __init__(self, sam: Sam, config: Config) -> None:
        super().__init__()
        self.identity_at_init = config.zero_init  # type: ignore[misc]
        self.attention, self.mlp = nn.ModuleList(), nn.ModuleList()
        blocks = sam.image_encoder.blocks
        for dim in (block.dim for block in blocks):
            series, beside = (
                AdaptFormer.Config(
                    bottleneck_width(dim, config.ratio),
                    scale,
                    activation=config.activation,
                    zero_init=config.zero_init,
                )
                for scale in (1.0, config.scale)
            )
            self.attention.append(Series(dim, series))
            self.mlp.append(Bottleneck(dim, beside))

    def edits(self, i: int, state: None) -> BlockEdits:
        """The two bottlenecks of block ``i``."""
        return BlockEdits(attended=self.attention[i], mlp=self.mlp[i])
