"""Trainings side by side on this machine, each in a process and with GPUs on one of its own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from queue import SimpleQueue

import torch

from samtune.compare.launchers.command import TrainCommand
from samtune.compare.launchers.outcome import Failure, Outcomes
from samtune.compare.plan import Run

GPUS, THREADS = "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"


def visible_gpus() -> list[str]:
    """The names under which a process can be shown one GPU each."""
    names = [name.strip() for name in os.environ.get(GPUS, "").split(",") if name.strip()]
    return names or [str(index) for index in range(torch.cuda.device_count())]


def environments(device: str, jobs: int | None) -> list[dict[str, str]]:
    """The variables of each of the processes that run at the same time.

    Args:
        device: The setting of all runs.
        jobs: How many there are; by default one per GPU. With more jobs than GPUs they share them.
    """
    gpus = visible_gpus() if device in ("auto", "cuda") and torch.cuda.is_available() else []
    count = jobs or len(gpus) or 1
    threads = os.environ.get(THREADS) or str(max(1, (os.cpu_count() or 1) // count))
    each: list[dict[str, str]] = [{THREADS: threads} for _ in range(count)]
    for index, variables in enumerate(each):
        if gpus:
            variables[GPUS] = gpus[index % len(gpus)]
    return each


def train_side_by_side(runs: Sequence[Run], jobs: int | None) -> Outcomes:
    """Trains runs in processes, as many at once as there are jobs.

    If this process is stopped, all of them save and end.

    Args:
        runs: Their settings lie beside their folders.
        jobs: See :func:`environments`.
    """
    free: SimpleQueue[dict[str, str]] = SimpleQueue()
    each = environments(runs[0].config.device, jobs)
    for variables in each:
        free.put(variables)
    commands = [TrainCommand(run.folder) for run in runs]

    def train(command: TrainCommand) -> Failure | None:
        variables = free.get()
        try:
            return command(variables)
        finally:
            free.put(variables)

    pool = ThreadPoolExecutor(len(each))
    futures: dict[Future[Failure | None], Run] = {}
    try:
        for command, run in zip(commands, runs, strict=True):
            futures[pool.submit(train, command)] = run
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for command in commands:
            command.stop()
        pool.shutdown()
