"""Trainings one after another in this process."""

from __future__ import annotations

import traceback
from collections.abc import Sequence

from samtune.compare.launchers.command import log_of
from samtune.compare.launchers.outcome import Failure, Outcomes
from samtune.compare.plan import Run
from samtune.errors import InputError
from samtune.files import write_whole
from samtune.report.terminal import Display
from samtune.runs.jobs import train
from samtune.runs.words import begun_or_new
from samtune.training.faults import in_words
from samtune.training.memory import count_peak_anew


def train_one_by_one(runs: Sequence[Run], display: Display, start: int, total: int) -> Outcomes:
    """Trains runs in their order; one that fails does not stop the others.

    Args:
        runs: To train, or to go on with.
        display: The output for the user.
        start: Number of runs that are done.
        total: Number of all runs.
    """
    for number, run in enumerate(runs, start + 1):
        display.say(f"[{number}/{total}] {run.title}")
        yield run, _train(run, display)


def _train(run: Run, display: Display) -> Failure | None:
    count_peak_anew()
    try:
        with display.without_lines():
            train(begun_or_new(run.config), display)
    except InputError as error:
        return Failure(str(error), refused=True)
    except Exception as error:
        reason = in_words(error) or f"{type(error).__name__}: {error}"
        log = log_of(run.folder)
        write_whole(log, traceback.format_exc())
        return Failure(f"{' '.join(reason.split())}; see {log}")
    return None
