"""accelerate's part in a training: device, precision, accumulation, processes and trackers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from samtune.distributed import is_connected
from samtune.errors import InputError
from samtune.precision import arithmetic, fastest_device
from samtune.training.schedule import FitConfig
from samtune.training.trackers import FOLDER, folders_below

if TYPE_CHECKING:
    from accelerate import Accelerator


def make_accelerator(
    config: FitConfig, device: torch.device | None, output: Path | None
) -> Accelerator:
    """The accelerator of one training.

    Args:
        config: Its precision, accumulation and trackers.
        device: The device to work on; by default the fastest that there is.
        output: The run's folder, into which trackers write.

    Raises:
        InputError: Trackers without a folder, one that is not installed, fp16 without a GPU, or
            another device than that of the other processes, or than accelerate takes.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedDataParallelKwargs

    if config.trackers and output is None:
        raise InputError(
            f"train.trackers={','.join(config.trackers)}: trackers write files, and there is no "
            "folder for them; give output=FOLDER"
        )
    folder = output / FOLDER if output is not None and config.trackers else None
    target = device or fastest_device()
    number = arithmetic(config.precision, target)
    precision = "no" if number == "fp32" else number
    if AcceleratorState._shared_state.get("_mixed_precision", precision) != precision:
        AcceleratorState._reset_state()  # an earlier training in this process had another one
    earlier = PartialState._shared_state.get("device")
    if earlier is not None and earlier.type != target.type and not is_connected():
        AcceleratorState._reset_state(reset_partial_state=True)  # it was on another device
    # Heads that the chosen masks do not use get no gradient, which DDP must be told.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    try:
        accelerator = Accelerator(
            mixed_precision=precision,
            gradient_accumulation_steps=config.accumulate,
            cpu=target.type == "cpu",
            kwargs_handlers=[unused],
            log_with=list(config.trackers) or None,
            project_dir=folder,
        )
    except ValueError as error:  # fp16 without a GPU
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"train.precision={precision}: {reason}; choose another") from error
    if precision == "fp16" and not accelerator.native_amp:  # accelerate would go on in fp32
        raise InputError("train.precision=fp16: needs a GPU; choose bf16 or fp32")
    if device is not None and accelerator.device.type != target.type:
        raise InputError(
            f"device={device}: the training would run on {accelerator.device}; leave device out"
        )
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        accelerator.init_trackers("samtune", init_kwargs=folders_below(folder))
    return accelerator
