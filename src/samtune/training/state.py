"""The state of a training on disk: everything that resuming needs, without a pickle.

``last/`` holds ``trained-STEP.safetensors`` (adapter and decoder), ``optimizer-STEP.safetensors``
(its moments), where there are any ``top-STEP.safetensors`` and ``mean-STEP.safetensors`` (other
weights that may be chosen), and ``state.json``, which names the step. Files are replaced whole, and
``state.json`` last, so an interrupted write leaves the earlier state valid.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from samtune.errors import InputError
from samtune.files import write_tensors, write_whole
from samtune.model.checkpoint import under_current_names

COUNTERS = "state.json"
TENSORS = ("best_tensors", "top_tensors", "mean")
"""What of a state are tensors, and in no JSON."""


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
    """The prompt modes that are rehearsed."""
    best: dict[str, Any] | None = None
    """The best validation so far of those that forget nothing, with its ``strength``."""
    top: dict[str, Any] | None = None
    """The best of all that was trained, whatever it forgets."""
    since_best: int = 0
    """Validations since the later of the two."""
    bad: int = 0
    """Steps in a row without a finite loss."""
    validated: int = 0
    """The step of the last validation."""
    losses: list[float] = field(default_factory=list)
    """The losses of the steps since the last logged row."""
    seconds: float = 0.0
    """Spent so far."""
    scaler: dict[str, Any] = field(default_factory=dict)
    """The state of fp16's loss scale."""
    averaged: int = 0
    """How many weights are in the mean."""
    choice: dict[str, Any] | None = None
    """What was chosen after the last step: ``weights``, and the validations by strength."""
    best_tensors: dict[str, Tensor] = field(default_factory=dict)
    """The trained tensors of ``best.safetensors``, on the CPU."""
    top_tensors: dict[str, Tensor] = field(default_factory=dict)
    """Those of ``top``."""
    mean: dict[str, Tensor] = field(default_factory=dict)
    """The mean of the weights of the last part."""

    @property
    def candidates(self) -> dict[str, dict[str, Tensor]]:
        """The tensors that lie beside the trained ones, by the name of their file."""
        tensors = {"top": self.top_tensors, "mean": self.mean}
        return {name: part for name, part in tensors.items() if part}


def write_state(
    folder: Path, state: TrainingState, model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Writes ``last/``.

    Raises:
        InputError: The disk is full or the folder cannot be written.
    """
    trained = {key: t.detach().cpu().contiguous() for key, t in model.state_dict().items()}
    generation = f"{state.step:08d}"
    counters = {key: value for key, value in vars(state).items() if key not in TENSORS}
    text = json.dumps({"generation": generation, **counters})
    remedy = "free some space and resume"
    parts = {"trained": trained, "optimizer": _optimizer_tensors(optimizer), **state.candidates}
    for name, tensors in parts.items():
        write_tensors(folder / f"{name}-{generation}.safetensors", tensors, remedy)
    write_whole(folder / COUNTERS, text, remedy)
    for old in folder.glob("*.safetensors"):
        if not old.stem.endswith(generation):
            old.unlink()


def read_state(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> TrainingState:
    """Reads ``last/`` back into a model and its optimiser.

    Raises:
        InputError: No such state, or one of another model.
    """
    from safetensors.torch import load_file

    counters = read_counters(folder)
    generation = counters.pop("generation")
    trained = load_file(folder / f"trained-{generation}.safetensors")
    moments = load_file(folder / f"optimizer-{generation}.safetensors")
    try:
        model.load_state_dict(under_current_names(model, trained), strict=True)
        _load_optimizer(optimizer, moments)
    except (RuntimeError, ValueError, KeyError) as error:
        raise InputError(
            f"{folder}: the state is of another model or method; use the run's own config.yaml"
        ) from error
    state = TrainingState(**counters)
    for name, key in (("top", "top_tensors"), ("mean", "mean")):
        file = folder / f"{name}-{generation}.safetensors"
        if file.is_file():
            setattr(state, key, under_current_names(model, load_file(file)))
    return state


def read_counters(folder: Path) -> dict[str, Any]:
    """The counters of a state, see :class:`TrainingState`, and the ``generation`` of its tensors.

    Raises:
        InputError: No state there.
    """
    path = folder / COUNTERS
    if not path.is_file():
        raise InputError(
            f"{folder}: no state to resume from; give the folder of an earlier run, or start anew"
        )
    return json.loads(path.read_text("utf-8"))


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's state as flat tensors ``<parameter index>.<name>``."""
    return {
        f"{index}.{name}": torch.as_tensor(value).detach().cpu().contiguous().clone()
        for index, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    current = optimizer.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": current["param_groups"]})
