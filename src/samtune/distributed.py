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
"""Host and process of each rank, once they have met."""
HEADSTART = 10.0
"""Seconds in which the main process may say what is wrong before another one does."""


def is_main() -> bool:
    """Whether this process speaks and writes; also before it has met the others."""
    return int(os.environ.get("RANK", "0")) == 0


def main_has_spoken() -> bool:
    """Whether the main process has ended meanwhile, of which the launcher tells the others.

    The launcher ends all processes as soon as one of them fails. One that found wrong input must
    not bring down the main process before it has said what was wrong; where the main process did
    not find it, this one has to say it.
    """
    signals: list[int] = []
    previous = signal.signal(signal.SIGTERM, lambda number, frame: signals.append(number))
    try:
        end = time.monotonic() + HEADSTART
        while not signals and time.monotonic() < end:
            time.sleep(0.05)
    finally:
        signal.signal(signal.SIGTERM, previous)
    return bool(signals)


def place() -> tuple[int, int]:
    """This process's rank and how many there are."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


@contextmanager
def together(cpu: bool) -> Iterator[None]:
    """Meets the other processes that the launcher started, each on its device; alone nothing.

    Args:
        cpu: Stay on the CPU where there is a faster device.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    from accelerate import PartialState

    processes = PartialState(cpu=cpu)
    _meet()
    yield  # after an error the launcher ends the others, and waiting for them would hang
    processes.destroy_process_group()


def lost_processes() -> list[int]:
    """The ranks of processes on this machine that have ended without a word, as if killed."""
    here = socket.gethostname()
    return [
        rank
        for rank, (host, pid) in enumerate(_others)
        if host == here and not _is_running(pid) and not _end_of(pid).exists()
    ]


def end_in_order() -> None:
    """Notes that this process ends by itself, so that others do not take it for killed."""
    if _others:
        with suppress(OSError):
            _end_of(os.getpid()).touch()


def _meet() -> None:
    """Tells all processes where the others run."""
    from torch import distributed

    _end_of(os.getpid()).unlink(missing_ok=True)  # of an earlier process of this number
    _others[:] = [None] * place()[1]
    distributed.all_gather_object(_others, (socket.gethostname(), os.getpid()))


def _end_of(pid: int) -> Path:
    """A file that a process leaves when it ends by itself."""
    port = os.environ.get("MASTER_PORT", "0")
    return Path(tempfile.gettempdir()) / f"samtune-{port}-{pid}.end"


def _is_running(pid: int) -> bool:
    """Whether there is such a process; one that has ended may wait for its launcher."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        return fields[0] not in ("Z", "X")
    except OSError:
        return not Path("/proc/self/stat").exists()  # a system that does not tell


def share_buffers(model: Any) -> None:
    """Gives all processes the first one's buffers, as DDP does before each forward pass.

    Running statistics are of each process's batches, and have gone apart since.

    Args:
        model: A module of torch.
    """
    if place()[1] == 1:
        return
    from torch import distributed

    for buffer in model.buffers():
        distributed.broadcast(buffer, 0)


def finite_mean(values: Sequence[float]) -> float:
    """The mean of what is finite; NaN if nothing is."""
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def mean_over_processes(values: Sequence[float], device: Any) -> tuple[float, int]:
    """The mean of the finite values of all processes, and how many are not finite.

    Args:
        values: Of this process, as many as of each other.
        device: Of torch, on which the processes meet.
    """
    mean, not_finite = finite_mean(values), sum(not math.isfinite(value) for value in values)
    if place()[1] == 1:
        return mean, not_finite
    import torch
    from torch import distributed

    finite = len(values) - not_finite
    kind = torch.float32 if torch.device(device).type == "mps" else torch.float64
    sums = torch.tensor([mean * finite if finite else 0.0, finite, not_finite], dtype=kind)
    sums = sums.to(device)
    distributed.all_reduce(sums)
    total, count, bad = sums.tolist()
    return total / count if count else math.nan, round(bad)


def any_process(flag: bool, device: Any) -> bool:
    """Whether a flag is set in any of the processes, each of which asks at the same point.

    Args:
        flag: Of this process.
        device: Of torch, on which the processes meet.
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
        InputError: The main process's.
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
