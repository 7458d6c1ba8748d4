"""Batches of a data set, loaded here or by other processes, with the same one-line errors."""

from __future__ import annotations

import errno
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from samtune.batch import Batch
from samtune.data.collate import Example, collate
from samtune.data.pace import TIMED_BATCHES, Pace
from samtune.errors import InputError

SHARED = "shared memory"
"""Words by which torch's errors name the memory that passes batches between processes."""
TOO_SMALL = (
    "data.workers: the shared memory (/dev/shm) is too small for the batches of the loading "
    "processes; give a container more, as in docker run --shm-size=8g, or set data.workers=0"
)

OPEN_FILES, LEAST_FILES = 1024, 64
"""Open files that are usual for this process and for each that loads data, and the fewest."""


def shared(values: Tensor, workers: int) -> Tensor:
    """Moves values to shared memory, so that processes that load data see later changes too.

    Args:
        values: A tensor.
        workers: Number of these processes; with 0 the values stay as they are if there is no room.

    Raises:
        InputError: Shared memory is too small.
    """
    try:
        return values.share_memory_()
    except (RuntimeError, OSError) as error:
        if not _is_of_shared_memory(error):
            raise
        if workers:
            raise InputError(TOO_SMALL) from error
        return values


def _is_of_shared_memory(error: Exception) -> bool:
    return SHARED in str(error) or "No space left" in str(error)


Workers = int | Literal["auto"]
"""The number of processes that load data, or that it is chosen by what is measured."""


def batches(
    dataset: Dataset[Example], workers: Workers, pace: Pace | None = None, **how: Any
) -> Iterator[Batch]:
    """The batches of a data set.

    They are the same whoever loads them. If there is a GPU, batches of other processes lie in
    pinned memory, from which they are copied while it computes.

    Args:
        dataset: Examples by index.
        workers: Number of processes that load them; with 0 this process does. ``auto`` begins here,
            and starts processes as soon as the times of the first batches say that it helps.
        pace: The times that ``auto`` measured in earlier epochs.
        how: The examples of each batch, as arguments of torch's ``DataLoader``.

    Raises:
        InputError: Reading a file failed, in any process; or shared memory is too small, or too few
            files may be open.
    """
    if workers == "auto":
        yield from _by_pace(dataset, pace or Pace(), how)
    elif not workers:
        yield from DataLoader(dataset, collate_fn=collate, **how)
    else:
        yield from _by_others(dataset, workers, how)


def _by_pace(dataset: Dataset[Example], pace: Pace, how: dict[str, Any]) -> Iterator[Batch]:
    """Batches that are loaded here until it is known that other processes help."""
    order = list(how["batch_sampler"] if "batch_sampler" in how else _in_order(dataset, **how))
    done, measured = 0, 0 if pace.decide(len(order)) else TIMED_BATCHES + 1
    for batch in pace.timed(batches(dataset, 0, batch_sampler=order[:measured])):
        done += 1
        yield batch
    if done < len(order) and (workers := pace.decide(len(order) - done)):
        try:
            for batch in _by_others(dataset, workers, {"batch_sampler": order[done:]}):
                done += 1
                yield batch
        except _NoRoom:  # nobody has asked for these processes
            pace.is_refused = True
    if done < len(order):
        yield from batches(dataset, 0, batch_sampler=order[done:])


def _in_order(dataset: Dataset[Example], batch_size: int) -> list[list[int]]:
    """The indices of batches, one after another."""
    count = len(dataset)  # type: ignore[arg-type]
    return [list(range(at, min(at + batch_size, count))) for at in range(0, count, batch_size)]


class _NoRoom(InputError):
    """The machine has no room for processes that load data."""


def _by_others(dataset: Dataset[Example], workers: int, how: dict[str, Any]) -> Iterator[Batch]:
    """Batches that other processes load.

    Raises:
        InputError: See :func:`batches`.
    """
    _allow_open_files(workers)
    how = how | {"num_workers": workers, "collate_fn": _join}
    how |= {"worker_init_fn": _leave_ends_to_parent, "pin_memory": torch.cuda.is_initialized()}
    loader = DataLoader(_Guarded(dataset), **how)
    try:
        loaded = iter(loader)
    except OSError as error:  # the queues between processes lie there too
        if error.errno != errno.ENOSPC or error.filename:
            raise
        raise _NoRoom(TOO_SMALL) from error
    for batch in loaded:
        if isinstance(batch, _Failure):
            raise (_NoRoom if batch.line == TOO_SMALL else InputError)(batch.line)
        yield batch


def _allow_open_files(workers: int) -> None:
    """Raises this process's limit of open files: every tensor on its way is one.

    Beyond the limit, a process that loads data would wait for ever.

    Raises:
        InputError: The system allows too few.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES * (workers + 1)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    if soft < LEAST_FILES * (workers + 1):
        raise _NoRoom(
            f"data.workers={workers}: only {soft} files may be open at a time; allow more, as by "
            "ulimit -n 4096, or set data.workers=0"
        )


def _leave_ends_to_parent(worker: int) -> None:
    """Has a process that loads data outlive signals that reach all processes of a job.

    These are Ctrl-C, a lost terminal, and the request for a state. The training may need its
    batches to end a step in order; it ends the loaders itself.
    """
    for name in ("SIGINT", "SIGHUP", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


@dataclass(frozen=True)
class _Failure:
    """The error of a file, on its way from another process; exceptions do not travel whole."""

    line: str


class _Guarded(Dataset[Any]):
    """A data set that returns an error in the place of an example."""

    def __init__(self, dataset: Dataset[Example]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Example | _Failure:
        try:
            return self.dataset[index]
        except InputError as error:
            return _Failure(str(error))


def _join(examples: Sequence[Example | _Failure]) -> Batch | _Failure:
    whole = [example for example in examples if isinstance(example, Example)]
    failures = [example for example in examples if isinstance(example, _Failure)]
    if failures:
        return failures[0]
    batch = collate(whole)
    try:
        # torch would do this later, in a thread whose errors are lost
        if get_worker_info() is not None:
            _share(batch)
    except (RuntimeError, OSError) as error:
        if not _is_of_shared_memory(error):
            raise
        return _Failure(TOO_SMALL)
    return batch


def _share(value: Any) -> None:
    """Moves all tensors of a batch to shared memory."""
    if isinstance(value, Tensor):
        value.share_memory_()
    elif is_dataclass(value):
        for field in fields(value):
            _share(getattr(value, field.name))
    elif isinstance(value, tuple):
        for each in value:
            _share(each)
