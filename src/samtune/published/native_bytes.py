"""``native_raw`` of an input policy: CAT-SAM's code feeds images of the native size as they are."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samtune.geometry import INPUT_RULES, Geometry, InputRule, Resize


@INPUT_RULES.register("native_raw")
class NativeBytes(InputRule):
    """Images of exactly the frame's size are not normalised, and their prompts are not rounded."""

    def image(self, image: NDArray[np.uint8], geometry: Geometry) -> Tensor:
        """Pixels ``(3, H, W)`` that the normalisation of a batch turns back into bytes."""
        pixels, policy = super().image(image, geometry), self.policy
        if geometry.original != geometry.model or policy.mean is None or policy.std is None:
            return pixels
        mean, std = (torch.tensor(v)[:, None, None] for v in (policy.mean, policy.std))
        return pixels.float() * std + mean

    def points(self, xy: Tensor, geometry: Geometry) -> Tensor:
        """Maps points ``(..., 2)`` to the model's frame, which such an image fills exactly."""
        if geometry.original != geometry.model:
            return super().points(xy, geometry)
        return Resize.points(self, xy, geometry)
