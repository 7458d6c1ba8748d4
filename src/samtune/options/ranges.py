"""Allowed numbers and switches of an option, as marks in its type."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

Bound = float | str | None
"""A number, the name of another option whose value is the bound, or nothing."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """The allowed numbers of an option, as a mark in its type: ``Annotated[int, Range(...)]``.

    NaN lies in no range.
    """

    at_least: Bound = None
    above: Bound = None
    at_most: Bound = None
    below: Bound = None
    note: str = ""
    """Text after the rule: a unit, or what is counted."""
    remedy: str = ""
    """Text that ends a message if the rule does not say it: which value to choose, or what a bound
    means."""

    def __str__(self) -> str:
        """The range in a few words, as ``at least 1``, ``0 to below 1`` or ``above 0, up to 1``."""
        return self.rule({})

    def rule(self, others: Mapping[str, Any]) -> str:
        """The range in words, with values from ``others`` after bounds that name an option."""

        def words(bound: Bound) -> str:
            named = isinstance(bound, str) and bound in others
            return f"{bound} ({others[str(bound)]})" if named else str(bound)

        low = "" if self.above is None else f"above {words(self.above)}"
        high = "" if self.at_most is None else f"up to {words(self.at_most)}"
        high = high if self.below is None else f"below {words(self.below)}"
        if self.at_least is not None and high:
            return f"{words(self.at_least)} to {high.removeprefix('up to ')}{self.note}"
        low = low if self.at_least is None else f"at least {words(self.at_least)}"
        return ", ".join(part for part in (low, high) if part) + self.note

    def holds(self, value: float, others: Mapping[str, Any]) -> bool:
        """Whether a value lies in the range, with the values of ``others`` for named bounds."""
        rules = (
            (operator.ge, self.at_least),
            (operator.gt, self.above),
            (operator.le, self.at_most),
            (operator.lt, self.below),
        )
        bounds = [(rule, others[b] if isinstance(b, str) else b) for rule, b in rules]
        return all(b is None or rule(value, b) for rule, b in bounds)


Count = Annotated[int, Range(at_least=1)]
"""A whole number of things."""
Rate = Annotated[float, Range(at_least=0, below=1)]
"""A probability below 1, such as a dropout rate."""
Fraction = Annotated[float, Range(at_least=0, at_most=1)]
"""A fraction of a whole."""
CountOrZero = Annotated[int, Range(at_least=0)]
"""A whole number of things, or none."""
NotNegative = Annotated[float, Range(at_least=0)]
"""A size or a weight that may be 0."""
Positive = Annotated[float, Range(above=0)]
"""A size or a factor."""
PositiveFraction = Annotated[float, Range(above=0, at_most=1)]
"""A fraction of a whole, above 0."""


class _SwitchFirst:
    """A mark in the type of a union that makes pydantic try its members in their order."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return {**handler(source), "mode": "left_to_right"}


SwitchOrName = Annotated[bool | str, _SwitchFirst()]
"""True or false, also as the quoted words of YAML (``"no"``), or otherwise a name."""
