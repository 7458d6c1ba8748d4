"""The weights with which a training ends, and their strength.

The base, at strength 0, is a candidate like every validation, if it can answer at all. After the
last step come the mean of the last weights, and the best weights at other strengths. Weights that
forget too much are not candidates. See :func:`choose`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise

from torch import Tensor

from samtune.distributed import share_buffers
from samtune.metrics.prompt_names import key_of
from samtune.model.feature_cache import FeatureCache
from samtune.model.finetuned import FineTuned
from samtune.model.strength import Strength, no_base, no_middle
from samtune.training.keeping import Keeping
from samtune.training.kinds import Kind, row_of, shared_by_trained, strengths_of
from samtune.training.schedule import NONE, FitConfig
from samtune.training.state import TrainingState
from samtune.training.validation import Measurement, Row, Validation

STRENGTHS = (0.25, 0.5, 0.75)
"""The strengths that ``train.strength=auto`` tries between 0 and 1."""
HALVINGS = 3
"""Number of further strengths between the highest that forgets nothing and the next."""
FEATURES = 2**30
"""Bytes for caching encoder results while decoders of several strengths are measured."""
NOTHING = -math.inf
"""The rank of a validation that had nothing to measure."""
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Judge:
    """Compares validations by the criterion; those that forget too much are excluded."""

    validation: Validation
    keeping: Keeping
    config: FitConfig
    no_base: str = ""
    """The reason why the base is no candidate, see :func:`samtune.model.strength.no_base`; empty if
    it is one."""
    kinds: tuple[Kind, ...] = ()
    """The kinds of prompts that get their own strengths; none if all share one."""

    def rank(self, row: Row) -> float:
        """A value for comparisons; higher is better."""
        return self.validation.criterion.rank(row)

    def is_better(self, row: Row, other: Row | None) -> bool:
        """Whether a validation is better than another one; not if it measured nothing."""
        return self.rank(row) > (NOTHING if other is None else self.rank(other))

    def watched(self, state: TrainingState) -> tuple[str, ...]:
        """The prompt modes that every validation measures."""
        return self.keeping.watched(state.kept_modes)

    def forgotten(self, row: Row, state: TrainingState) -> list[str]:
        """The monitored prompt modes on which weights lose more than they may.

        With a criterion over several prompts, its own prompts are monitored too. Prompts that the
        base cannot answer are not forgotten.
        """
        criterion, before = self.validation.criterion, state.zero_shot
        if before is None or self.no_base:
            return []
        modes = self.watched(state)
        if len(criterion.terms) > 1:
            modes = tuple(dict.fromkeys((*modes, *criterion.modes)))
        keys = {mode: key_of("iou", mode) for mode in modes}
        least = {mode: before.get(key, 0.0) - self.config.forget for mode, key in keys.items()}
        return [mode for mode, key in keys.items() if row[key] < least[mode]]


def take_validation(
    judge: Judge, state: TrainingState, row: Row, tensors: Tensors, warm: bool = True
) -> bool:
    """Records a validation of the current weights; returns whether it is the best so far.

    A validation without anything to measure is ignored.

    Args:
        judge: The comparison.
        state: The state; ``best``, ``top`` and ``since_best`` change.
        row: The validation, with its ``step``.
        tensors: The weights, on the CPU.
        warm: Whether the warm-up is over. Before, and until weights were better than the base, a
            validation without a better one is no reason to stop.
    """
    if judge.rank(row) == NOTHING:
        return False
    improved = judge.is_better(row, state.top)
    if improved:
        state.top, state.top_tensors = row, tensors
    if judge.is_better(row, state.best) and not judge.forgotten(row, state):
        state.best, state.best_tensors = {**row, "strength": 1.0}, tensors
        improved = True
    floor = None if judge.no_base else state.zero_shot
    counts = warm and judge.is_better(state.top or {}, floor)
    state.since_best = state.since_best + 1 if counts and not improved else 0
    return improved


def choose(judge: Judge, state: TrainingState, model: FineTuned, last: Tensors) -> None:
    """Chooses among all candidates after the last step: sets ``best`` and ``choice`` of a state.

    The trained weights act in full if they may: if they are better than the base, and forget
    nothing. The mean of weights, or a lower strength, then takes its place only if it is better by
    more than the standard error of the difference over the validation images, since the best of
    several is otherwise mostly the luckiest. If the best weights may not act in full, the best
    permitted candidate is chosen, and more strengths are tried between the highest that forgets
    nothing and the next one. If the base is no candidate, the trained weights act in full.

    If kinds of prompts get their own strengths (:mod:`samtune.training.kinds`), that is the one for
    all of them together, and nothing can be forgotten: the weights are the best, whatever they
    forget in full.

    Args:
        judge: The comparison.
        state: The state of the training; the ``curve`` of its ``choice`` has the validations by
            strength of the weights that were chosen, or that came nearest.
        model: To measure with; its weights and strength are others afterwards.
        last: The weights after the last step, on the CPU.
    """
    if state.zero_shot is None or (judge.rank(state.zero_shot) == NOTHING and state.top is None):
        state.choice = {"weights": f"step {state.step}", "curve": []}
        return
    with _features_kept(model):
        _Candidates(judge, state, model).choose(last)


def measurements_at_end(judge: Judge, model: FineTuned) -> int:
    """How often :func:`choose` measures a model as a rule.

    Args:
        judge: The comparison.
        model: The model that is trained.
    """
    config = judge.config
    strengths = 0 if no_base(model) else len([s for s in _strengths(config, model) if s < 1])
    mean = config.average != NONE and config.demanded_strength is None
    base_and_whole = 1 if mean else 2  # with a mean, the whole is measured for it
    by_kind = base_and_whole if judge.kinds else 0
    return strengths + (2 if mean else 0) + by_kind  # the mean, and what it is compared with


def drop_base(judge: Judge, state: TrainingState) -> None:
    """Replaces the base by the best trained weights, if the base is no candidate.

    Earlier versions treated it as one.
    """
    if judge.no_base and state.best is not None and state.best.get("strength", 1.0) == 0:
        state.best = None if state.top is None else {**state.top, "strength": 1.0}
        state.best_tensors = state.top_tensors


def measure_again(judge: Judge, state: TrainingState, model: FineTuned) -> None:
    """Measures a state's best weights again, because scores on other images do not compare.

    Args:
        judge: The comparison, on the current images.
        state: The state; ``best`` and ``top`` change, ``zero_shot`` and ``choice`` are dropped.
        model: To measure with; its weights and strength are others afterwards.
    """
    for name, tensors in (("best", state.best_tensors), ("top", state.top_tensors)):
        row = getattr(state, name)
        if row is None or not tensors or not Strength.read(row):
            setattr(state, name, None)
            continue
        model.load_state_dict(tensors)
        model.eval().strength = Strength.read(row)
        measured = judge.validation.measure(model, judge.watched(state)).row
        setattr(state, name, {**row, **measured})
    state.zero_shot, state.choice = None, None


@dataclass(frozen=True)
class _Candidate:
    """Weights at a strength, and their results, with ``step`` and ``strength``."""

    weights: str
    tensors: Tensors
    row: Row
    measurement: Measurement | None = None
    """The measurement; not kept for those made during training."""

    @property
    def strength(self) -> float:
        return float(self.row["strength"])


class _Candidates:
    """Measures and compares the candidates for the end of a training."""

    def __init__(self, judge: Judge, state: TrainingState, model: FineTuned) -> None:
        self.judge, self.state, self.model = judge, state, model
        assert state.zero_shot is not None
        self.base = _Candidate("", {}, {**state.zero_shot, "strength": 0.0})
        self.whole = self._of_training(state.best, state.best_tensors)
        """The trained weights in full, if they may act so."""
        self.winner = self.whole or self.base
        self._again: dict[str, Measurement] = {}

    def choose(self, last: Tensors) -> None:
        """See the function of this name."""
        state = self.state
        raw = self._weights_to_turn_down(last)
        if self.judge.no_base:  # there is nothing to turn it down to
            state.choice = {"weights": raw.weights, "curve": []}
            if self.judge.rank(raw.row) > NOTHING:
                self._end_with(raw)
            return
        if self.judge.kinds:
            raw = self._with_kinds(raw)
        self.winner = self.whole or self.base
        curve = [self.base]
        for strength in _strengths(self.judge.config, self.model):
            curve.append(raw if strength == 1 else self._measure(raw, strength))
        if self.judge.config.demanded_strength is None:
            for candidate in curve[1:]:
                self._take(candidate)
            if len(curve) > 2:
                curve += self._between(curve)
        else:  # somebody has chosen
            self.winner = curve[-1]
        if self.judge.kinds:
            self.winner = self._by_kind(raw, curve)
        if self.winner is self.base:
            state.best_tensors = raw.tensors
        else:
            self._end_with(self.winner)
        rows = sorted((candidate.row for candidate in curve), key=lambda row: row["strength"])
        state.choice = {"weights": raw.weights, "curve": rows}

    def _with_kinds(self, raw: _Candidate) -> _Candidate:
        """The weights in full, which may act so if they forget nothing; measured as the base is."""
        of_raw = self._measurement_of(raw)
        raw = replace(raw, row={**raw.row, **of_raw.row}, measurement=of_raw)
        self.base = replace(self._measure(raw, 0.0), weights="")
        self.base.row["step"] = 0
        self.whole = raw if self._may_replace(raw, None) else None
        return raw

    def _by_kind(self, raw: _Candidate, curve: Sequence[_Candidate]) -> _Candidate:
        """The weights at the strength of each kind of prompt, if these beat the base together.

        Else the trained kinds share one, if that beats the base, as a criterion of several terms
        may ask for; else it is the base.
        """
        validation = self.judge.validation
        criterion, own_mode = validation.criterion, validation.own_mode
        measured = {candidate.strength: self._measurement_of(candidate) for candidate in curve}
        together = self.winner.strength
        kinds, rows = self.judge.kinds, {candidate.strength: candidate.row for candidate in curve}
        for strength in (
            strengths_of(kinds, measured, criterion, own_mode, together),
            shared_by_trained(kinds, together),
        ):
            row = row_of(rows, strength, criterion, own_mode)
            if strength and self.judge.is_better(row, self.base.row):
                return replace(raw, row=row)
        self.state.best = self.base.row
        return self.base

    def _end_with(self, winner: _Candidate) -> None:
        self.state.best = {**winner.row, "weights": winner.weights}
        self.state.best_tensors = winner.tensors

    def _weights_to_turn_down(self, last: Tensors) -> _Candidate:
        """The best trained weights, in full, whatever they forget."""
        state, config = self.state, self.judge.config
        raw = self._of_training(state.top, state.top_tensors)
        if config.demanded_strength is not None:
            raw = self.whole or raw
        if config.average != NONE and state.averaged > 1:
            mean = _Candidate(f"mean of {state.averaged}", state.mean, {"step": state.step})
            mean = self._measure(mean, 1.0)
            if not self.judge.kinds and self._may_replace(mean, self.whole):
                self.whole = raw = mean
            elif raw is None or self._is_clearly_better(mean, raw):
                raw = mean
        if raw is None:
            raw = _Candidate(f"step {state.step}", last, {"step": state.step})
            raw = self._measure(raw, 1.0)
        return raw

    def _between(self, curve: Sequence[_Candidate]) -> list[_Candidate]:
        """Strengths between the highest that forgets nothing and the next one, which does."""
        edges = pairwise(curve)
        low, high = next((pair for pair in edges if self._forgets(pair[1])), (None, None))
        middles: list[_Candidate] = []
        while low and high and len(middles) < HALVINGS:
            if not self.judge.is_better(high.row, self.winner.row):
                break
            middle = self._measure(high, (low.strength + high.strength) / 2)
            middles.append(middle)
            self._take(middle)
            low, high = (low, middle) if self._forgets(middle) else (middle, high)
        return middles

    def _take(self, candidate: _Candidate) -> None:
        """Chooses a candidate if it is better than the winner, and clearly than its own whole."""
        better = self.judge.is_better(candidate.row, self.winner.row)
        same = self.whole is not None and self.whole.weights == candidate.weights
        if better and self._may_replace(candidate, self.whole if same else None):
            self.winner = candidate

    def _may_replace(self, candidate: _Candidate, other: _Candidate | None) -> bool:
        """Whether a candidate forgets nothing, and beats another one clearly or else the base."""
        if self._forgets(candidate):
            return False
        if other is None:
            floor = None if self.judge.no_base else self.base.row
            return self.judge.is_better(candidate.row, floor)
        return self._is_clearly_better(candidate, other)

    def _is_clearly_better(self, one: _Candidate, other: _Candidate) -> bool:
        gain = self.judge.rank(one.row) - self.judge.rank(other.row)
        if not gain > 0:
            return False
        return gain > self._measurement_of(one).error_beside(self._measurement_of(other))

    def _forgets(self, candidate: _Candidate) -> bool:
        return bool(self.judge.forgotten(candidate.row, self.state))

    def _of_training(self, row: Row | None, tensors: Tensors) -> _Candidate | None:
        """A validation that was better than all before it; the base's is none."""
        if row is None or not Strength.read(row):
            return None
        row = {key: value for key, value in row.items() if key != "strengths"}
        return _Candidate(f"step {row['step']}", tensors, {**row, "strength": 1.0})

    def _measurement_of(self, candidate: _Candidate) -> Measurement:
        """The results of a candidate; measured again if that was during training."""
        if candidate.measurement is None and candidate.weights not in self._again:
            self._again[candidate.weights] = self._validate(candidate, candidate.strength)
        return candidate.measurement or self._again[candidate.weights]

    def _measure(self, weights: _Candidate, strength: float) -> _Candidate:
        """The same weights at a strength."""
        measurement = self._validate(weights, strength)
        row = {"step": weights.row["step"], **measurement.row, "strength": strength}
        return replace(weights, row=row, measurement=measurement)

    def _validate(self, weights: _Candidate, strength: float) -> Measurement:
        self.model.load_state_dict(weights.tensors)
        share_buffers(self.model)
        self.model.eval().strength = strength
        of_kinds = (mode for kind in self.judge.kinds for mode in kind.modes)
        modes = dict.fromkeys((*self.judge.watched(self.state), *of_kinds))
        return self.judge.validation.measure(self.model, tuple(modes))


def _strengths(config: FitConfig, model: FineTuned) -> Sequence[float]:
    """The strengths above 0 that are candidates, in ascending order."""
    if config.demanded_strength is not None:
        return (config.demanded_strength,)
    return (1.0,) if config.strength == NONE or no_middle(model) else (*STRENGTHS, 1.0)


@contextmanager
def _features_kept(model: FineTuned) -> Iterator[None]:
    """Caches the encoder's results for validation images as far as they do not change."""
    before = model.cache
    if before is None and model.first_block:
        model.cache = FeatureCache(FEATURES)
    try:
        yield
    finally:
        model.cache = before
