"""The device and the arithmetic of a forward pass."""

from __future__ import annotations

from typing import Literal, get_args

import torch

from samtune.errors import InputError
from samtune.ops.dtypes import has_matrix_units

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Device = str | int | torch.device
"""A device as torch names it: ``cpu``, ``cuda:1``, or the number of a GPU."""


def fastest_device() -> torch.device:
    """The fastest device that there is: the current GPU of CUDA, else MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def device_named(name: Device) -> torch.device:
    """The device of a name; a GPU becomes the current one, on which accelerate puts models.

    Raises:
        InputError: There is no such device.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise InputError(f"device={name}: {reason}; choose cpu, cuda or mps") from error
    return device


def arithmetic(precision: str, device: torch.device) -> str:
    """The precision that a setting means on a device: ``fp32``, ``bf16`` or ``fp16``.

    ``auto`` means bf16 if the device has matrix units for it: GPUs since NVIDIA's Ampere, and CPUs
    with AMX. Other processors stay with fp32, also those with vector instructions for bf16
    (AVX-512): there it is faster for large bases only, and to be asked for. A GPU without bf16 has
    no TF32 either.
    """
    if precision != "auto":
        return precision
    return "bf16" if _has_bf16_units(device) else "fp32"


def _has_bf16_units(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and has_matrix_units()


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context that runs a forward pass in a precision; it does nothing for fp32."""
    number = arithmetic(precision, device)
    dtype = torch.float16 if number == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=number != "fp32")


def check_precision(precision: str, device: torch.device) -> None:
    """Refuses a precision that there is not, or that a device does not have.

    Raises:
        InputError: With those to choose from.
    """
    if precision not in get_args(Precision):
        raise InputError(f"precision={precision}: must be one of {', '.join(get_args(Precision))}")
    if precision == "fp16" and device.type == "cpu":
        raise InputError("precision=fp16: needs a GPU; choose bf16 or fp32")
