"""The files of a training: states to resume from, by time and on demand, and the best weights."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from samtune.distributed import from_main, is_connected, is_main
from samtune.errors import InputError
from samtune.files import read_tensors
from samtune.folder_lock import locked
from samtune.interrupts.boundaries import is_asked_to_save
from samtune.model.checkpoint import save, under_current_names
from samtune.model.finetuned import FineTuned
from samtune.model.header import BEST, read_header
from samtune.model.strength import Strength
from samtune.training.optimiser import Optimisation
from samtune.training.state import (
    TrainingState,
    has_state,
    mend_state,
    read_state,
    write_state,
)

if TYPE_CHECKING:
    from accelerate import Accelerator

LAST = "last"


class Saves:
    """Writes and reads the run folder of one training; of several processes the main one writes.

    Args:
        output: The folder; nothing is written without it.
        accelerator: The accelerator of the training.
        minutes: Between two states.
    """

    header: dict[str, Any]
    """Further values for the header of the best weights."""

    def __init__(self, output: Path | None, accelerator: Accelerator, minutes: float) -> None:
        self.output, self.accelerator, self.minutes = output, accelerator, minutes
        self.header = {}
        self._start = self._last = time.perf_counter()

    def begin(self, seconds: float) -> None:
        """Starts the clock.

        Args:
            seconds: Spent before.
        """
        self._last = time.perf_counter()
        self._start = self._last - seconds

    def spent(self) -> float:
        """Seconds since the training began, over all its processes one after another."""
        return time.perf_counter() - self._start

    def is_due(self) -> bool:
        """Whether a state should be written now, by time or since somebody asked for one."""
        return is_asked_to_save() or time.perf_counter() - self._last >= 60 * self.minutes

    def write(self, state: TrainingState, model: FineTuned, optimisation: Optimisation) -> None:
        """Writes a state.

        Raises:
            InputError: See :func:`write_state`.
        """
        state.seconds = self.spent()
        if self.accelerator.scaler is not None:
            state.scaler = self.accelerator.scaler.state_dict()
        if self.output is not None and self.accelerator.is_main_process:
            write_state(self.output / LAST, state, model, optimisation)
        self._last = time.perf_counter()

    def write_best(self, model: FineTuned, strength: float | None = None) -> None:
        """Writes the present weights as the best ones.

        Args:
            model: Stays as it is.
            strength: The strength that the file says instead of the model's.
        """
        if self.output is None or not self.accelerator.is_main_process:
            return
        try:
            read_header(self.output / BEST)
        except InputError:  # damaged; a file that is not a checkpoint would not be replaced
            with suppress(OSError):
                (self.output / BEST).unlink()
        before = model.strength
        model.strength = before if strength is None else strength
        save(model, self.output / BEST, **self.header)
        model.strength = before

    def read(self, model: FineTuned, optimisation: Optimisation) -> TrainingState:
        """The newest state; its weights and moments are put into the model and the optimiser.

        Raises:
            InputError: No state, a damaged one, or best weights of which there is no copy.
        """
        assert self.output is not None
        if self.accelerator.is_main_process and (line := mend_state(self.output / LAST)):
            warnings.warn(line, stacklevel=2)  # else a damaged state would displace the sound one
        state = read_state(self.output / LAST, model, optimisation)
        if state.scaler and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state.scaler)
        if not state.best_tensors and state.best is not None and Strength.read(state.best):
            state.best_tensors = self._best_on_disk(model)
        return state

    def _best_on_disk(self, model: FineTuned) -> dict[str, Tensor]:
        """The best weights of a run of version 0.1.0, whose states have no copy of them."""
        assert self.output is not None
        remedy = "copy it back, for nothing else can take the place of the best weights"
        return under_current_names(model, read_tensors(self.output / BEST, remedy))


@contextmanager
def locked_by_main(output: Path | None) -> Iterator[None]:
    """Locks the folder of a training for the block; of several processes the main one does.

    Args:
        output: The folder; without one there is nothing to lock. A run has locked its own already.

    Raises:
        InputError: Another training is going on in it.
    """
    with ExitStack() as stack:
        if output is not None:
            lock = locked(output, f"output={output}", within=[output / LAST], inner=True)
            if is_connected():
                from_main(lambda: stack.enter_context(lock))
            elif is_main():  # the launcher ends the others if it is refused
                stack.enter_context(lock)
        yield


def goes_on(output: Path | None, resume: bool) -> bool:
    """Whether there is a state to go on from, if that is wanted.

    Args:
        output: The folder of a training.
        resume: Whether a training in it may go on; else it must hold none.

    Raises:
        InputError: The folder holds a training, which would be overwritten.
    """
    if output is None:
        if resume:
            raise InputError("resume: give the run's folder as output")
        return False
    begun, has_best = has_state(output / LAST), (output / BEST).exists()
    if (begun or has_best) and not resume:
        raise InputError(holds_run(output, "resume=True"))
    if has_best and not begun:
        raise InputError(
            f"{output / LAST}: has no state to go on from, but {BEST} is there, which a new "
            f"training would replace; copy {LAST} back, or choose another folder"
        )
    return begun


def holds_run(output: Path, remedy: str) -> str:
    """The line for a folder in which a training would overwrite another one.

    Args:
        output: The folder.
        remedy: The setting with which the other one goes on.
    """
    return f"output={output}: holds a run already; choose another folder, or go on with {remedy}"


def tensors_of(model: FineTuned) -> dict[str, Tensor]:
    """Copies of all tensors that are saved."""
    return {key: t.detach().to("cpu", copy=True) for key, t in model.state_dict().items()}
