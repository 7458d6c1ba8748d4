"""``input.direct_masks``: CAT-SAM (Xiao et al. 2024) enlarges masks in one step to the image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from samtune.geometry import INPUT_RULES, Geometry, InputRule
from samtune.ops.resize import enlargement


@INPUT_RULES.register("direct_masks")
class OneEnlargement(InputRule):
    """Masks of an image without padding are resized in one interpolation instead of two."""

    is_traceable = True

    def logits(self, logits: Tensor, geometry: Geometry) -> Tensor:
        """Resizes logits ``(N, K, h, w)`` to the size of the image."""
        if geometry.resized != geometry.model:
            return super().logits(logits, geometry)
        return F.interpolate(logits, geometry.original, mode="bilinear", align_corners=False)

    def traced_logits(self, logits: Tensor, original: Tensor, frame: tuple[int, int]) -> Tensor:
        """Brings logits ``(N, K, h, w)`` to the size of the image."""
        content = self.traced_content(original, frame)
        low = content.new_tensor(logits.shape[2:])
        rows, columns = (
            enlargement(logits.shape[2 + i], logits.shape[2 + i], low[i], original[i])
            for i in (0, 1)
        )
        is_whole = (content == content.new_tensor(frame)).all()
        plain = super().traced_logits(logits, original, frame)
        return torch.where(is_whole, rows @ logits @ columns.T, plain)
