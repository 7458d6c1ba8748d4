"""The command line run in the test's own process, on the tiny base."""

import contextlib
import io
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import tiny
from safetensors.torch import save_file

from samtune.cli.main import main
from samtune.sam.spec import SPECS


@dataclass(frozen=True)
class Answer:
    """What a command line ended with."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        """The last line of stdout."""
        return json.loads(self.out.splitlines()[-1])

    @property
    def last(self) -> str:
        """The last line of stderr, after exit code 2 and without a traceback."""
        assert self.code == 2, (self.code, self.out, self.err)
        assert "Traceback" not in self.err + self.out
        return self.err.splitlines()[-1]

    @property
    def line(self) -> str:
        """The one line of wrong input, and that it was."""
        assert self.code == 2, (self.code, self.out, self.err)
        assert self.err.startswith("samtune: ") and self.err.count("\n") == 1, self.err
        assert "Traceback" not in self.err + self.out
        return self.err


@dataclass(frozen=True)
class Trained:
    """A finished run."""

    root: Path
    base: Path
    folder: Path
    summary: dict

    @property
    def checkpoint(self) -> Path:
        """Its best weights."""
        return self.folder / "best.safetensors"


def exit_code(words: Iterable[object]) -> int:
    """Runs ``samtune WORDS``; the exit code."""
    try:
        main([str(word) for word in words])
    except SystemExit as end:
        return int(end.code or 0)
    raise AssertionError("main ends with SystemExit")


def settings(root: Path, base: Path, steps: int = 2) -> list[str]:
    """A short training on the tiny base."""
    return [
        f"data.root={root}",
        "base.name=tiny",
        f"base.weights={base}",
        f"train.max_steps={steps}",
        "data.augment=flips",
        "train.batch_size=2",
        "train.strength=1",  # such a training makes things worse
    ]


def write_base(path: Path) -> Path:
    """The tiny base as a file."""
    save_file({key: t.clone() for key, t in tiny.base().state_dict().items()}, path)
    return path


def train_once(folder: Path) -> Trained:
    """Trains for a few steps, with a validation in between, in ``folder``."""
    base, root = write_base(folder / "base.safetensors"), tiny.write_pairs(folder / "pairs")
    words = settings(root, base, 4)
    words += ["prompts.eval=box,point", "train.eval_every=2", "train.log_every=2"]
    said, here = io.StringIO(), Path.cwd()
    with mock.patch.dict(SPECS, {"tiny": tiny.TINY}), contextlib.redirect_stdout(said):
        os.chdir(folder)
        try:
            code = exit_code(["train", *words, "--json"])
        finally:
            os.chdir(here)
    assert code == 0
    summary = json.loads(said.getvalue().splitlines()[-1])
    return Trained(root, base, folder / Path(summary["checkpoint"]).parent, summary)
