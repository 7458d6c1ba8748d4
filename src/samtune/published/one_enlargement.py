"""``input.direct_masks``: CAT-SAM (Xiao et al. 2024) enlarges masks at once to the image."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from samtune.geometry import INPUT_RULES, Geometry, InputRule


@INPUT_RULES.register("direct_masks")
class OneEnlargement(InputRule):
    """Masks of an image without padding come back in one interpolation instead of two."""

    def logits(self, logits: Tensor, geometry: Geometry) -> Tensor:
        """Brings logits ``(N, K, h, w)`` to the size of the image."""
        if geometry.resized != geometry.model:
            return super().logits(logits, geometry)
        return F.interpolate(logits, geometry.original, mode="bilinear", align_corners=False)
