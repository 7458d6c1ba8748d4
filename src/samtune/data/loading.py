"""Batches of a data set, loaded here or by other processes, with the same one-line errors."""

from __future__ import annotations

import errno
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from samtune.batch import Batch
from samtune.data.collate import Example, collate
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


def batches(dataset: Dataset[Example], workers: int, **how: Any) -> Iterator[Batch]:
    """The batches of a data set.

    Args:
        dataset: Examples by index.
        workers: Number of processes that load them; with 0 this process does.
        how: The examples of each batch, as arguments of torch's ``DataLoader``.

    Raises:
        InputError: Reading a file failed, in any process; or shared memory is too small, or too few
            files may be open.
    """
    if not workers:
        yield from DataLoader(dataset, collate_fn=collate, **how)
        return
    _allow_open_files(workers)
    how |= {"num_workers": workers, "collate_fn": _join, "worker_init_fn": _leave_ends_to_parent}
    loader = DataLoader(_Guarded(dataset), **how)
    try:
        loaded = iter(loader)
    except OSError as error:  # the queues between processes lie there too
        if error.errno != errno.ENOSPC or error.filename:
            raise
        raise InputError(TOO_SMALL) from error
    for batch in loaded:
        if isinstance(batch, _Failure):
            raise InputError(batch.line)
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
        raise InputError(
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
