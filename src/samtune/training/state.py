"""The state of a training on disk: everything that resuming needs, without a pickle.

``last/`` holds ``trained-STEP.safetensors`` (adapter and decoder), ``optimizer-STEP.safetensors``
(its moments), other weights that may be chosen (``top``, ``mean`` and ``best``, where they differ
from each other), and ``state.json``, which names these files. A file of tensors is never changed;
``state.json`` is replaced last, so an interrupted write leaves the earlier state valid. That stays
as ``previous.json`` with its files: if the newest state is damaged, a training goes on from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from samtune.errors import InputError
from samtune.files import (
    checksum_of,
    read_sealed,
    read_tensors,
    sealed_json,
    write_tensors,
    write_whole,
)
from samtune.model.checkpoint import under_current_names
from samtune.training.optimiser import Optimisation

COUNTERS = "state.json"
PREVIOUS = "previous.json"
TENSORS = ("best_tensors", "top_tensors", "mean")
"""The fields of a state that are tensors, and are not in a JSON file."""
REMEDY = "copy it back, or start a new run"


@dataclass
class TrainingState:
    """The counters of a training."""

    step: int = 0
    """Optimiser steps done."""
    zero_shot: dict[str, Any] | None = None
    """The validation of the base, before the first step."""
    encodings: int = 0
    """Images or tiles that this validation encoded."""
    kept_modes: list[str] = field(default_factory=list)
    """The prompt modes to keep, see ``train.keep``."""
    best: dict[str, Any] | None = None
    """The best validation so far of those that forget nothing, with its ``strength``."""
    top: dict[str, Any] | None = None
    """The best of all that was trained, whatever it forgets."""
    since_best: int = 0
    """Validations since the later of the two."""
    at_once: int = 0
    """Images of a batch that are computed at once since memory ran out; 0 if it never did."""
    pace: dict[str, float] = field(default_factory=dict)
    """The pace so far with ``train.time``, see :class:`samtune.training.budget.Budget`."""
    bad: int = 0
    """Steps in a row without a finite loss."""
    validated: int = 0
    """The step of the last validation."""
    losses: list[float] = field(default_factory=list)
    """The losses of the steps since the last logged row."""
    not_finite: int = 0
    """Losses since that row that were not finite."""
    seconds: float = 0.0
    """Spent so far."""
    scaler: dict[str, Any] = field(default_factory=dict)
    """The state of fp16's loss scale."""
    user_parts: dict[str, Any] = field(default_factory=dict)
    """State of the user's optimiser and schedule besides tensors, see
    :meth:`samtune.training.optimiser.Optimisation.state`."""
    averaged: int = 0
    """How many weights are in the mean."""
    choice: dict[str, Any] | None = None
    """The choice after the last step: ``weights``, and the validations by strength."""
    best_tensors: dict[str, Tensor] = field(default_factory=dict)
    """The trained tensors of ``best.safetensors``, on the CPU."""
    top_tensors: dict[str, Tensor] = field(default_factory=dict)
    """The tensors of ``top``."""
    mean: dict[str, Tensor] = field(default_factory=dict)
    """The mean of the weights of the last part."""

    @property
    def candidates(self) -> dict[str, dict[str, Tensor]]:
        """The tensors that lie beside the trained ones, by the name of their file."""
        tensors = {"top": self.top_tensors, "mean": self.mean}
        tensors |= {"best": self.best_tensors} if self.best_of == "best" else {}
        return {name: part for name, part in tensors.items() if part}

    @property
    def best_of(self) -> str | None:
        """The name of the candidate to which the best tensors belong."""
        if not self.best_tensors:
            return None
        if self.best_tensors is self.top_tensors:
            return "top"
        return "mean" if self.best_tensors is self.mean else "best"


def has_state(folder: Path) -> bool:
    """Whether there is a state to go on from in ``last/``, or what was one."""
    return any((folder / name).is_file() for name in (COUNTERS, PREVIOUS))


def write_state(
    folder: Path, state: TrainingState, model: nn.Module, optimisation: Optimisation
) -> None:
    """Writes ``last/``; the newest state of an earlier step stays as the previous one.

    The two share no file, so that a damaged one costs one of them. A step may be saved several
    times, as before and after its validation: the later of these states takes the place of the
    earlier one, and the files in which they agree.

    Raises:
        InputError: The disk is full or the folder cannot be written.
    """
    generation = f"{state.step:08d}"
    moments, state.user_parts = optimisation.state()
    left_out = TENSORS if state.user_parts else (*TENSORS, "user_parts")
    counters = {key: value for key, value in vars(state).items() if key not in left_out}
    remedy = "free some space and resume"
    weights = {key: t.detach().cpu().contiguous() for key, t in model.state_dict().items()}
    parts = {"trained": weights, "optimizer": moments, **state.candidates}
    earlier = _sound_counters(folder)
    replaced, other = _replaced_and_other(state.step, earlier)
    files = {
        part: _file_of(folder, part, generation, tensors, replaced, earlier)
        for part, tensors in parts.items()
    }
    reused = set(_files(replaced).values())
    new = {part: file[0] for part, file in files.items() if file not in reused}
    for part, name in new.items():
        write_tensors(folder / name, parts[part], remedy)
    tree = {"generation": generation, "files": files, "best_of": state.best_of, **counters}
    if other and other is earlier.get(COUNTERS):
        write_whole(folder / PREVIOUS, sealed_json(other), remedy)
    write_whole(folder / COUNTERS, sealed_json(tree), remedy)
    names = {name for name, _ in (*files.values(), *_files(other).values())}
    for old in folder.glob("*.safetensors"):
        if old.name not in names:
            old.unlink()


def read_state(folder: Path, model: nn.Module, optimisation: Optimisation) -> TrainingState:
    """Reads ``last/`` back into a model and its optimiser.

    Raises:
        InputError: No such state, one of another model, or the newest and the previous one are
            damaged.
    """
    counters, tensors = _newest(folder)[:2]
    for key in ("generation", "files"):
        counters.pop(key, None)
    best_of = str(counters.pop("best_of", None))
    try:
        model.load_state_dict(under_current_names(model, tensors["trained"]), strict=True)
        optimisation.load(tensors["optimizer"], counters.get("user_parts", {}))
    except InputError:
        raise
    except (RuntimeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(
            f"{folder}: the state is of another model or method; use the run's own config.yaml"
        ) from error
    state = TrainingState(**counters)
    candidates = tensors.keys() & {"top", "mean", "best"}
    named = {part: under_current_names(model, tensors[part]) for part in candidates}
    state.top_tensors, state.mean = named.get("top", {}), named.get("mean", {})
    state.best_tensors = named.get(best_of, {})
    return state


def mend_state(folder: Path) -> str | None:
    """Puts the previous state in the place of a damaged one; a line about it if there was one.

    Raises:
        InputError: There is no state, or both are damaged.
    """
    counters, _, damage = _newest(folder)
    if damage is None:
        return None
    write_whole(folder / COUNTERS, sealed_json(counters))
    return f"{damage}; the run goes on from the state before it, of step {counters['step']}"


def read_counters(folder: Path, name: str = COUNTERS) -> dict[str, Any]:
    """The counters of a state, see :class:`TrainingState`, and the ``generation`` of its tensors.

    Args:
        folder: ``last/`` of a run.
        name: The file of the newest or of the previous state.

    Raises:
        InputError: No state there, or a damaged one.
    """
    if not has_state(folder):
        raise InputError(
            f"{folder}: no state to resume from; give the folder of an earlier run, or start anew"
        )
    tree = read_sealed(folder / name, REMEDY)
    for key, value in tree.items():
        if not isinstance(value, _KINDS.get(key, object)):
            raise InputError(f"{folder / name}: is damaged ({key} is {value!r}); {REMEDY}")
    if unknown := sorted(tree.keys() - _KINDS.keys()):
        raise InputError(
            f"{folder / name}: has {unknown[0]}, which this version does not know; upgrade with "
            "pip install -U samtune"
        )
    return tree


def trained_tensors(folder: Path) -> dict[str, Tensor]:
    """The trained tensors of a state.

    Args:
        folder: ``last/`` of a run.

    Raises:
        InputError: As :func:`read_counters`.
    """
    return _newest(folder)[1]["trained"]


_KINDS: dict[str, Any] = {
    **dict.fromkeys(("step", "validated", "since_best", "bad", "averaged", "not_finite"), int),
    "at_once": int,
    "pace": dict,
    **dict.fromkeys(("zero_shot", "best", "top", "choice"), (dict, type(None))),
    **dict.fromkeys(("seconds", "encodings"), (int, float)),
    **{"losses": list, "kept_modes": list, "scaler": dict, "user_parts": dict},
    **{"generation": str, "files": dict, "best_of": (str, type(None))},
}
"""The types of the entries in ``state.json``."""


def _newest(folder: Path) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]], str | None]:
    """The counters and tensors of the newest complete state, and the damage of newer ones."""
    try:
        return *_whole(folder, COUNTERS), None
    except InputError as error:
        if not (folder / PREVIOUS).is_file():
            raise
        damage = str(error).rpartition("; ")[0]
    try:
        return *_whole(folder, PREVIOUS), damage
    except InputError as error:
        raise InputError(f"{damage}; and so is the state before it: {error}") from None


def _whole(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    counters = read_counters(folder, name)
    if "step" not in counters or not ({"generation", "files"} & counters.keys()):
        raise InputError(f"{folder / name}: is damaged (it lacks entries); {REMEDY}")
    parts = {}
    try:
        files = _files(counters)
    except (TypeError, ValueError) as error:
        what = "is damaged (its list of files)"
        raise InputError(f"{folder / name}: {what}; {REMEDY}") from error
    for part, (file, checksum) in files.items():
        optional = checksum is None and part not in ("trained", "optimizer")
        if optional and not (folder / file).is_file():
            continue
        parts[part] = read_tensors(folder / file, REMEDY)
        if checksum not in (None, checksum_of(parts[part], {})):
            raise InputError(f"{folder / file}: is of another state; {REMEDY}")
    return counters, parts


def _files(counters: Mapping[str, Any]) -> dict[str, tuple[str, str | None]]:
    """The files of a state by part, and their checksums; those of version 0.1.0 have none."""
    if "files" not in counters:
        parts = ("trained", "optimizer", "top", "mean") if "generation" in counters else ()
        return {part: (f"{part}-{counters['generation']}.safetensors", None) for part in parts}
    listed = counters["files"].items()
    return {part: (str(name), str(checksum)) for part, (name, checksum) in listed}


def _sound_counters(folder: Path) -> dict[str, dict[str, Any]]:
    """The counters of the newest and of the previous state, by their files, of those readable."""
    readable = {}
    for name in (COUNTERS, PREVIOUS):
        try:
            counters = read_counters(folder, name)
            _files(counters)
        except (InputError, TypeError, ValueError):
            continue
        readable[name] = counters
    return readable


def _replaced_and_other(
    step: int, earlier: Mapping[str, dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The counters of the state that one of a step replaces, and of the one that stays beside it.

    Either may be missing, and is empty then.
    """
    newest, previous = earlier.get(COUNTERS, {}), earlier.get(PREVIOUS, {})
    again = bool(newest and previous) and newest.get("step") == step
    if again and _files(newest).items().isdisjoint(_files(previous).items()):
        return newest, previous
    return {}, previous if again else newest or previous


def _file_of(
    folder: Path,
    part: str,
    generation: str,
    tensors: Mapping[str, Tensor],
    replaced: Mapping[str, Any],
    earlier: Mapping[str, Mapping[str, Any]],
) -> tuple[str, str]:
    """The file of some tensors and their checksum: the replaced state's if it has them, or new."""
    checksum = checksum_of(tensors, {})
    name, before = _files(replaced).get(part, ("", None))
    if before == checksum and (folder / name).is_file():
        return name, checksum
    taken = {name for counters in earlier.values() for name, _ in _files(counters).values()}
    name, count = f"{part}-{generation}.safetensors", 1
    while name in taken:
        count += 1
        name = f"{part}-{generation}-{count}.safetensors"
    return name, checksum
