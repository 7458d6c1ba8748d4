"""``prompts.binary_masks``: the mask prompts of CAT-SAM's training (Xiao et al. 2024)."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from samtune.data.prompters import MASK_RULES, MaskRule, Objects, Sampling

BAND = 0.01
"""A pixel gets noise if reduction changes its value by at least this much."""


@MASK_RULES.register("binary_masks")
class BinaryMasks(MaskRule):
    """Masks of 0 and 1: the object, interpolated bilinearly from the original to the mask's size.

    Evaluation thresholds at one half, training uses :func:`noisy_binary`.
    """

    @staticmethod
    def masks(objects: Objects, which: NDArray[np.int64], how: Sampling) -> Tensor:
        """The masks ``(N, 1, 4H, 4W)`` of the objects; 0 in the padding."""
        (h, w), frame = how.mask_size, objects.fitted.shape
        h1, w1 = objects.resized or frame
        inner = (max(1, round(h * h1 / frame[0])), max(1, round(w * w1 / frame[1])))

        def reduced(part: NDArray[np.int64]) -> Tensor:
            soft = objects.originals(part)[:, None].float()
            return F.interpolate(soft, inner, mode="bilinear", align_corners=False)

        masks = objects.each(which, reduced)
        if how.train:
            factor, threshold = how.config.binary_masks or (1, 0.5)
            noise = how.draws.mask_noise(tuple(masks.shape))
            masks = noisy_binary(masks, factor, threshold, noise)
        else:
            masks = (masks > 0.5).float()
        return F.pad(masks, (0, w - inner[1], 0, h - inner[0]))


def noisy_binary(soft: Tensor, factor: int, threshold: float, noise: Tensor) -> Tensor:
    """Masks of 0 and 1 with noise along the outline.

    Noise is added to each value that reduction by ``factor`` and enlargement change by 0.01 or
    more.

    Args:
        soft: ``(N, 1, h, w)`` in 0..1.
        factor: Factor by which masks are reduced.
        threshold: Values above are 1.
        noise: Standard normal noise of the shape of ``soft``.
    """
    h, w = soft.shape[-2:]
    small = F.interpolate(soft, (max(1, h // factor), max(1, w // factor)), mode="bilinear")
    band = (soft - F.interpolate(small, (h, w), mode="bilinear")).abs() >= BAND
    return (soft + noise * band > threshold).float()
