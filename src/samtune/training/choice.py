"""Which weights a training ends with, and how much of them acts.

The base, at strength 0, is a candidate like every validation. After the last step come the mean of
the last weights, and the best weights at other strengths. What forgets too much is none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor

from samtune.distributed import share_buffers
from samtune.model.feature_cache import FeatureCache
from samtune.model.finetuned import FineTuned
from samtune.model.strength import no_middle
from samtune.training.criterion import key_of
from samtune.training.keeping import Keeping
from samtune.training.schedule import AUTO, NONE, FitConfig
from samtune.training.state import TrainingState
from samtune.training.validation import Row, Validation

STRENGTHS = (0.25, 0.5, 0.75)
"""The strengths that ``train.strength=auto`` tries between 0 and 1."""
FEATURES = 2**30
"""Bytes for what the encoder gives, while decoders of several strengths are measured."""
NOTHING = -math.inf
"""The rank of a validation that had nothing to measure."""
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Judge:
    """Compares validations: by the criterion, of those that forget too much none."""

    validation: Validation
    keeping: Keeping
    config: FitConfig

    def rank(self, row: Row) -> float:
        """For comparing, higher is better."""
        return self.validation.criterion.rank(row)

    def is_better(self, row: Row, other: Row | None) -> bool:
        """Whether a validation is better than another one; not if it measured nothing."""
        return self.rank(row) > (NOTHING if other is None else self.rank(other))

    def watched(self, state: TrainingState) -> tuple[str, ...]:
        """The prompt modes that every validation measures."""
        return self.keeping.watched(state.kept_modes)

    def forgotten(self, row: Row, state: TrainingState) -> list[str]:
        """The watched prompt modes of which weights lose more than they may.

        With a criterion over several prompts its own are watched too.
        """
        criterion, before = self.validation.criterion, state.zero_shot
        if before is None:
            return []
        modes = self.watched(state)
        if len(criterion.terms) > 1:
            modes = tuple(dict.fromkeys((*modes, *criterion.modes)))
        keys = {mode: key_of("iou", mode) for mode in modes}
        least = {mode: before.get(key, 0.0) - self.config.forget for mode, key in keys.items()}
        return [mode for mode, key in keys.items() if row[key] < least[mode]]


def take_validation(judge: Judge, state: TrainingState, row: Row, tensors: Tensors) -> bool:
    """Notes a validation of the present weights; whether it is better than all before it.

    A validation that has nothing to measure is passed over.

    Args:
        judge: Compares.
        state: What it changes: ``best``, ``top`` and ``since_best``.
        row: The validation, with its ``step``.
        tensors: The weights, on the CPU.
    """
    if judge.rank(row) == NOTHING:
        return False
    improved = judge.is_better(row, state.top)
    if improved:
        state.top, state.top_tensors = row, tensors
    if judge.is_better(row, state.best) and not judge.forgotten(row, state):
        state.best, state.best_tensors = {**row, "strength": 1.0}, tensors
        improved = True
    state.since_best = 0 if improved else state.since_best + 1
    return improved


def choose(judge: Judge, state: TrainingState, model: FineTuned, last: Tensors) -> list[Row]:
    """Chooses among all candidates after the last step: sets ``best`` and ``choice`` of a state.

    Args:
        judge: Compares.
        state: Of the training.
        model: To measure with; its weights and strength are others afterwards.
        last: The weights after the last step, on the CPU.

    Returns:
        The validations of the weights that were chosen, or that came nearest, by strength.
    """
    config, raw = judge.config, _Weights(f"step {state.step}", last, None)
    if state.zero_shot is None or (judge.rank(state.zero_shot) == NOTHING and state.top is None):
        state.choice = {"weights": raw.name, "curve": []}
        return []
    fixed = config.strength not in (AUTO, NONE)
    if fixed and state.best is not None:
        raw = _Weights(f"step {state.best['step']}", state.best_tensors, state.best)
    elif state.top is not None:
        raw = _Weights(f"step {state.top['step']}", state.top_tensors, state.top)
    with _features_kept(model):
        if config.average != NONE and state.averaged > 1:
            row = {"step": state.step, **_measure(judge, state, model, state.mean, 1.0)}
            if judge.is_better(row, raw.row):
                raw = _Weights(f"mean of {state.averaged}", state.mean, row)
        curve = [{**state.zero_shot, "strength": 0.0}]
        step = state.step if raw.row is None else raw.row["step"]
        for strength in _strengths(config, model):
            row = (
                raw.row
                if strength == 1 and raw.row is not None
                else {
                    "step": step,
                    **_measure(judge, state, model, raw.tensors, strength),
                }
            )
            curve.append({**row, "strength": strength})
    if fixed:  # somebody has chosen
        state.best, state.best_tensors = {**curve[-1], "weights": raw.name}, raw.tensors
    for row in curve[1:] if not fixed else ():
        if judge.is_better(row, state.best) and not judge.forgotten(row, state):
            state.best, state.best_tensors = {**row, "weights": raw.name}, raw.tensors
    if state.best is None or state.best["strength"] == 0:
        state.best_tensors = raw.tensors
    state.choice = {"weights": raw.name, "curve": curve}
    return curve


@dataclass(frozen=True)
class _Weights:
    """Weights that may be chosen, and their validation at full strength, if they had one."""

    name: str
    tensors: Tensors
    row: Row | None


def _strengths(config: FitConfig, model: FineTuned) -> Sequence[float]:
    """The strengths above 0 that are candidates, in ascending order."""
    if config.strength == AUTO:
        return (1.0,) if no_middle(model) else (*STRENGTHS, 1.0)
    return (1.0,) if config.strength == NONE else (float(config.strength),)


def _measure(
    judge: Judge, state: TrainingState, model: FineTuned, tensors: Tensors, strength: float
) -> Row:
    model.load_state_dict(tensors)
    share_buffers(model)
    model.eval().strength = strength
    return judge.validation.measure(model, judge.watched(state))


@contextmanager
def _features_kept(model: FineTuned) -> Iterator[None]:
    """If the encoder stays as it is, it runs once for each image of validation."""
    before = model.cache
    if before is None and model.adapter.detached:
        model.cache = FeatureCache(FEATURES)
    try:
        yield
    finally:
        model.cache = before
