"""A training that is as long as a time: how many steps fit into it, by the pace so far."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from samtune.training.schedule import (
    BACKWARD,
    FORWARD,
    FitConfig,
    total_steps,
    validation_period,
)

WORTH = 0.05
"""A training that is faster than expected goes on if it can do this fraction of its steps more."""
SURE = 4
"""The number of steps after which the length is shown."""
LATEST = 100
"""The pace is that of so many latest steps."""


@dataclass(frozen=True)
class Outside:
    """The rest of what ``train.time`` covers: all that a run does besides the training."""

    before: float = 0.0
    """Seconds that have passed before it."""
    images_after: int = 0
    """Images that are measured after it."""


class Budget:
    """How many steps fit into ``train.time``, with the validations between and after them.

    The number is chosen by the pace so far: before the first step, at steps 1, 2, 4, 8, ..., and
    after each validation; and the training ends early if the time does.

    Args:
        config: How training goes.
        batches: The batches of one process in an epoch.
        images: Validation images.
        measured_at_end: Measurements after the last validation, to choose the weights.
        outside: The other work that the time covers.
    """

    most = 1
    """The most validations, see :func:`samtune.training.schedule.most_validations`."""

    def __init__(
        self,
        config: FitConfig,
        batches: int,
        images: int = 0,
        measured_at_end: int = 0,
        outside: Outside | None = None,
    ) -> None:
        self.config, self.batches, self.images = config, batches, images
        self.measured_at_end, self.outside = measured_at_end, outside or Outside()
        self.limit = (config.seconds or math.inf) - self.outside.before
        self.validation = 0.0
        """Seconds of the latest validation."""
        self.longest = 0.0
        """Seconds of the longest validation. The base's asks all prompts, like those at the end."""
        self._steps: deque[float] = deque(maxlen=LATEST)
        self._known, self._begun, self._due = 0.0, False, True

    @property
    def bound(self) -> float:
        """The most steps by other settings of the length; infinite without them."""
        return total_steps(self.config, self.batches) if self.config.is_bounded else math.inf

    @property
    def step(self) -> float:
        """Seconds of a step; 0 while unknown."""
        return fmean(self._steps) if self._steps else self._known

    @property
    def is_squeezed(self) -> bool:
        """Whether more than half of the time is for measurements after the last step."""
        return self._after() + self.validation > self.limit / 2

    def tells(self, done: int) -> bool:
        """Whether there is something to say after so many steps: the pace, once, or too short."""
        return self.is_squeezed if done == 0 else len(self._steps) == SURE - 1

    @property
    def pace(self) -> dict[str, float]:
        """The pace as a state keeps it."""
        return {"step": self.step, "validation": self.validation, "longest": self.longest}

    @pace.setter
    def pace(self, pace: Mapping[str, float]) -> None:
        self._known, self.validation = pace.get("step", 0.0), pace.get("validation", 0.0)
        self.longest = pace.get("longest", self.validation)

    def note_step(self, seconds: float) -> None:
        """Takes the seconds of a step; the first of a process, which starts much, counts least."""
        if self._begun:
            self._steps.append(seconds)
        else:
            self._known, self._begun = seconds, True

    def note_validation(self, seconds: float, encodings: int, detached: bool) -> None:
        """Takes the seconds of a validation, which stand for a step as long as none was measured.

        Args:
            seconds: The seconds of the whole validation.
            encodings: Images or tiles that it encoded.
            detached: Whether the training has no gradient in the encoder.
        """
        self.validation, self._due = seconds, True
        self.longest = max(self.longest, seconds)
        passes = FORWARD if detached else FORWARD + BACKWARD
        images = self.config.whole_batch * self.config.accumulate
        self._known = self._known or passes * images * seconds / max(1, encodings)

    def total(self, done: int, plan: int, spent: float) -> int:
        """The steps of the whole training, at least ``done`` and at least 1.

        Args:
            done: Steps that are done.
            plan: The number of steps that was reported last.
            spent: Seconds since the training began.
        """
        left = self.limit - spent - self._after()
        if self.step + self.validation > left:
            return max(1, done)
        due = self._due or done >= plan or not done & (done - 1)
        if not due or not self.step:
            return max(plan, done, 1)
        self._due = False
        total = max(1, self._fitting(done, left))
        total = int(min(total, max(self.bound, done)))
        if done >= plan > 0 and total - done < WORTH * plan:
            return done
        return total

    def _after(self) -> float:
        """Seconds that are needed after the last validation."""
        each = self.validation / max(1, self.images)
        return self.measured_at_end * self.longest + self.outside.images_after * each

    def _fitting(self, done: int, left: float) -> int:
        """The largest number of steps whose rest, with its validations, takes at most ``left``."""
        low, high = done, done + int(left / self.step)
        while low < high:
            middle = (low + high + 1) // 2
            count = validations_between(self.config, done, middle, self.batches, self.most)
            fits = (middle - done) * self.step + count * self.validation <= left
            low, high = (middle, high) if fits else (low, middle - 1)
        return low


def validations_between(config: FitConfig, done: int, total: int, batches: int, most: int) -> int:
    """How many validations follow in a training of ``total`` steps, ``done`` of which are done.

    Args:
        config: How training goes.
        done: Steps so far.
        total: Steps in all, more than ``done``.
        batches: The batches of one process in an epoch.
        most: The most validations of a training.
    """
    if config.eval_every is None and config.eval_epochs is not None:
        length = config.eval_epochs * batches
        before, by_then = ((k * config.accumulate) // length for k in (done, total - 1))
        return by_then - before + 1
    period = config.eval_every or validation_period(config, total, batches, most)
    return (total - 1) // period - done // period + 1


def event_of_length(step: int, total: int, budget: Budget) -> dict[str, Any]:
    """The row of a log about how many steps fit into the time."""
    row = {
        "event": "time",
        "step": step,
        "steps": total,
        "time": budget.config.time,
        "seconds_per_step": budget.step,
        "seconds_per_validation": budget.validation,
    }
    if not budget.is_squeezed:
        return row
    return row | {
        "warning": f"note: train.time={budget.config.time}: most of it is for measurements; a "
        "longer time, fewer validation images or train.strength=none leave more for steps"
    }
