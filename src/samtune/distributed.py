"""The processes of one run, as ``torchrun`` and ``accelerate launch`` start them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from samtune.errors import InputError

Result = TypeVar("Result")
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
    yield  # after an error the launcher ends the others, and waiting for them would hang
    processes.destroy_process_group()


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
