"""Trainings that signals end or save, as ``test_distributed`` runs them in two processes.

A process sends itself a signal at a named place of a named step, so that nothing depends on time.
What follows in the same processes shows that they left together: else they would not meet again.
"""

import contextlib
import io
import json
import os
import signal
from pathlib import Path
from unittest import mock

from accelerate import PartialState
from commands import exit_code, settings

from samtune.evaluation import streaming
from samtune.training.saves import Saves
from samtune.training.stepping import Stepper
from samtune.training.trainer import Trainer

BEFORE_MEETING = (Stepper, "measure")
"""Between the gradient of a step and where processes meet to take it."""
IN_VALIDATION = (streaming, "_add_batch")
"""At a batch, of which the second process has none."""
TERM, USR1 = "SIGTERM", "SIGUSR1"
CASES = {
    "one": (TERM, (1,), BEFORE_MEETING, 1),
    "both": (TERM, (0, 1), BEFORE_MEETING, 2),
    "validation": (TERM, (0,), IN_VALIDATION, 2),
    "saves": (USR1, (1,), BEFORE_MEETING, 0),
}
"""The signal, who gets it, at which place, and after how many steps, by name."""


def main(root: str, base: str, out: str) -> None:
    """Writes ``OUT/signals-RANK.json``: of each case the exit code, the step and those saved."""
    rank = int(os.environ["RANK"])
    ends = {name: _end(rank, name, root, base) for name in CASES}
    Path(out, f"signals-{rank}.json").write_text(json.dumps(ends))


def _end(rank: int, name: str, root: str, base: str) -> dict:
    number, whose, (owner, place), after = CASES[name]
    original, run, write = getattr(owner, place), Trainer.run, Saves.write
    trainers, saved = [], []

    def signalled(*args):
        if rank in whose and trainers[0].state.step == after and trainers[1:] == []:
            trainers.append(None)  # once
            signal.raise_signal(getattr(signal, number))
        return original(*args)

    def seen(self):
        trainers.append(self)
        return run(self)

    def noted(self, state, *rest):
        saved.append(state.step)
        write(self, state, *rest)

    words = [*settings(Path(root), Path(base), 3), f"output={name}", "device=cpu"]
    words += ["train.eval_every=2", "train.log_every=1", "--quiet"]
    with (
        mock.patch.object(PartialState, "destroy_process_group"),
        mock.patch.object(owner, place, signalled),
        mock.patch.object(Trainer, "run", seen),
        mock.patch.object(Saves, "write", noted),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        code = exit_code(["train", *words])
    return {"code": code, "step": trainers[0].state.step, "saved": saved}
