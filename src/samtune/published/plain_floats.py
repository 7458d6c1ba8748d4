"""``input.antialias=false``: CAT-SAM (Xiao et al. 2024) resizes floats without antialiasing."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from samtune.geometry import INPUT_RULES, Geometry, InputRule


@INPUT_RULES.register("antialias")
class PlainFloats(InputRule):
    """Images are converted to floats, resized by plain bilinear interpolation, and not rounded."""

    is_traceable = True

    def image(self, image: NDArray[np.uint8], geometry: Geometry) -> Tensor:
        """Brings an image ``(h0, w0, 3)`` uint8 into the frame as ``(3, H, W)`` float32."""
        (h, w), frame = geometry.resized, geometry.model
        floats = torch.tensor(image).permute(2, 0, 1)[None].float()  # 1 3 h0 w0
        if image.shape[:2] != (h, w):
            floats = F.interpolate(floats, (h, w), mode="bilinear", align_corners=False)
        return F.pad(floats[0], (0, frame[1] - w, 0, frame[0] - h))
