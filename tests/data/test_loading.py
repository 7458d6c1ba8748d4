"""What goes wrong in a process that loads data reaches the reader as without one."""

import errno
import os
import signal
import time

import pytest
import torch
from torch.utils.data import Dataset, get_worker_info

from samtune.batch import Batch
from samtune.data.collate import Example, collate
from samtune.data.loading import TOO_SMALL, batches, shared
from samtune.data.problems import DataError
from samtune.geometry import Geometry
from samtune.prompts import Prompts
from samtune.training.faults import in_words


def example(index: int) -> Example:
    size = (4, 6)
    return Example(
        pixels=torch.full((3, *size), index, dtype=torch.uint8),
        prompts=Prompts.of(count=1),
        targets=torch.ones(1, *size, dtype=torch.bool),
        valid=torch.ones(*size, dtype=torch.bool),
        classes=torch.zeros(1, dtype=torch.long),
        geometry=Geometry(size, size, size),
        name=str(index),
    )


class Images(Dataset):
    def __init__(self, fault):
        self.fault = fault

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if index == 2:
            self.fault()
        return example(index)


def broken():
    raise DataError("image.png", "unreadable file", "is cut short", "copy it again")


def signalled():
    """What reaches all processes of a job does not end the loaders."""
    for name in ("SIGINT", "SIGHUP", "SIGUSR1"):
        if get_worker_info() is not None and hasattr(signal, name):
            signal.raise_signal(getattr(signal, name))


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def full(self):
    raise RuntimeError("unable to allocate shared memory(shm) for file </x>: No space left (28)")


def without_room_for_queues(self):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_batches_are_the_same_with_workers_and_errors_are_the_same_line(refused):
    alone, others = ([*batches(Images(signalled), n, batch_size=2)] for n in (0, 1))
    for one, two in zip(alone, others, strict=True):
        assert isinstance(two, Batch) and one.names == two.names
        assert torch.equal(one.pixels, two.pixels) and two.pixels.is_shared()
    lines = [refused("", lambda n=n: [*batches(Images(broken), n, batch_size=2)]) for n in (0, 1)]
    assert lines == ["image.png: is cut short; copy it again"] * 2


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no such signal")
def test_a_worker_that_is_killed_is_named_within_seconds():
    start = time.monotonic()
    with pytest.raises(RuntimeError) as caught:
        [*batches(Images(killed), 1, batch_size=2)]
    assert time.monotonic() - start < 120
    line = in_words(caught.value)
    ends = ("is killed by signal: Killed", "exited unexpectedly")  # whichever torch sees first
    assert line.startswith(tuple(f"data.workers: a process that loads data {end}" for end in ends))
    assert "fewer data.workers" in line and "\n" not in line


def test_too_little_shared_memory_is_called_that(refused, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    refused(TOO_SMALL, lambda: [*batches(Images(int), 1, batch_size=2)])
    refused(TOO_SMALL, shared, torch.zeros(1), 1)
    assert shared(torch.zeros(1), 0).tolist() == [0], "it is not needed then"
    text = "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that ..."
    assert in_words(RuntimeError(text)) == TOO_SMALL
    assert collate([example(0)]).names == ("0",), "without workers nothing is shared"
    monkeypatch.setattr(torch.utils.data.DataLoader, "__iter__", without_room_for_queues)
    refused(TOO_SMALL, lambda: [*batches(Images(int), 1, batch_size=2)])


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "memory has run out"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: tried"), "train.micro_batch"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "CUDA out of memory"),
        (
            RuntimeError("DataLoader worker (pid(s) 5) exited unexpectedly"),
            "exited unexpectedly",
        ),
        (
            RuntimeError("Caught RuntimeError in DataLoader worker process 0.\nsizes differ"),
            None,
        ),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (RuntimeError("a shape does not fit"), None),
        (ValueError("out of memory"), None),
    ],
)
def test_faults_of_the_machine_in_words(error, words):
    line = in_words(error)
    assert line is None if words is None else words in line


def test_a_lost_process_is_named_among_several_alone(monkeypatch):
    error = RuntimeError("[pair.cc:538] Read error [127.0.0.1]: Connection closed by peer")
    assert in_words(error) is None
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "another process of the run has ended" in in_words(error)


def test_the_limit_of_open_files_is_raised_or_refused(refused, monkeypatch):
    resource = pytest.importorskip("resource")
    limits, chosen = {"now": (256, 5000)}, []
    monkeypatch.setattr(resource, "getrlimit", lambda kind: limits["now"])
    monkeypatch.setattr(resource, "setrlimit", lambda kind, pair: chosen.append(pair))
    assert len([*batches(Images(int), 1, batch_size=2)]) == 2 and chosen == [(2048, 5000)]
    limits["now"] = (100, 100)  # a process that loads data would wait for ever
    refused(["data.workers=1", "only 100 files", "ulimit -n"],
            lambda: [*batches(Images(int), 1, batch_size=2)])  # fmt: skip
