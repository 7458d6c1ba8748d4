"""Where a training stands, on disk: everything that resuming needs, without a pickle.

``last/`` holds ``trained.safetensors`` (adapter and decoder), ``optimizer.safetensors`` (its
moments and
the random state) and ``state.json``. Files are replaced whole, and ``state.json`` last, so an
interrupted write leaves the earlier state valid.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from samtune.errors import InputError


@dataclass
class TrainingState:
    """The counters of a training."""

    step: int = 0
    """Optimiser steps done."""
    best: dict[str, Any] | None = None
    """The best validation so far."""
    since_best: int = 0
    """Validations since then."""
    bad: int = 0
    """Steps in a row without a finite loss."""
    best_tensors: dict[str, Tensor] = field(default_factory=dict)
    """The trained tensors of the best validation, on the CPU."""


def write_state(
    folder: Path, state: TrainingState, model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Writes ``last/``.

    Raises:
        InputError: The disk is full or the folder cannot be written.
    """
    from safetensors.torch import save_file

    trained = {key: t.detach().cpu().contiguous() for key, t in model.state_dict().items()}
    moments = _optimizer_tensors(optimizer)
    moments["rng"] = torch.get_rng_state()
    counters = {key: getattr(state, key) for key in ("step", "best", "since_best", "bad")}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        generation = f"{state.step:08d}"
        save_file(trained, folder / f"trained-{generation}.safetensors")
        save_file(moments, folder / f"optimizer-{generation}.safetensors")
        partial = folder / "state.json.partial"
        partial.write_text(json.dumps({"generation": generation, **counters}), "utf-8")
        os.replace(partial, folder / "state.json")
    except Exception as error:
        raise InputError(
            f"{folder}: the state could not be written ({error}); free some space and resume"
        ) from error
    for old in folder.glob("*.safetensors"):
        if not old.stem.endswith(generation):
            old.unlink()


def read_state(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> TrainingState:
    """Reads ``last/`` back into a model and its optimiser.

    Raises:
        InputError: No such state, or one of another model.
    """
    from safetensors.torch import load_file

    path = folder / "state.json"
    if not path.is_file():
        raise InputError(f"{folder}: no state to resume from; give the folder of an earlier run")
    counters = json.loads(path.read_text("utf-8"))
    generation = counters.pop("generation")
    trained = load_file(folder / f"trained-{generation}.safetensors")
    moments = load_file(folder / f"optimizer-{generation}.safetensors")
    torch.set_rng_state(moments.pop("rng"))
    try:
        model.load_state_dict(trained, strict=True)
        _load_optimizer(optimizer, moments)
    except (RuntimeError, ValueError, KeyError) as error:
        raise InputError(
            f"{folder}: the state is of another model or method; use the run's own config.yaml"
        ) from error
    return TrainingState(**counters)


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
