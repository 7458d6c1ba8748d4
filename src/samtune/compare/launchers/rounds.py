"""All trainings of a comparison, those that failed once more after the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing

import yaml

from samtune.compare.launchers.command import settings_of
from samtune.compare.launchers.config import LaunchConfig
from samtune.compare.launchers.local import train_side_by_side, visible_gpus
from samtune.compare.launchers.outcome import Failure, Outcomes
from samtune.compare.launchers.ray_cluster import train_on_ray
from samtune.compare.launchers.sequential import train_one_by_one
from samtune.compare.plan import Run
from samtune.files import write_whole
from samtune.interrupts.boundaries import end_if_stopped
from samtune.interrupts.signals import with_hint
from samtune.report.terminal import Display

ELSEWHERE: dict[str, Callable[[Sequence[Run], int | None], Outcomes]] = {
    "local": train_side_by_side,
    "ray": train_on_ray,
}
"""The launchers that train in other processes."""


def train_all(
    runs: Sequence[Run], done: int, config: LaunchConfig, display: Display
) -> list[tuple[Run, Failure]]:
    """Trains runs, and returns those that failed to the end.

    Args:
        runs: The runs that are not done yet.
        done: Number of runs that are.
        config: How they are run.
        display: The output for the user.

    Raises:
        KeyboardInterrupt: The user stopped it; the message says how to continue.
    """
    total, waiting = done + len(runs), list(runs)
    failed: list[tuple[Run, Failure]] = []
    name = launcher_for(config, runs)
    for round_number in range(config.retries + 1):
        if not waiting:
            break
        if round_number:
            display.say(f"once more: {', '.join(run.title for run in waiting)}")
        again: list[tuple[Run, Failure]] = []
        try:
            with closing(_launched(name, waiting, config, display, done, total)) as outcomes:
                for run, failure in outcomes:
                    end_if_stopped()
                    done += failure is None
                    if name in ELSEWHERE and failure is None:
                        display.say(f"[{done}/{total}] {run.title}")
                    if failure is not None:
                        display.warn(f"{run.title}: failed: {failure.message}")
                        last = failure.refused or round_number == config.retries
                        (failed if last else again).append((run, failure))
        except KeyboardInterrupt as error:
            hint = f"{done} of {total} runs are done; go on with the same command"
            raise with_hint(error, hint) from None
        waiting = [run for run, _ in again]
    return failed


def launcher_for(config: LaunchConfig, runs: Sequence[Run]) -> str:
    """The launcher that ``auto`` stands for, or the one that is set."""
    if config.launcher != "auto":
        return config.launcher
    on_gpus = bool(runs) and runs[0].config.device in ("auto", "cuda") and len(visible_gpus()) > 1
    return "local" if on_gpus or (config.jobs or 1) > 1 else "sequential"


def _launched(
    name: str, runs: Sequence[Run], config: LaunchConfig, display: Display, done: int, total: int
) -> Outcomes:
    if name not in ELSEWHERE:
        return train_one_by_one(runs, display, done, total)
    for run in runs:
        text = yaml.safe_dump(run.config.tree(), sort_keys=False, allow_unicode=True)
        write_whole(settings_of(run.folder), text)
    return ELSEWHERE[name](runs, config.jobs)
