"""What goes wrong in a process that loads data reaches the reader as without one."""

import errno
import os
import signal
import time
from dataclasses import fields, is_dataclass, replace

import pytest
import torch
from torch.utils.data import Dataset, get_worker_info

from samtune.batch import Batch, Question
from samtune.data.collate import Example, collate
from samtune.data.loading import TOO_SMALL, batches, shared
from samtune.data.pace import TIMED_BATCHES, Pace, Room, bytes_of, workers_that_help
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


class Many(Images):
    def __len__(self):
        return 2 * (TIMED_BATCHES + 3)


def is_of_others(found):
    """Which batches came through shared memory."""
    return [batch.pixels.is_shared() for batch in found]


def test_auto_loads_here_until_the_times_of_the_first_batches_say_that_processes_help(monkeypatch):
    asked, answers = [], iter([0, 1])

    def count(loading, computing, batches, size, room):
        asked.append((loading > 0, computing > 0, batches, size > 0, room.cores > 0))
        return next(answers)

    monkeypatch.setattr("samtune.data.pace.workers_that_help", count)
    data, first, quiet = Many(int), TIMED_BATCHES + 1, []
    pace, alone = Pace(quiet=lambda: quiet.append(1)), [*batches(Many(int), 0, batch_size=2)]
    by_others = []
    for _ in range(3):
        found = [*batches(data, "auto", pace, batch_size=2)]
        assert [batch.names for batch in found] == [batch.names for batch in alone]
        by_others.append(sum(is_of_others(found)))
    # the second epoch begins with what the first has measured
    assert by_others == [0, len(alone), len(alone)]
    assert asked[0] == (True, True, len(alone) - first, True, True) and len(asked) == 2
    assert pace.workers == 1 and quiet


def test_auto_goes_on_here_if_there_is_no_room_for_processes(monkeypatch):
    monkeypatch.setattr("samtune.data.pace.workers_that_help", lambda *measured: 1)
    pace = Pace()
    with monkeypatch.context() as small:
        small.setattr(torch.Tensor, "share_memory_", full)
        found = [*batches(Many(int), "auto", pace, batch_size=2)]
    assert [batch.names for batch in found] == [
        b.names for b in batches(Many(int), 0, batch_size=2)
    ]
    assert pace.is_refused and not any(is_of_others(batches(Many(int), "auto", pace, batch_size=2)))


ROOM = Room(cores=8, busy=1, shared=8e9)


@pytest.mark.parametrize(
    ("loading", "computing", "count", "size", "room", "workers"),
    [
        (0.06, 0.03, 1000, 1e7, ROOM, 3),  # half as many again as keep up
        (0.5, 0.01, 1000, 1e7, ROOM, 7),  # a core is left to the computation
        (0.06, 0.03, 20, 1e7, ROOM, 0),  # over before it pays
        (0.001, 0.2, 10_000, 1e7, ROOM, 0),  # nothing to speak of, as with images in memory
        (0.06, 0.03, 1000, 1e7, ROOM._replace(cores=1), 0),
        (0.5, 0.01, 1000, 1e7, ROOM._replace(shared=1.3e8), 2),
        (0.5, 0.01, 1000, 1e7, ROOM._replace(shared=1e7), 0),
        (0.06, 1.0, 1000, 1e7, Room(2, 2, 8e9), 0),  # the CPU itself computes, on all cores
        (0.6, 1.0, 1000, 1e7, Room(2, 2, 8e9), 1),
    ],
)
def test_as_many_processes_as_save_time(loading, computing, count, size, room, workers):
    assert workers_that_help(loading, computing, count, int(size), room) == workers


def test_a_batch_is_pinned_where_it_goes_to_the_device(monkeypatch):
    asked = Question(Prompts.of(count=1), torch.ones(1, 4, 6), torch.zeros(1))
    one = replace(example(0), rehearsal=asked, dense={"x": torch.ones(1, 4, 6)})
    batch = replace(collate([one]), originals=(torch.ones(1, 4, 6),))
    seen = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: seen.append(self) or self.clone())
    pinned, moved = batch.pin_memory(), batch.to("meta")
    went = [t for t in tensors_of(moved) if t.is_meta]
    assert len(seen) == len(went) == 14 and pinned.originals is batch.originals
    assert bytes_of(pinned) == bytes_of(batch) > bytes_of(batch.pixels)


def tensors_of(value):
    if isinstance(value, torch.Tensor):
        return [value]
    if is_dataclass(value):
        value = [getattr(value, each.name) for each in fields(value)]
    if isinstance(value, dict):
        value = list(value.values())
    return (
        [t for each in value for t in tensors_of(each)] if isinstance(value, list | tuple) else []
    )


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
