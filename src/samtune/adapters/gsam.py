r"""Generalized SAM (arXiv:2408.12406): input of any size, and cheap attention with few keys.

With tokens :math:`t` at 8 pixels each and a convolutional map :math:`c` of ResNet-101:

.. math::
    t &\leftarrow t + \mathrm{Adapter}(t) + c, \quad
    t \leftarrow t + \mathrm{DW}_{3 \times 3}(t) \text{ after block } 0 \\
    t &\leftarrow t + \mathrm{Attn}(q,\, \mathrm{pool}_{3 \times 3}(k),\, \mathrm{pool}_{3 \times
    3}(v)), \quad t \leftarrow t + \mathrm{MLP}(n_2) + s \, \mathrm{SM}(n_2) \\
    c &\leftarrow \mathrm{MB}(c) + \mathrm{SE}(c) \text{ in global blocks}

and :math:`t + c / 2` enters the neck. There are no absolute positions: the depthwise convolution
takes their place (positional encoding generator, arXiv:2102.10882). SM is SM-AdaptFormer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from samtune.adapters.base import ADAPTERS
from samtune.adapters.resnet import CHANNELS, ResNet
from samtune.adapters.sm_adaptformer import Bottleneck, bottleneck_width
from samtune.adapters.strided import StridedAdapter, global_blocks
from samtune.options import Count
from samtune.sam.edits import BlockEdits
from samtune.sam.encoder import Encoder
from samtune.sam.layers import LayerNorm2d
from samtune.sam.model import Sam

POOLED = 3
"""Rows and columns to which the keys and values of a grid are averaged."""


def pool_keys(
    q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor, tuple[int, int]]:
    """Averages keys and values ``(b, heads, n, D)`` of a grid to 3 by 3; queries stay unchanged."""
    few = (
        F.adaptive_avg_pool2d(t.flatten(0, 1).transpose(1, 2).unflatten(2, grid), POOLED)
        .flatten(2)
        .transpose(1, 2)
        .unflatten(0, t.shape[:2])
        for t in (k, v)
    )
    k, v = few
    return q, k, v, (POOLED, POOLED)


class SqueezeExcitation(nn.Module):
    """Weighs channels by their means over the map (Hu et al. 2018, arXiv:1709.01507)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, dim // 4), nn.Linear(dim // 4, dim)

    def forward(self, c: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same."""
        gate = self.fc2(self.fc1(c.mean((2, 3))).relu()).sigmoid()
        return gate[:, :, None, None] * c


class Refine(nn.Module):
    """A separable bottleneck plus squeeze-and-excitation, without another skip."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = dim // 8
        self.conv = nn.Sequential(
            nn.Conv2d(dim, hidden, 1, bias=False),
            LayerNorm2d(hidden),
            nn.GELU(),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False),
            LayerNorm2d(hidden),
            nn.GELU(),
            nn.Conv2d(hidden, dim, 1, bias=False),
            LayerNorm2d(dim),
            nn.GELU(),
        )
        self.se = SqueezeExcitation(dim)

    def forward(self, c: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same."""
        return self.conv(c) + self.se(c)


@dataclass
class ResidualStream:
    """The CNN stream of one forward pass; it advances after each global block."""

    c: Tensor
    """``(B, C, H, W)``."""


@ADAPTERS.register("gsam")
class GSAM(StridedAdapter):
    """A ResNet beside the encoder, pooled keys and values, convolutions for positions.

    The embedding changes from the start: keys are pooled and positions replaced. ResNet-101 starts
    at random unless ``resnet`` names its ImageNet weights, as published.
    """

    paper = "Kato et al. 2024 (Generalized SAM), arXiv:2408.12406"
    sits = "a ResNet-101 stream; patch embedding, positions, keys and values, every MLP"
    uses = ("heads", "mlp", "params", "uniform", "patches", "tables")
    forms: ClassVar = {"positions": {"train_peg": True}}
    changes_at_start = "keys and values are pooled, positions replaced, a random stream is added"
    key_grid = "changes"
    initial = ("resnet",)
    # In a narrow bottleneck all ReLUs of a layer may be off by chance.
    small: ClassVar[Mapping[str, Any]] = {"depth": 1, "ratio": 1.0}

    @dataclass(frozen=True)
    class Config(StridedAdapter.Config):
        """Options of :class:`GSAM`."""

        resnet: str | None = None
        """File of torchvision's ResNet-101 (IMAGENET1K_V1) from which the CNN stream starts."""
        depth: Count = 23
        """Bottlenecks in the ResNet's third stage; 6 makes it the smaller ResNet-50."""
        train_peg: bool = False
        """Train the convolution that replaces positions; the published code leaves it at its random
        start."""

    def __init__(self, sam: Sam, config: Config) -> None:
        super().__init__(sam, config)
        encoder, dim = sam.image_encoder, sam.image_encoder.dim
        hidden = bottleneck_width(dim, config.ratio)
        self.resnet = ResNet(config.depth)
        if config.resnet is not None:
            self.resnet.read(config.resnet)
        self.project = nn.Conv2d(CHANNELS, dim, 1, bias=False)
        self.peg = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        if not config.train_peg:
            for name, parameter in list(self.peg.named_parameters()):
                delattr(self.peg, name)
                self.peg.register_buffer(name, parameter.detach())
        self.bottlenecks = nn.ModuleList(
            Bottleneck(dim, hidden, config.scale, pyramid=True) for _ in encoder.blocks
        )
        self.refine = nn.ModuleDict({str(i): Refine(dim) for i in global_blocks(sam)})

    def begin(
        self, encoder: Encoder, pixels: Tensor, x: Tensor, tokens: Tensor | None
    ) -> ResidualStream:
        """The CNN stream at the tokens' grid."""
        c = self.project(self.resnet(pixels))
        grid = (x.shape[1], x.shape[2])
        return ResidualStream(c if tuple(c.shape[-2:]) == grid else F.interpolate(c, grid))

    def enter(self, i: int, x: Tensor, state: ResidualStream) -> Tensor:
        """Adds the CNN stream to the first stream."""
        return x + state.c.permute(0, 2, 3, 1) if i == 0 else x

    def edits(self, i: int, state: ResidualStream) -> BlockEdits:
        """Pooled keys and values and a bottleneck; trained relative positions in global blocks."""
        key = str(i)
        params = self.tables[key].params() if key in self.tables else {}  # type: ignore[operator]
        return BlockEdits(heads=pool_keys, mlp=self.bottlenecks[i], params=params)

    def leave(self, i: int, x: Tensor, state: ResidualStream) -> Tensor:
        """Adds, after block 0, the convolution that replaces positions."""
        if str(i) in self.refine:
            state.c = self.refine[str(i)](state.c)
        if i > 0:
            return x
        return x + self.peg(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    def before_neck(self, x: Tensor, state: ResidualStream) -> Tensor:
        """Adds half of the CNN stream to the stream."""
        return x + 0.5 * state.c.permute(0, 2, 3, 1)
