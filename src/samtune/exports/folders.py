"""Folders that run where samtune is installed: a checkpoint, and a program that loads it."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

from samtune.errors import InputError
from samtune.exports.base import Format, Job
from samtune.files import write_whole
from samtune.inference.places import REMEDY
from samtune.inference.predictor import PromptMismatch
from samtune.model.bundle import bundle
from samtune.model.checkpoint import check_modules, describe, read_header, save
from samtune.model.header import BUNDLE
from samtune.report.classes import Classes
from samtune.sam.locating import PACKAGED

PROGRAMS = Path(__file__).parent / "programs"
_CONSTANT = re.compile(r"^(?P<target>(?P<name>[A-Z_]+)(: [^=\n]+)?) = .*$", re.MULTILINE)


class LoadingFormat(Format):
    """A format whose program loads the checkpoint with samtune, so that it takes every model."""

    keeps_checkpoint = cuts = names_classes = True

    @dataclass(frozen=True)
    class Config(Format.Config):
        """The options of such a format."""

        background: int | None = None
        """The class that is no object, and is left out; by default that of the training data."""

    def check(self, job: Job) -> None:
        """Refuses what no checkpoint can hold, and a background that is no class.

        Raises:
            InputError: Such a background, or an adapter or a decoder that was given as a module.
        """
        background, count = job.options.get("background"), job.model.acting.decoder.classes
        if background is not None and not 0 <= background < (count or 0):
            has = f"the classes 0 to {count - 1}" if count else "no classes"
            raise InputError(f"format.background={background}: the model has {has}; leave it out")
        check_modules(describe(job.model), f"--format={self.name}")


def write_checkpoint(job: Job, folder: Path) -> Path:
    """Writes the model alone: unlike a run's, the file says nothing of data and folders.

    Of a bundle it is one too, with the base.
    """
    path = folder / f"{job.name}.safetensors"
    if (entry := bundle_entry(job)) is None:
        return save(job.model, path)
    with TemporaryDirectory() as place:
        alone = save(job.model, Path(place) / path.name)
        return bundle(alone, path, job.checkpoint, licence=entry["base_licence"])


def bundle_entry(job: Job) -> dict[str, Any] | None:
    """The entry of a bundle in the header of the checkpoint; ``None`` if it is no bundle."""
    return None if job.checkpoint is None else read_header(job.checkpoint).get(BUNDLE)


def write_program(job: Job, source: str, path: Path, **constants: Any) -> None:
    """Copies a program with values for the constants at its top.

    Args:
        job: Gives those that all programs have.
        source: The name of a module of :mod:`samtune.exports.programs`.
        path: The place to write to.
        constants: Further ones by name; those that a program lacks are not for it.
    """
    text = (PROGRAMS / f"{source}.py").read_text("utf-8")
    base = "" if job.base is None or bundle_entry(job) is not None else job.base.name
    values = {"CHECKPOINT": f"{job.name}.safetensors", "BASE": base, "THRESHOLD": job.threshold}
    values |= constants

    def assign(match: re.Match[str]) -> str:
        name = match["name"]
        return f"{match['target']} = {values[name]!r}" if name in values else match[0]

    text = _CONSTANT.sub(assign, text)
    write_whole(path, text, REMEDY)


def load_program(path: Path) -> ModuleType:
    """A program as a module, without the compiled copy that an import would leave beside it."""
    module = ModuleType(f"samtune exported {path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look there
    try:
        exec(compile(path.read_text("utf-8"), path, "exec"), module.__dict__)
    finally:
        del sys.modules[module.__name__]
    return module


@contextmanager
def other_prompts() -> Iterator[None]:
    """Lets a check ask with prompts that the model was not trained for, without a remark."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PromptMismatch)
        yield


def weights_note(job: Job) -> str:
    """A sentence for a README on the base that the checkpoint needs."""
    if bundle_entry(job) is not None:
        return "The file holds its base too."
    spec = job.model.sam.spec.name
    if spec in PACKAGED:
        return f"Its base, {spec}, ships with samtune."
    name = job.base.name if job.base is not None else f"the weights of {spec}"
    sha256 = describe(job.model)["base"]["sha256"]
    return (
        f"Put {name} beside it, the base that it was trained on (sha256 of its tensors {sha256})."
    )


def labels_of(job: Job) -> dict[int, str]:
    """The names of a model's masks by their number, each once, without the background's."""
    count = job.model.acting.decoder.classes
    if count is None:
        return {0: job.classes[0] if len(job.classes) == 1 else job.name}
    background = job.options.get("background")
    if background is None and job.checkpoint is not None:
        config = read_header(job.checkpoint).get("config", {})
        background = config.get("data", {}).get("background")
    return Classes(job.classes).distinct([i for i in range(count) if i != background])
