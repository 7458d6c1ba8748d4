"""The criterion of a validation: one metric, or several over prompts, read from one line."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from samtune.errors import InputError, nearest
from samtune.metrics.contract import ALWAYS, GROUPS, MEASURES
from samtune.metrics.prompt_names import key_of
from samtune.prompts import AUTOMATIC, PromptModes

_TERM = re.compile(
    r"(?:(\d+\.?\d*|\.\d+)\s*\*\s*)?([A-Za-z_][\w.]*(?::[A-Za-z_][\w.]*)?)(?:\s*@\s*(\w+))?"
)
_WORST = re.compile(r"(min|max)\s*\((.*)\)")


class Term(NamedTuple):
    """A metric, of the validation's own prompts or of another mode, and its weight."""

    weight: float
    measure: str
    mode: str | None

    @property
    def key(self) -> str:
        """Its name in the row of a validation."""
        return self.measure if self.mode is None else key_of(self.measure, self.mode)


@dataclass(frozen=True)
class Criterion:
    """One number that says how good a validation is: the weighted mean of terms, or the worst.

    ``iou``, ``iou@none+iou@point``, ``2*iou@none+iou@box`` and ``min(iou@none,iou@point)`` are
    such; see :meth:`parse`.
    """

    terms: tuple[Term, ...]
    worst: bool = False
    """Whether the worst term counts alone."""

    @staticmethod
    def parse(text: str) -> Criterion:
        """Reads ``[weight *] metric [@ prompt] + ...``, or ``min(...)`` of terms without weights.

        Of errors, of which less is better, the worst is ``max(...)``. A name of several prompts
        stands for each of them. ``@everything`` and ``@instances`` are automatic modes, which find
        all objects without prompts.

        Raises:
            InputError: Not of that form, an unknown metric or prompt, a term twice, weights that
                are not positive, metrics of which some are better if higher and some if lower, one
                that is best at 0, or the best of them in place of the worst.
        """
        match = _WORST.fullmatch(text.strip())
        parts = re.split(r"\+", text) if match is None else match[2].split(",")
        terms = tuple(term for part in parts for term in _terms(part.strip(), text))
        criterion = Criterion(terms, match is not None)
        keys = [term.key for term in terms]
        if len(set(keys)) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise InputError(f"train.metric={text}: names {twice} twice; name it once")
        signed = next((term.key for term in terms if MEASURES[term.measure].signed), None)
        if signed is not None:
            raise InputError(
                f"train.metric={text}: {signed} is best at 0, and says nothing of how far off the "
                "images are; take count_error"
            )
        if len({MEASURES[term.measure].higher for term in terms}) > 1:
            raise InputError(
                f"train.metric={text}: of some of them more is better, of others less; take "
                "metrics of one kind"
            )
        worst = "min" if criterion.higher else "max"
        if match is not None and match[1] != worst:
            raise InputError(f"train.metric={text}: that is the best of them; set {worst}(...)")
        if match is not None and any(term.weight != 1 for term in terms):
            raise InputError(f"train.metric={text}: the worst has no weights; leave them out")
        return criterion

    def __str__(self) -> str:
        """The same in one form, which names its number in the row of a validation."""
        if self.worst:
            keys = ",".join(term.key for term in self.terms)
            return f"{'min' if self.higher else 'max'}({keys})"
        weights = ("" if term.weight == 1 else f"{term.weight:g}*" for term in self.terms)
        return "+".join(w + term.key for w, term in zip(weights, self.terms, strict=True))

    @property
    def measures(self) -> tuple[str, ...]:
        """The metrics that it needs."""
        return tuple(dict.fromkeys(term.measure for term in self.terms))

    @property
    def modes(self) -> tuple[str, ...]:
        """The prompt modes that it names."""
        modes = (term.mode for term in self.terms if term.mode is not None)
        return tuple(dict.fromkeys(modes))

    @property
    def higher(self) -> bool:
        """Whether more is better."""
        return MEASURES[self.terms[0].measure].higher

    def value(self, row: Mapping[str, Any]) -> float:
        """The number of a validation; NaN if one of its terms has nothing to measure.

        Args:
            row: The metrics by name, those of a prompt mode as ``iou@point``.
        """
        values = [float(row.get(term.key, math.nan)) for term in self.terms]
        if any(map(math.isnan, values)):
            return math.nan
        if self.worst:
            return min(values) if self.higher else max(values)
        if len(values) == 1:
            return values[0]
        weights = [term.weight for term in self.terms]
        total = sum(weight * value for weight, value in zip(weights, values, strict=True))
        return total / sum(weights)

    def rank(self, row: Mapping[str, Any]) -> float:
        """A value for comparisons, higher is better; minus infinity without anything to measure."""
        value = self.value(row)
        if math.isnan(value):
            return -math.inf
        return value if self.higher else -value


def over_modes(criterion: Criterion, modes: Sequence[str]) -> Criterion:
    """The same over several prompt modes, where it names none: the mean over them."""
    terms = [
        term._replace(mode=mode)
        for term in criterion.terms
        for mode in (modes if term.mode is None else [term.mode])
    ]
    return Criterion(tuple(dict.fromkeys(terms)), criterion.worst)


def _terms(part: str, text: str) -> list[Term]:
    match = _TERM.fullmatch(part)
    if match is None:
        raise InputError(
            f"train.metric={text}: {part!r} is no metric; write iou, iou@none+iou@point or "
            "min(iou@none,iou@point)"
        )
    weight, measure, name = float(match[1] or 1), match[2], match[3]
    if measure not in MEASURES:
        raise InputError(
            f"train.metric={text}: no such metric{nearest(measure, MEASURES.names())}; "
            "choose iou, dice or another that samtune metrics lists"
        )
    if measure not in list(MEASURES):
        MEASURES.outside.member(measure, f"train.metric={text}")
    if not 0 < weight < math.inf:
        raise InputError(f"train.metric={text}: weighs {measure} with {match[1]}; leave it out")
    if name in AUTOMATIC:
        if measure not in (*GROUPS["instances"], *ALWAYS):
            raise InputError(
                f"train.metric={text}: {name} has the metrics of instances, and no {measure}; take "
                f"msa@{name}, or another that samtune metrics lists under instances"
            )
        return [Term(weight, measure, name)]
    modes = [None] if name is None else PromptModes.of(name, "train.metric").names
    return [Term(weight, measure, mode) for mode in modes]
