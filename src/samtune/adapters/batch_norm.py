r"""Batch normalisation with batch statistics, as in published decoder tuning of MobileSAM.

.. math:: y = g\,\frac{x - \mu_B}{\sqrt{\sigma^2_B + \epsilon}} + b,
    \qquad \mu \leftarrow (1 - m)\,\mu + m\,\mu_B

In training :math:`\mu_B, \sigma^2_B` are the batch's; at inference the running statistics take
their place, as in torch. Kyyle2114's training puts the frozen TinyViT into that mode and does not
save the statistics; here the method owns them and saves them. Replacing the statistics by those of
a new domain is AdaBN (Li et al. 2016, arXiv:1603.04779).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor, nn

from samtune.adapters.base import ADAPTERS, Adapter
from samtune.options import PositiveFraction
from samtune.sam.edits import BlockEdits
from samtune.sam.encoder import Encoder
from samtune.sam.model import Sam


class Statistics(nn.Module):
    """Running statistics of one batch normalisation, which start from the base's."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, norm: nn.BatchNorm2d, momentum: float) -> None:
        super().__init__()
        assert norm.running_mean is not None and norm.running_var is not None
        self.register_buffer("running_mean", norm.running_mean.detach().clone())
        self.register_buffer("running_var", norm.running_var.detach().clone())
        self.momentum = momentum

    def forward(self, norm: nn.BatchNorm2d, x: Tensor, again: bool) -> Tensor:
        """Normalises ``(B, C, H, W)`` with gain and bias of ``norm``.

        Args:
            norm: The normalisation of the base.
            x: Its input.
            again: Whether the statistics already include this batch.
        """
        mean, var = self.running_mean, self.running_var
        if self.training and again:  # a block that runs again must save as many tensors as before
            mean, var = mean.clone(), var.clone()
        affine = norm.weight, norm.bias
        return F.batch_norm(x, mean, var, *affine, self.training, self.momentum, norm.eps)


@dataclass(frozen=True)
class ForwardPass:
    """The normalisations that one forward pass has run: blocks may run twice for gradients."""

    names: set[str] = field(default_factory=set)


@ADAPTERS.register("batch_norm")
class BatchNorm(Adapter):
    """Normalises TinyViT by each training batch and trains no weight; mergeable."""

    paper = "Li et al. 2016 (AdaBN), arXiv:1603.04779; Kyyle2114 2024, Fine-tuning-Segment-Anything"
    sits = "every batch normalisation of TinyViT"
    uses = ("norm",)
    changes_at_start = "in training the batch's statistics take the place of the base's"

    @dataclass(frozen=True)
    class Config(Adapter.Config):
        """Options of :class:`BatchNorm`."""

        momentum: PositiveFraction = 0.1
        """Weight of each batch in the running statistics."""

    def __init__(self, sam: Sam, config: Config) -> None:
        super().__init__()
        norms = sam.image_encoder.norms.items()
        self.statistics = nn.ModuleDict(
            {_key(name): Statistics(norm, config.momentum) for name, norm in norms}
        )

    def embed(self, encoder: Encoder, pixels: Tensor) -> Tensor:
        """The first stream, normalised with the method's statistics."""
        return encoder.embed(pixels, self._edits(ForwardPass()))

    def begin(
        self, encoder: Encoder, pixels: Tensor, x: Tensor, tokens: Tensor | None
    ) -> ForwardPass:
        """Starts a pass that has run no normalisation yet."""
        return ForwardPass()

    def edits(self, i: int, state: ForwardPass) -> BlockEdits:
        """The method's statistics in every normalisation of block ``i``."""
        return self._edits(state)

    def deltas(self, sam: Sam) -> dict[str, Tensor]:
        """The differences between its running statistics and the base's."""
        return {
            f"image_encoder.{name}.bn.{part}": getattr(self.statistics[_key(name)], part)
            - getattr(norm, part)
            for name, norm in sam.image_encoder.norms.items()
            for part in ("running_mean", "running_var")
        }

    def _edits(self, state: ForwardPass) -> BlockEdits:
        def normalise(name: str, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
            again = name in state.names
            if self.training:
                state.names.add(name)
            return self.statistics[_key(name)](norm, x, again)

        return BlockEdits(norm=normalise)


def _key(name: str) -> str:
    """Returns a module's name without dots, which parameter names may not contain."""
    return name.replace(".", "-")
