"""The first three stages of a ResNet (He et al. 2016, arXiv:1512.03385) at a stride of 8.

Parameter names and the place of the stride, in the 3x3 convolution, are torchvision's, so that its
ImageNet weights fit. Max-pooling, the fourth stage and the classifier are left out, because GSAM
(arXiv:2408.12406) does not use them.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from samtune.errors import InputError
from samtune.files import as_path
from samtune.sam.weights import read_state

STAGES = ((64, 3, 1), (128, 4, 2), (256, 23, 2))
"""Width, bottlenecks and stride of each stage."""
EXPANSION = 4
CHANNELS = STAGES[-1][0] * EXPANSION
UNUSED = ("layer4.", "fc.")
PUBLISHED = "torchvision's resnet101-63fe2227.pth (IMAGENET1K_V1)"
"""The file of initial weights as published."""


class Residual(nn.Module):
    """A bottleneck of three convolutions beside the identity, or beside a projection."""

    def __init__(self, inner: int, width: int, stride: int) -> None:
        super().__init__()
        out = width * EXPANSION
        self.conv1, self.bn1 = nn.Conv2d(inner, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)
        self.downsample = None
        if stride != 1 or inner != out:
            self.downsample = nn.Sequential(
                nn.Conv2d(inner, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, inner, h, w)`` to ``(B, 4 width, h / stride, w / stride)``."""
        aside = x if self.downsample is None else self.downsample(x)
        x = self.bn1(self.conv1(x)).relu()
        x = self.bn2(self.conv2(x)).relu()
        return (aside + self.bn3(self.conv3(x))).relu()


class ResNet(nn.Module):
    """Maps images to 1024 channels at an eighth of their size, rounded up.

    Args:
        depth: Bottlenecks in the third stage: 23 for ResNet-101, 6 for ResNet-50.
    """

    def __init__(self, depth: int = STAGES[-1][1]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        inner, stages = 64, []
        for i, (width, usual, stride) in enumerate(STAGES):
            count = depth if i == len(STAGES) - 1 else usual
            blocks = [Residual(inner, width, stride)]
            inner = width * EXPANSION
            blocks += [Residual(inner, width, 1) for _ in range(count - 1)]
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3 = stages
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, pixels: Tensor) -> Tensor:
        """``(B, 3, h, w)`` normalised pixels to ``(B, 1024, ceil(h / 8), ceil(w / 8))``."""
        x = self.bn1(self.conv1(pixels)).relu()
        return self.layer3(self.layer2(self.layer1(x)))

    def read(self, path: str | Path) -> None:
        """Loads the weights of a file with torchvision's names.

        Raises:
            InputError: The file does not exist or holds other weights.
        """
        with torch.device("cpu"):  # also if the model around it is built without values
            state = read_state(as_path(path), PUBLISHED)
        expected = self.state_dict()
        weights = {k: v for k, v in state.items() if not k.startswith(UNUSED)}
        counters = {k for k in expected if k.endswith("num_batches_tracked")}
        wrong = [k for k in expected.keys() - counters if k not in weights]
        wrong += [k for k in weights if k not in expected or weights[k].shape != expected[k].shape]
        if wrong:
            raise InputError(
                f"adapter.resnet={path}: not torchvision's ResNet, {min(wrong)} does not fit; "
                f"give {PUBLISHED}, or set adapter.depth"
            )
        self.load_state_dict(weights, strict=False)
