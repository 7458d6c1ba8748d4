r"""TS-SAM's decoder (Yu et al. 2024, arXiv:2408.01835): three scales fused by convolutions.

It replaces SAM's prompt encoder and mask decoder and takes no prompts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samtune.batch import Masks
from samtune.decoders.base import DECODERS, Decoder, Features
from samtune.errors import InputError
from samtune.prompts import Prompts
from samtune.sam.model import Sam


@DECODERS.register("fusion")
class FusionDecoder(Decoder):
    """Predicts one mask per image from TS-SAM's side maps; prompts do not change it.

    It has no IoU head: the estimated IoU follows from the predicted probabilities.
    """

    paper = "Yu et al. 2024, arXiv:2408.01835"
    sits = "a convolutional decoder of three scales, in place of SAM's decoder"
    adapters = ("ts_sam", "ts_sam_detached")
    learning_rate = 1e-3
    changes_at_start = "its convolutions start at random"
    prompted = False

    @dataclass(frozen=True)
    class Config(Decoder.Config):
        """Options of :class:`FusionDecoder`."""

        sync_batchnorm: bool = False
        """Batch statistics over all devices instead of each device's own."""

    def __init__(self, sam: Sam, config: Config) -> None:
        super().__init__()
        whole = sam.spec.prompt_dim
        half = whole // 2
        self.conv1 = _cbr(whole, half)
        self.conv2 = _cbr(half, half)
        self.conv4 = _cbr(half, half)
        self.conv12_1 = _cbr(2 * half, half)
        self.conv12_2 = _cbr(2 * half, half)
        self.conv24_1 = _cbr(2 * half, half)
        self.conv24_2 = _cbr(2 * half, half)
        self.conv1_1 = nn.Conv2d(half, 1, 1)
        if config.sync_batchnorm:
            nn.SyncBatchNorm.convert_sync_batchnorm(self)

    def forward(
        self, sam: Sam, features: Features, prompts: Prompts, multimask: bool = False
    ) -> Masks:
        """The same mask for every prompt of an image, ``(N, 1, 4H, 4W)``."""
        logits = self.fuse(*_maps(features.state))[prompts.image]
        return Masks(logits, expected_iou(logits))

    def fuse(self, f1: Tensor, f2: Tensor, f4: Tensor) -> Tensor:
        """Fuses maps at one, two and four times the grid to ``(B, 1, 4H, 4W)`` logits.

        Args:
            f1: ``(B, prompt_dim, H, W)``.
            f2: ``(B, prompt_dim / 2, 2H, 2W)``.
            f4: ``(B, prompt_dim / 2, 4H, 4W)``.
        """
        x = self.conv12_1(torch.cat([self.conv1(f1), _halve(self.conv2(f2))], 1))
        x = self.conv12_2(torch.cat([_double(x), f2], 1))
        x = self.conv24_1(torch.cat([x, _halve(self.conv4(f4))], 1))
        x = self.conv24_2(torch.cat([_double(x), f4], 1))
        return self.conv1_1(x)


def expected_iou(logits: Tensor) -> Tensor:
    """The IoU that a mask would have if the probabilities were right: ``(N, K)``, no gradient.

    It is the ratio of the expected overlap and the expected union of ``logits > 0`` and a mask
    whose pixels are foreground with the predicted probability.

    Args:
        logits: ``(N, K, h, w)``.
    """
    p = logits.detach().float().sigmoid()
    inside = p > 0.5
    overlap, union = (p * inside).sum((-2, -1)), torch.where(inside, 1.0, p).sum((-2, -1))
    return overlap / union.clamp(min=torch.finfo(p.dtype).tiny)


def _maps(state: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The side maps, also if the adapter that makes them is one of a stack."""
    for part in (state, *getattr(state, "states", ())):
        if hasattr(part, "maps"):
            return part.maps
    raise InputError(
        "decoder fusion: the adapter makes no side maps; use ts_sam or ts_sam_detached"
    )


def _cbr(dim: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(dim, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()
    )


def _halve(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2) + F.avg_pool2d(x, 2)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
