"""The words that say how the trainings of a comparison are run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from samtune.errors import InputError
from samtune.options import Count, CountOrZero, Settings

Name = Literal["auto", "sequential", "local", "ray"]


@dataclass(frozen=True)
class LaunchConfig(Settings):
    """How the trainings of a comparison are run."""

    launcher: Name = "auto"
    """``sequential``: one after another in this process. ``local``: side by side on this machine, a
    process each; with GPUs each has one of its own. ``ray``: on the machines of a Ray cluster.
    ``auto``: ``local`` where two GPUs or more are visible, else ``sequential``."""
    jobs: Count | None = None
    """Trainings at the same time; by default one per GPU, and with ``ray`` on machines without GPUs
    one per machine. They share the CPU's threads evenly."""
    retries: CountOrZero = 1
    """How often a training that failed is tried again, after the others; what is refused as wrong
    input is not."""

    def check_together(self) -> None:
        """Refuses a number of jobs that come one by one."""
        if self.launcher == "sequential" and self.jobs not in (None, 1):
            raise InputError(
                f"jobs={self.jobs}: launcher=sequential trains one at a time; say launcher=local"
            )
