"""The strength of each kind of prompt, chosen on the validation images after a training.

The kinds that a validation can ask for are candidates whether or not they were trained. A trained
kind is treated as the whole model is: all of the training acts if that is better than the base, and
another strength takes its place only if it is clearly better, by more than the standard error of
the difference over the images. A kind that was not trained stays at the base, unless a strength is
better than it by more than twice this error: the best of several strengths is often the luckiest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from samtune.metrics.prompt_names import mode_of
from samtune.model.finetuned import FineTuned
from samtune.model.strength import Strength, no_kinds
from samtune.prompts import AUTOMATIC, EVERYTHING, NONE, PromptModes, kind_of
from samtune.training.criterion import Criterion, over_modes
from samtune.training.schedule import AUTO, FitConfig, asked_in_rounds
from samtune.training.validation import Measurement, Row

ALWAYS_ASKED = (NONE, "point", "box")
"""The kinds that every choice is about; masks only if they were trained."""
IOU = Criterion.parse("iou")
OF_TRAINED, OF_OTHERS = 1.0, 2.0
"""The number of standard errors that count as clearly better, for kinds that are trained or not."""


class Kind(NamedTuple):
    """A kind of prompt whose strength is chosen."""

    name: str
    modes: tuple[str, ...]
    """The prompt modes with which it is measured."""
    is_trained: bool

    def judged_by(self, criterion: Criterion, own_mode: str | None) -> Criterion:
        """The terms that a criterion has of this kind of prompt.

        Of one without such terms it is the first metric that it has of prompts, as the mean over
        the modes of this kind.
        """
        modes = [(term, term.mode or own_mode) for term in criterion.terms]
        of_kind = tuple(term for term, mode in modes if mode and _kind_in(mode) == self.name)
        if of_kind:
            return replace(criterion, terms=of_kind)
        terms = [term for term in criterion.terms if term.mode not in AUTOMATIC]
        one = Criterion((terms[0]._replace(weight=1.0, mode=None),)) if terms else IOU
        return over_modes(one, self.modes)


def chooses_kinds(config: FitConfig, model: FineTuned) -> bool:
    """Whether a training may choose a strength for each kind of prompt."""
    return config.strength == AUTO and not no_kinds(model)


def kinds_to_choose(
    config: FitConfig, model: FineTuned, trained_modes: PromptModes, keeps: bool
) -> tuple[Kind, ...]:
    """The kinds of prompts whose strengths a training chooses; none if they share one.

    Args:
        config: How training goes.
        model: The model that is trained.
        trained_modes: The prompts of the training.
        keeps: Whether prompts that are not trained count, see ``train.keep``.
    """
    if not keeps or not chooses_kinds(config, model):
        return ()
    direct = [mode for mode in trained_modes if not asked_in_rounds(mode)]
    kinds = []
    for name in dict.fromkeys((*ALWAYS_ASKED, *map(kind_of, direct))):
        modes = tuple(mode for mode in direct if kind_of(mode) == name)
        kinds.append(Kind(name, modes or (name,), name in trained_modes.kinds))
    return tuple(kinds)


def strengths_of(
    kinds: Sequence[Kind],
    by_strength: Mapping[float, Measurement],
    criterion: Criterion,
    own_mode: str | None,
    together: float,
) -> Strength:
    """The strengths of the kinds of prompts.

    Args:
        kinds: The kinds.
        by_strength: The validations of the same weights by strength, from 0, the base, to 1.
        criterion: The criterion of the training.
        own_mode: The prompt mode of the terms that name none.
        together: The strength that was chosen for all prompts together. A trained kind of which
            there is nothing to measure takes it.
    """
    by_kind = {}
    for kind in kinds:
        how = kind.judged_by(criterion, own_mode)
        rows = {level: one.judged_by(how) for level, one in by_strength.items()}
        if how.rank(rows[0.0].row) == how.rank(rows[1.0].row) == -math.inf:
            by_kind[kind.name] = together if kind.is_trained else 0.0
        else:
            by_kind[kind.name] = _best(rows, how, kind.is_trained)
    return Strength(together, by_kind)


def shared_by_trained(kinds: Sequence[Kind], together: float) -> Strength:
    """One strength for all kinds that are trained; the base answers the others."""
    return Strength(together, {k.name: together if k.is_trained else 0.0 for k in kinds})


def _best(by_strength: Mapping[float, Measurement], how: Criterion, is_trained: bool) -> float:
    """The strength of one kind, see above."""
    ranks = {level: how.rank(one.row) for level, one in by_strength.items()}

    errors = OF_TRAINED if is_trained else OF_OTHERS

    def is_clearly_better(level: float, other: float) -> bool:
        gain = ranks[level] - ranks[other]
        return gain > 0 and gain > by_strength[level].error_beside(by_strength[other], errors)

    acts_in_full = is_trained and ranks[1.0] > ranks[0.0]
    winner = rival = 1.0 if acts_in_full else 0.0
    for level in sorted(by_strength):
        if ranks[level] <= ranks[winner]:
            continue
        if (is_trained and not acts_in_full) or is_clearly_better(level, rival):
            winner = level
    return winner


def row_of(
    rows: Mapping[float, Row], strength: Strength, criterion: Criterion, own_mode: str | None
) -> Row:
    """The validation of a model whose kinds of prompts have their own strengths.

    Args:
        rows: The validations of its weights by strength.
        strength: The strengths.
        criterion: The criterion of the training.
        own_mode: The prompt mode of the numbers that name none.
    """
    row: Row = {}
    for key in rows[1.0]:
        mode = mode_of(key) or own_mode
        level = float(strength) if mode is None else strength.of(_kind_in(mode))
        row[key] = rows[level].get(key, math.nan)
    row["step"] = rows[1.0]["step"]
    return {**row, str(criterion): criterion.value(row), **strength.entries}


def _kind_in(mode: str) -> str:
    """The kind of prompt that a model gets in a mode, also in an automatic one."""
    if mode in AUTOMATIC:
        return "point" if mode == EVERYTHING else NONE
    return kind_of(mode)
