"""How many processes should load data, by what was measured of the first batches."""

from __future__ import annotations

import math
import multiprocessing
import os
import shutil
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from samtune.batch import Batch

TIMED_BATCHES = 5
"""Batches after the first of an epoch that are timed, of which medians count."""
WORTH = 3.0, 0.03
"""Seconds in all, and as a fraction of the time, that processes must save to be begun: they cost
some tenths of a second, and memory."""
MOST, AHEAD, SLACK = 16, 3, 1.5
"""The most processes; the batches that each may have under way; and how much faster than needed
they should be, because samples are not all alike."""


class Room(NamedTuple):
    """The room of a machine for processes that load data."""

    cores: int
    """Cores that this process may use, with its share of those of a run of several processes."""
    busy: int
    """Cores that the computation itself keeps busy."""
    shared: float
    """Bytes of shared memory, which passes batches between processes."""


def workers_that_help(loading: float, computing: float, count: int, size: int, room: Room) -> int:
    """The number of processes that should load data; 0 if they would not save enough.

    Without them a batch takes both times, one after the other. With ``n`` of them it takes the
    longest of the computation, the loading by ``n`` processes, and all work on all cores.

    Args:
        loading: Seconds in which this process loads a batch.
        computing: Seconds of the computation with a batch.
        count: Number of batches that follow.
        size: Bytes of a batch.
        room: The machine's.
    """
    most = min(MOST, room.cores - 1, int(room.shared / 2 / max(1, size * AHEAD)))
    if most < 1:
        return 0
    wanted = math.ceil(SLACK * loading / max(computing, 1e-6))
    workers = max(1, min(most, wanted))
    all_work = (loading + computing * room.busy) / room.cores
    saved = loading + computing - max(computing, loading / workers, all_work)
    seconds, fraction = WORTH
    is_worth = saved * count >= seconds and saved >= fraction * (loading + computing)
    return workers if is_worth else 0


def _room(sharers: int) -> Room:
    """The room of this process and one of its loaders."""
    if sys.platform.startswith("linux"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    cores //= max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    busy = 1 if _has_device() else min(cores, torch.get_num_threads())
    try:
        shared = float(shutil.disk_usage("/dev/shm").free)
    except OSError:
        shared = math.inf
    return Room(1 + (cores - 1) // sharers, busy, shared / sharers)


def _has_device() -> bool:
    """Whether something is computed on a GPU in this process."""
    return torch.cuda.is_initialized()


def _can_fork() -> bool:
    """Whether processes may begin as copies of this one.

    Others begin by running the program's main module, which a program must be written for.
    """
    method = multiprocessing.get_start_method(allow_none=True)
    method = method or multiprocessing.get_all_start_methods()[0]
    return method == "fork" and not multiprocessing.current_process().daemon


def bytes_of(value: Any) -> int:
    """The bytes of all tensors of a batch."""
    if isinstance(value, Tensor):
        return value.nbytes
    if is_dataclass(value):
        return sum(bytes_of(getattr(value, each.name)) for each in fields(value))
    return sum(map(bytes_of, value)) if isinstance(value, tuple) else 0


@dataclass
class Pace:
    """The times of loading and computation, which are measured wherever this process loads."""

    sharers: int = 1
    """Number of loaders that work at the same time."""
    quiet: Callable[[], object] = int
    """Called before processes begin; waits for other threads of this one, whose locks the copies
    would inherit."""
    is_refused: bool = False
    """Whether processes are out of the question, as there was no room for them."""
    workers: int = 0
    """The number of processes that is best."""
    _times: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=TIMED_BATCHES))
    _size: int = 0

    def decide(self, count: int) -> int:
        """Chooses the number of processes for the batches that follow.

        Args:
            count: Number of these batches.
        """
        if self.is_refused or len(self._times) < TIMED_BATCHES or not _can_fork():
            self.workers = 0
        elif not self.workers:
            loading, computing = map(statistics.median, zip(*self._times, strict=True))
            room = _room(self.sharers)
            self.workers = workers_that_help(loading, computing, count, self._size, room)
        if self.workers:
            self.quiet()
        return self.workers

    def timed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yields batches; times those after the first, and what the caller does with each."""
        stream = iter(batches)
        for i in range(TIMED_BATCHES + 1):
            start = time.perf_counter()
            batch = next(stream, None)
            if batch is None:
                return
            loaded = time.perf_counter()
            yield batch
            if _has_device():  # the time of a GPU's work, not of its launch
                torch.cuda.synchronize()
            self._size = max(self._size, bytes_of(batch))
            if i:  # the first reads files of Python's too
                self._times.append((loaded - start, time.perf_counter() - loaded))
        yield from stream
