"""Trainings on the machines of a Ray cluster, each a task of its own.

All machines need samtune in the same version, and see data, base and output under the same paths,
as on a shared file system; what differs is said of each training.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from samtune.compare.launchers import command
from samtune.compare.launchers.outcome import Failure, Outcomes
from samtune.compare.plan import Run
from samtune.errors import check_packages
from samtune.runs.folder import SUMMARY


def train_on_ray(runs: Sequence[Run], jobs: int | None) -> Outcomes:
    """Trains runs on a cluster: that of ``RAY_ADDRESS``, one that runs here, or a new one here.

    If this process is stopped, all of them save and end.

    Args:
        runs: Their settings lie beside their folders.
        jobs: Trainings at the same time; by default one per GPU, or per machine without GPUs.

    Raises:
        InputError: Ray is not installed.
    """
    check_packages("launcher=ray", ["ray"], "ray")
    import ray

    ray.init(ignore_reinit_error=True, log_to_driver=False, logging_level="error")
    task = ray.remote(_train_here).options(
        max_retries=0, **resources_per_task(runs[0].config.device, jobs)
    )
    here = os.getcwd()
    tasks = {
        task.remote(here, str(run.folder), metadata.version("samtune"), command.PROGRAM): run
        for run in runs
    }
    waiting = list(tasks)
    try:
        while waiting:
            (ended, *_), waiting = ray.wait(waiting, num_returns=1)
            yield tasks[ended], _outcome(ended, tasks[ended])
    finally:
        for one in waiting:
            ray.cancel(one)
        if waiting:
            ray.wait(waiting, num_returns=len(waiting))


def resources_per_task(device: str, jobs: int | None) -> dict[str, float]:
    """The resources that Ray keeps free for each training, so that only so many run at once."""
    import ray

    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = sum(node.get("GPU", 0) for node in alive) if device != "cpu" else 0
    cpus = [int(node.get("CPU", 0)) for node in alive if node.get("CPU", 0) >= 1]
    count = jobs or int(gpus) or len(cpus)
    # a task lies on one machine: no more CPUs than the smallest one has
    threads = max(1, min([sum(cpus) // count, *cpus]))
    return {"num_cpus": threads, "num_gpus": min(1.0, gpus / count) if gpus else 0}


def _outcome(ended: Any, run: Run) -> Failure | None:
    """How a task ended, with what the cluster itself says of it."""
    import ray

    try:
        failure = ray.get(ended)
    except ray.exceptions.RayError as error:
        return Failure(f"Ray: {str(error).strip().splitlines()[0]}")
    if failure is None and not (run.folder / SUMMARY).is_file():
        return Failure(
            f"{run.folder}: is not on this machine; a cluster needs output= on a file system that "
            "all machines share",
            refused=True,
        )
    return failure


def _train_here(
    folder_of_work: str, folder: str, version: str, program: Sequence[str]
) -> Failure | None:
    """One training on whichever machine Ray chose, whose GPUs and threads Ray has set."""
    machine = os.uname().nodename if hasattr(os, "uname") else "a machine"
    if (here := metadata.version("samtune")) != version:
        return Failure(
            f"{machine} has samtune {here}, and {version} is asked for; install the "
            "same version on all machines",
            refused=True,
        )
    training = command.TrainCommand(Path(folder_of_work, folder), program)
    if not training.settings.is_file():
        return Failure(
            f"{training.settings}: is not on {machine}; a cluster needs data, base and output on a "
            "file system that all machines share",
            refused=True,
        )
    os.chdir(folder_of_work)
    return training({})
