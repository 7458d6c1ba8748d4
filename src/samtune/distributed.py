"""The processes of one run, as ``torchrun`` and ``accelerate launch`` start them."""

from __future__ import annotations

import math
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from samtune.errors import InputError

Result = TypeVar("Result")
_others: list[Any] = []
"""Host and process id of each rank, once the processes have connected."""
HEADSTART = 8.0
"""Seconds in which only the main process may report an error."""
_HAS_REPORTED = "has reported"
"""The content of the file of a process that has reported an error."""


def is_main() -> bool:
    """Whether this process prints and writes; also works before the processes are connected."""
    return int(os.environ.get("RANK", "0")) == 0


def main_has_spoken() -> bool:
    """Whether the main process has said meanwhile why it ends, or the launcher stops the others.

    The launcher ends all processes as soon as one of them fails. A process that finds wrong input
    must not end the main process before that one has reported the problem; if the main process did
    not find it, this process has to report it.
    """
    signals: list[int] = []
    previous = signal.signal(signal.SIGTERM, lambda number, frame: signals.append(number))
    try:
        end = time.monotonic() + HEADSTART
        while not signals and time.monotonic() < end:
            if _have_reported(_others[:1]):  # also without a launcher
                return True
            if 0 in lost_processes():  # a killed one counts as running until its memory is freed
                return False
            time.sleep(0.05)
    finally:
        signal.signal(signal.SIGTERM, previous)
    return bool(signals) and 0 not in lost_processes()


def is_connected() -> bool:
    """Whether this process is connected to the others of its run."""
    from torch import distributed

    return distributed.is_available() and distributed.is_initialized()


def place() -> tuple[int, int]:
    """The rank of this process, and the number of processes."""
    from torch import distributed

    return (distributed.get_rank(), distributed.get_world_size()) if is_connected() else (0, 1)


@contextmanager
def together(cpu: bool) -> Iterator[None]:
    """Connects to the other processes of the launcher, each on its device; alone it does nothing.

    Args:
        cpu: Stay on the CPU even if there is a faster device.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    from accelerate import PartialState

    processes = PartialState(cpu=cpu)
    _meet()
    yield  # after an error the launcher ends the others, so waiting for them would hang
    processes.destroy_process_group()


def lost_processes() -> list[int]:
    """The ranks of processes on this machine that ended without notice, as if killed."""
    here = socket.gethostname()
    return [
        rank
        for rank, (host, pid) in enumerate(_others)
        if host == here and not _is_running(pid) and not _end_of(pid).exists()
    ]


def others_have_spoken() -> bool:
    """Whether another process on this machine has ended and has said why."""
    return _have_reported([each for each in _others if each[1] != os.getpid()])


def _have_reported(processes: Sequence[tuple[str, int]]) -> bool:
    """Whether one of some processes, if it is on this machine, has said why it ends."""
    here = [pid for host, pid in processes if host == socket.gethostname()]
    with suppress(OSError):
        return any(_end_of(p).read_text() == _HAS_REPORTED for p in here if _end_of(p).exists())
    return False


def end_in_order(has_reported: bool = False) -> None:
    """Records that this process ends by itself, so that others do not regard it as killed.

    Args:
        has_reported: Whether it has said why.
    """
    if _others:
        with suppress(OSError):
            _end_of(os.getpid()).write_text(_HAS_REPORTED if has_reported else "")


def _meet() -> None:
    """Tells all processes the host and process id of each other."""
    from torch import distributed

    _end_of(os.getpid()).unlink(missing_ok=True)  # left by an earlier process with this id
    _others[:] = [None] * place()[1]
    distributed.all_gather_object(_others, (socket.gethostname(), os.getpid()))


def _end_of(pid: int) -> Path:
    """The path of the file that a process writes when it ends by itself."""
    port = os.environ.get("MASTER_PORT", "0")
    return Path(tempfile.gettempdir()) / f"samtune-{port}-{pid}.end"


def _is_running(pid: int) -> bool:
    """Whether a process exists; one that has ended may still wait for its launcher."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        return fields[0] not in ("Z", "X")
    except OSError:
        return not Path("/proc/self/stat").exists()  # a system that does not report it


def share_buffers(model: Any) -> None:
    """Copies the first process's buffers to all, as DDP does before each forward pass.

    Each process updates running statistics from its own batches, so they differ by then.

    Args:
        model: A module of torch.
    """
    if place()[1] == 1:
        return
    from torch import distributed

    for buffer in model.buffers():
        distributed.broadcast(buffer, 0)


def finite_mean(values: Sequence[float]) -> float:
    """The mean of the finite values; NaN if there are none."""
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def mean_over_processes(
    values: Sequence[float], device: Any, others: Sequence[float] = ()
) -> tuple[float, int, list[float]]:
    """The mean of the finite values of all processes, and the number of values that are not finite.

    Args:
        values: The values of this process; every process has the same number of them.
        device: The torch device on which the processes exchange data.
        others: Further numbers, whose sums over the processes come third.
    """
    mean, not_finite = finite_mean(values), sum(not math.isfinite(value) for value in values)
    if place()[1] == 1:
        return mean, not_finite, list(others)
    finite = len(values) - not_finite
    mine = [mean * finite if finite else 0.0, finite, not_finite, *others]
    total, count, bad, *sums = add_over_processes(mine, device)
    return total / count if count else math.nan, round(bad), sums


def add_over_processes(values: Sequence[float], device: Any) -> list[float]:
    """The sums of some numbers over several processes, each of which calls this.

    Args:
        values: The values of this process.
        device: The device of torch on which the processes meet.
    """
    import torch
    from torch import distributed

    kind = torch.float32 if torch.device(device).type == "mps" else torch.float64
    sums = torch.tensor(list(values), dtype=kind).to(device)
    distributed.all_reduce(sums)
    return sums.tolist()


def any_process(flag: bool, device: Any) -> bool:
    """Whether a flag is set in any of the processes, each of which asks at the same point.

    Args:
        flag: The flag of this process.
        device: The device of torch on which the processes meet.
    """
    if place()[1] == 1:
        return flag
    import torch
    from torch import distributed

    flags = torch.tensor(int(flag), device=device)
    distributed.all_reduce(flags, distributed.ReduceOp.MAX)
    return bool(flags)


def from_main(make: Callable[[], Result]) -> Result:
    """Gives all processes the result of the main one; its ``InputError`` is raised in all.

    Raises:
        InputError: The main process raised it.
    """
    rank, world = place()
    if world == 1:
        return make()
    from torch import distributed

    outcome: list[Any] = [None, None]
    if rank == 0:
        try:
            outcome[0] = make()
        except InputError as error:
            outcome[1] = error
    distributed.broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]
