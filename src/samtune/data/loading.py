"""Batches of a data set, read here or by other processes; an error is the same line either way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from samtune.batch import Batch
from samtune.data.collate import Example, collate
from samtune.errors import InputError

SHARED = "shared memory"
"""What the errors of torch call the place through which processes hand over batches."""
TOO_SMALL = (
    "data.workers: the shared memory (/dev/shm) is too small for the batches of processes that "
    "load data; give a container more, as in docker run --shm-size=8g, or set data.workers=0"
)


def batches(dataset: Dataset[Example], workers: int, **how: Any) -> Iterator[Batch]:
    """The batches of a data set.

    Args:
        dataset: Examples by index.
        workers: Processes that load them; with 0 this one does.
        how: Which examples make a batch, as torch's ``DataLoader`` takes it.

    Raises:
        InputError: What reading a file raised, from whichever process; or too little shared memory.
    """
    if not workers:
        yield from DataLoader(dataset, collate_fn=collate, **how)
        return
    loader = DataLoader(_Guarded(dataset), num_workers=workers, collate_fn=_join, **how)
    for batch in loader:
        if isinstance(batch, _Failure):
            raise InputError(batch.line)
        yield batch


@dataclass(frozen=True)
class _Failure:
    """What is wrong with a file, on its way from another process: errors do not travel whole."""

    line: str


class _Guarded(Dataset[Any]):
    """A data set that gives what is wrong in the place of an example."""

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
        # torch would do so later, in a thread of which no error comes back
        if get_worker_info() is not None:
            _share(batch)
    except (RuntimeError, OSError) as error:
        if SHARED not in str(error) and "No space left" not in str(error):
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
