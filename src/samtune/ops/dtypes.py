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


def has_matrix_units() -> bool:
    """Whether the processor has matrix units for bf16 (AMX), beside vector instructions."""
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return has_amx is not None and bool(has_amx())
