"""The arithmetic of a forward pass."""

from __future__ import annotations

from typing import Literal, get_args

import torch

from samtune.errors import InputError

Precision = Literal["fp32", "bf16", "fp16"]


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context that runs a forward pass in a precision; it does nothing for fp32."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32")


def check_precision(precision: str, device: torch.device) -> None:
    """Refuses a precision that there is not, or that a device does not have.

    Raises:
        InputError: With those to choose from.
    """
    if precision not in get_args(Precision):
        raise InputError(f"precision={precision}: must be one of {', '.join(get_args(Precision))}")
    if precision == "fp16" and device.type == "cpu":
        raise InputError("precision=fp16: needs a GPU; choose bf16 or fp32")
