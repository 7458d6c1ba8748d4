r"""TS-SAM (Yu et al. 2024, arXiv:2408.01835): a convolutional stream beside the ViT.

With tokens :math:`x_i` after block :math:`i`, side map :math:`z` and running maps :math:`m_4, m_2`
at four and two times the token grid:

.. math::
    (m_4, m_2) &\leftarrow (m_4, m_2) + \mathrm{MRM}_i(x_i) \\
    f_i &= x_i + \mathrm{ReLU}(\mathrm{BN}(W_1 z)), \quad
    z \leftarrow \mathrm{ReLU}(\mathrm{BN}(W_2 f_i)), \quad x_i \leftarrow f_i

so the next frozen block reads the fused stream, and gradients pass through the frozen blocks. The
``fusion`` decoder reads :math:`z, m_2, m_4`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from samtune.adapters.base import ADAPTERS, Adapter
from samtune.ops.frequency import high_pass
from samtune.options import Count
from samtune.sam.encoder import Encoder
from samtune.sam.layers import PatchEmbed
from samtune.sam.model import Sam


@dataclass
class SideStream:
    """The side stream of one forward pass; it advances after each block."""

    side: Tensor
    """``(B, S, H, W)``, and ``(B, prompt_dim, H, W)`` at the end."""
    fourfold: Tensor | None = None
    """``(B, prompt_dim / 2, 4H, 4W)``."""
    twofold: Tensor | None = None
    """``(B, prompt_dim / 2, 2H, 2W)``."""

    @property
    def maps(self) -> tuple[Tensor, Tensor, Tensor]:
        """The maps at one, two and four times the token grid, at the end of the pass."""
        assert self.twofold is not None and self.fourfold is not None
        return self.side, self.twofold, self.fourfold

    def add(self, fourfold: Tensor, twofold: Tensor) -> None:
        """Adds one refinement's maps to the running ones."""
        if self.fourfold is not None and self.twofold is not None:
            fourfold, twofold = fourfold + self.fourfold, twofold + self.twofold
        self.fourfold, self.twofold = fourfold, twofold


class ConvolutionalSideAdapter(nn.Module):
    """CSA: mixes a map of the ViT into the side map, and the side map into the ViT's map.

    Args:
        dim: Channels of the ViT's map.
        side: Channels of the side map that enters.
        out: Channels of the side map that leaves.
        gated: Weigh the side map's contribution to the ViT's map by a factor per channel, starting
            at zero.
    """

    def __init__(self, dim: int, side: int, out: int, gated: bool = False) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(side, dim, 1), nn.BatchNorm2d(dim)
        self.conv2, self.bn2 = nn.Conv2d(dim, out, 1), nn.BatchNorm2d(out)
        self.gate = nn.Parameter(torch.zeros(dim, 1, 1)) if gated else None

    def forward(self, x: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, dim, H, W)`` and ``(B, side, H, W)`` to ``(B, out, H, W)`` and the fused map."""
        added = self.bn1(self.conv1(side)).relu()
        fused = x + (added if self.gate is None else self.gate * added)
        return self.bn2(self.conv2(fused)).relu(), fused


class ChannelGate(nn.Module):
    """Weighs each channel of each pixel: ``tanh(W2 relu(W1 x)) x``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.res_gate = nn.Sequential(
            nn.Linear(dim, dim, bias=False), nn.ReLU(), nn.Linear(dim, dim, bias=False), nn.Tanh()
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, dim, h, w)`` to the same."""
        return self.res_gate(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) * x


class MultiScaleRefinement(nn.Module):
    """MRM: one map of the ViT enlarged four times and two times, each gated.

    Args:
        dim: Channels of the ViT's map.
        hidden: Channels of the enlarged maps.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.conv_in = nn.Sequential(nn.Conv2d(dim, hidden, 1), nn.BatchNorm2d(hidden), nn.ReLU())
        self.fpn1 = nn.Sequential(
            *_doubling_layers(hidden), *_doubling_layers(hidden), ChannelGate(hidden)
        )
        self.fpn2 = nn.Sequential(*_doubling_layers(hidden), ChannelGate(hidden))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, dim, H, W)`` to ``(B, hidden, 4H, 4W)`` and ``(B, hidden, 2H, 2W)``."""
        y = self.conv_in(x)
        return self.fpn1(y), self.fpn2(y)


@ADAPTERS.register("ts_sam")
class TSSAM(Adapter):
    """A side network that refines every block's output and feeds it back into the stream.

    The embedding changes from the start, because the published injection has no zero
    initialisation; ``zero_init`` gives it one.
    """

    paper = "Yu et al. 2024, arXiv:2408.01835"
    sits = "beside the encoder, fed back after every block"
    uses = ("uniform", "patches")
    forms: ClassVar = {"fft": {"fft": True}, "zero_init": {"zero_init": True}}
    identity_at_init = False
    changes_at_start = "as published, the feedback is not initialised at zero; zero_init does that"
    decoders = ("fusion",)

    @dataclass(frozen=True)
    class Config(Adapter.Config):
        """Options of :class:`TSSAM`."""

        fft: bool = False
        """Start the side stream also from the image's high frequencies, as for shadow detection."""
        side_dim: Count | None = None
        """Width of the side stream; by default the width of the image embedding, 256 for SAM."""
        refined: Count = 12
        """Number of last blocks that are read at finer scales."""
        fix_stem_layout: bool = False
        """Start each cell of the side stream from its own patch; the published code reads the
        patches in another memory order, which released weights need."""
        zero_init: bool = False
        """Learned gates on the feedback, starting at zero, so that the untrained encoder equals
        SAM's."""
        sync_batchnorm: bool = False
        """Batch statistics over all devices instead of each device's own."""

    def __init__(self, sam: Sam, config: Config) -> None:
        super().__init__()
        self._build(sam, config, gated=config.zero_init)
        self.identity_at_init = config.zero_init  # type: ignore[misc]

    def _build(self, sam: Sam, config: TSSAM.Config | TSSAMDetached.Config, gated: bool) -> None:
        encoder, out = sam.image_encoder, sam.spec.prompt_dim
        dim, depth, hidden = encoder.dim, len(encoder.blocks), out // 2
        side = out if config.side_dim is None else config.side_dim
        self.first_refined = depth - min(depth, config.refined)
        self.fix_stem_layout = config.fix_stem_layout
        self.csa_embedding = nn.Linear(dim, side)
        self.fft_embedding = PatchEmbed(encoder.patch, side) if config.fft else None
        self.csa_blocks = nn.ModuleList(
            [
                ConvolutionalSideAdapter(dim, side, side),
                *(ConvolutionalSideAdapter(dim, side, side, gated) for _ in range(depth)),
                ConvolutionalSideAdapter(out, side, out),
            ]
        )
        widths = [dim] * (depth - self.first_refined) + [out]
        self.mrm_blocks = nn.ModuleList(MultiScaleRefinement(width, hidden) for width in widths)
        self.csa_blocks.apply(_initialise)
        self.mrm_blocks.apply(_initialise)
        if config.sync_batchnorm:
            nn.SyncBatchNorm.convert_sync_batchnorm(self)

    def begin(
        self, encoder: Encoder, pixels: Tensor, x: Tensor, tokens: Tensor | None
    ) -> SideStream:
        """The side map from the patches (before positions), mixed with the stream once."""
        side = self._stem(encoder.patch_embed(pixels))
        if self.fft_embedding is not None:
            side = side + self.fft_embedding(high_pass(pixels)).permute(0, 3, 1, 2)
        side, _ = self.csa_blocks[0](x.permute(0, 3, 1, 2), side)
        return SideStream(side)

    def leave(self, i: int, x: Tensor, state: SideStream) -> Tensor:
        """The fused stream."""
        return self._advance(i, x, state)

    def after_neck(self, embedding: Tensor, state: SideStream) -> Tensor:
        """The embedding as it is; the side stream's last stage reads it."""
        state.add(*self.mrm_blocks[-1](embedding))
        state.side, _ = self.csa_blocks[-1](embedding, state.side)
        return embedding

    def _stem(self, patches: Tensor) -> Tensor:
        """Patches ``(B, H, W, C)`` to the first side map ``(B, S, H, W)``."""
        if self.fix_stem_layout:
            return self.csa_embedding(patches).permute(0, 3, 1, 2)
        # The published code reads the channels-last memory as if it were channels-first: cell p of
        # the side stream starts from every (H W)-th value of the whole image.
        b, h, w, c = patches.shape
        scrambled = patches.reshape(b, c, h * w).transpose(1, 2)
        return self.csa_embedding(scrambled).transpose(1, 2).unflatten(2, (h, w))

    def _advance(self, i: int, x: Tensor, state: SideStream) -> Tensor:
        """Reads the stream after block ``i`` and returns it with the side map mixed in."""
        tap = x.permute(0, 3, 1, 2)
        if i >= self.first_refined:
            state.add(*self.mrm_blocks[i - self.first_refined](tap))
        state.side, fused = self.csa_blocks[i + 1](tap, state.side)
        return fused.permute(0, 2, 3, 1)


@ADAPTERS.register("ts_sam_detached")
class TSSAMDetached(TSSAM):
    """TS-SAM's side network without the feedback: the base stays SAM and runs without gradients.

    Side tuning (Zhang et al. 2020, arXiv:1912.13503) with TS-SAM's modules, a variant of this
    library. The base's output for an image never changes, so it can be computed once and stored.
    """

    paper = "after Yu et al. 2024, arXiv:2408.01835"
    sits = "beside the encoder, reading every block"
    forms: ClassVar = {"fft": {"fft": True}}
    identity_at_init = True
    changes_at_start = ""
    detached = True

    @dataclass(frozen=True)
    class Config(Adapter.Config):
        """Options of :class:`TSSAMDetached`."""

        fft: bool = False
        """Start the side stream also from the image's high frequencies."""
        side_dim: Count | None = None
        """Width of the side stream; by default the width of the image embedding, 256 for SAM."""
        refined: Count = 12
        """Number of last blocks that are read at finer scales."""
        fix_stem_layout: bool = True
        """Start each cell of the side stream from its own patch; off by default, as in TS-SAM's
        code."""
        sync_batchnorm: bool = False
        """Batch statistics over all devices instead of each device's own."""

    def __init__(self, sam: Sam, config: Config) -> None:
        Adapter.__init__(self)
        self._build(sam, config, gated=False)

    def leave(self, i: int, x: Tensor, state: SideStream) -> Tensor:
        """Returns the stream as it is."""
        self._advance(i, x, state)
        return x


def _doubling_layers(dim: int) -> tuple[nn.Module, ...]:
    return nn.ConvTranspose2d(dim, dim, 2, stride=2), nn.BatchNorm2d(dim), nn.ReLU()


def _initialise(module: nn.Module) -> None:
    """Initialises convolutions as He et al. 2015, except transposed ones, as published."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        assert module.bias is not None
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
