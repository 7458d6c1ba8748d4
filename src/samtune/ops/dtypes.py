"""The type in which autocast computes."""

from __future__ import annotations

import torch
from torch import Tensor


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """The type in which a product with this tensor is computed: autocast's, or its own."""
    kind = tensor.device.type
    if kind == "meta" or tensor.dtype != torch.float32 or not torch.is_autocast_enabled(kind):
        return tensor.dtype
    return torch.get_autocast_dtype(kind)
