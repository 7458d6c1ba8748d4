"""Faults that are not of the input and that a user can do something about, in one line each."""

from __future__ import annotations

import os
import re

from samtune.data.loading import SHARED, TOO_SMALL
from samtune.errors import InputError

PEER_ENDED = "another process of the run has ended; start all of them again"
"""The line of a process that waits in vain for another one."""


class Diverged(InputError):
    """The loss stays not finite, and would after any further step."""


_MEMORY = re.compile(
    "out of memory|can't allocate memory|not enough memory|bad_alloc|Cannot allocate memory", re.I
)
_LOADER = re.compile(r"DataLoader worker \(pid\(?s?\)? ?[\d, ]+\) (.*)")
_PEER = re.compile("closed by peer|reset by peer|NCCL|gloo|TCPStore", re.IGNORECASE)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of a device or of the machine; not that of another process."""
    from torch import OutOfMemoryError

    text = str(error)
    first = text.splitlines()[0] if text else ""
    of_torch = isinstance(error, RuntimeError | OSError) and "DataLoader worker" not in first
    return isinstance(error, OutOfMemoryError | MemoryError) or bool(
        of_torch and _MEMORY.search(first)
    )


def in_words(error: BaseException) -> str | None:
    """One line about memory that ran out, or a process that ended; ``None`` of all else."""
    from torch.distributed import DistBackendError, DistNetworkError

    text = str(error)
    first = text.splitlines()[0] if text else type(error).__name__
    of_peer = isinstance(error, DistBackendError | DistNetworkError)
    runtime = isinstance(error, RuntimeError | OSError)
    if is_out_of_memory(error):
        return (
            f"memory has run out ({first}); set train.micro_batch=1, train.checkpointing=true or a "
            "lower input.size; samtune plan says what each of them needs"
        )
    if runtime and "can't start new thread" in first:
        return (
            "the system allows no more threads; allow more, as by ulimit -u, or end other programs"
        )
    if runtime and "DataLoader worker (pid" in first:  # others wrap what a worker raised
        if SHARED in text or "Bus error" in text:
            return TOO_SMALL
        match = _LOADER.search(first)
        how = match[1].rstrip(". ") if match else "ended"
        return (
            f"data.workers: a process that loads data {how}, mostly since memory has run out; set "
            "fewer data.workers, or 0"
        )
    together = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if together and runtime and (of_peer or _PEER.search(text)):
        return PEER_ENDED
    return None
