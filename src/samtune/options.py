"""Options as their types say: kinds, choices and ranges stand beside each field, and nowhere else.

A field of a settings dataclass carries its range in its type::

    rank: Count = 4
    top_k: Annotated[int, Range(at_least=1, at_most="experts")] = 1

:func:`validated` is the one place that reads them, for the command line and for Python. A setting
of a run also says who needs it, and which registry has its names::

    cosine: str = setting("step", level="published", names=COSINES)
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Annotated, Any, Literal, Protocol, get_args, get_origin, get_type_hints

from samtune.errors import InputError

Bound = float | str | None
"""A number, the name of another option whose value is the bound, or nothing."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """The numbers that an option may have, as a mark in its type: ``Annotated[int, Range(...)]``.

    NaN lies in no range.
    """

    at_least: Bound = None
    above: Bound = None
    at_most: Bound = None
    below: Bound = None
    note: str = ""
    """What follows the rule: a unit, or what counts."""
    remedy: str = ""
    """What ends a message if the rule does not say it: what to choose, or what a bound means."""

    def __str__(self) -> str:
        """The range in a few words, as ``at least 1``, ``0 to below 1`` or ``above 0, up to 1``."""
        return self.rule({})

    def rule(self, others: Mapping[str, Any]) -> str:
        """The range in words, with the values of ``others`` beside bounds that name an option."""

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
"""A probability such as a dropout's, which leaves something over."""
Fraction = Annotated[float, Range(at_least=0, at_most=1)]
"""A fraction of a whole."""
NotNegative = Annotated[float, Range(at_least=0)]
"""A size or a weight that may be nothing."""
PositiveFraction = Annotated[float, Range(above=0, at_most=1)]
"""A fraction of a whole that is never nothing."""


class _SwitchFirst:
    """A mark in the type of a union, for pydantic: its members are tried in their order."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return {**handler(source), "mode": "left_to_right"}


SwitchOrName = Annotated[bool | str, _SwitchFirst()]
"""True or false, also as the quoted words of YAML (``"no"``), or else a name."""


Level = Literal["everyday", "expert", "published"]
"""Who needs a setting: everybody; those who tune a training; those who repeat a published one."""


class Names(Protocol):
    """What knows the names that a setting takes, as a registry does."""

    def check(self, name: object) -> None:
        """Refuses a name that it does not know."""

    def __iter__(self) -> Iterator[str]: ...

    def __getitem__(self, name: str) -> type: ...


def setting(
    default: Any,
    *,
    level: Level = "everyday",
    names: Names | str | None = None,
    changeable: bool = False,
) -> Any:
    """A field of a settings dataclass; a field with a plain default is an everyday one.

    Args:
        default: Its value where nobody sets it.
        level: Who needs it.
        names: The registry whose members are its values, or its place as ``module:NAME`` if its
            members build on these settings. Each member's docstring is part of the setting's help.
        changeable: Whether it can be set anew for a trained model, as its tiles can.
    """
    about = {"level": level, "names": names, "changeable": changeable}
    return field(default=default, metadata=about)


def changeable(schema: type) -> tuple[str, ...]:
    """The fields of a settings dataclass that can be set anew for a trained model."""
    return tuple(row.name for row in dataclasses.fields(schema) if row.metadata.get("changeable"))


def level_of(row: dataclasses.Field[Any]) -> Level:
    """The level of a field."""
    return row.metadata.get("level", "everyday")


def names_of(row: dataclasses.Field[Any]) -> Names | None:
    """The registry whose members are a field's values, if there is one."""
    registry = row.metadata.get("names")
    if isinstance(registry, str):
        module, _, name = registry.partition(":")
        registry = getattr(import_module(module), name)
    return registry


def check_names(settings: Any) -> None:
    """Refuses a dataclass of which a field names a member that its registry does not have.

    Args:
        settings: An instance; fields that are dataclasses are checked too.

    Raises:
        InputError: With the names that there are.
    """
    for row in dataclasses.fields(settings):
        value, registry = getattr(settings, row.name), names_of(row)
        if registry is not None and value is not None:
            registry.check(value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            check_names(value)


def validated(schema: Any, prefix: str, values: Any) -> Any:
    """An instance of a dataclass from plain values: their kinds, choices and ranges are checked.

    Args:
        schema: The dataclass, whose fields may be dataclasses themselves.
        prefix: What stands before a field's name in a message, as ``adapter``.
        values: Its fields' values, as a mapping.

    Raises:
        InputError: The first value that its type does not allow, with the rule.
    """
    from pydantic import ValidationError

    try:
        settings = _adapter(schema).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        places = [str(part) for part in first["loc"] if isinstance(part, str) and "[" not in part]
        kinds = ("int", "str", "float", "bool", "constrained-str")
        if (registry := _names_at(schema, first["loc"])) is not None:
            registry.check(first["input"])
        key = ".".join([*([prefix] if prefix else []), *(p for p in places if p not in kinds)])
        rule = first["msg"].replace("Input should be", "must be")
        raise InputError(f"{key}={first['input']}: {rule[0].lower()}{rule[1:]}") from error
    check_values(settings, prefix)
    return settings


def _names_at(schema: Any, places: Sequence[Any]) -> Names | None:
    """The registry of the field at a place in a dataclass and those within it, if it has one."""
    registry = None
    for place in places:
        rows = dataclasses.fields(schema) if dataclasses.is_dataclass(schema) else ()
        row = next((row for row in rows if row.name == place), None)
        if row is None:  # a member of a list, or of a union
            break
        registry, schema = names_of(row), get_type_hints(schema)[row.name]
    return registry


def check_values(settings: Any, prefix: str) -> None:
    """Refuses a dataclass of which a value is out of its range, not finite, or not a known name.

    It is what :func:`validated` asks of values that have the kind of their field, for a dataclass
    that was made in Python.

    Args:
        settings: An instance; fields that are dataclasses are checked too.
        prefix: What stands before a field's name in a message, as ``adapter``.

    Raises:
        InputError: The first such value, with the rule.
    """
    check_ranges(settings, prefix)
    check_finite(settings, prefix)
    check_names(settings)


def check_ranges(settings: Any, prefix: str) -> None:
    """Refuses a dataclass of which a field lies out of the :class:`Range` in its type.

    Args:
        settings: An instance; fields that are dataclasses are checked too.
        prefix: What stands before a field's name in a message, as ``adapter``.

    Raises:
        InputError: The first such field: its value and its range.
    """
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    start = f"{prefix}." if prefix else ""
    schema: type = type(settings)
    for name, limits in ranges(schema).items():
        for limit in limits:
            if values[name] is not None and not limit.holds(values[name], values):
                remedy = f"; {limit.remedy}" if limit.remedy else ""
                rule = f"must be {limit.rule(values)}{remedy}"
                raise InputError(f"{start}{name}={values[name]}: {rule}")
    for name, value in values.items():
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            check_ranges(value, f"{start}{name}")


def check_finite(settings: Any, prefix: str) -> None:
    """Refuses a dataclass of which a number is NaN or infinite.

    Args:
        settings: An instance; fields that are dataclasses are checked too.
        prefix: What stands before a field's name in a message, as ``adapter``.

    Raises:
        InputError: The first such number.
    """
    for row in dataclasses.fields(settings):
        value = getattr(settings, row.name)
        key = f"{prefix}.{row.name}" if prefix else row.name
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{key}={value}: must be a finite number{_default(row)}")
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            check_finite(value, key)


def _default(row: dataclasses.Field[Any]) -> str:
    """The remedy that ends a message: the value to fall back on, if there is one."""
    if row.default in (None, dataclasses.MISSING):
        return ""
    return f"; the default is {row.default}"


@cache
def ranges(schema: type) -> dict[str, tuple[Range, ...]]:
    """The ranges that the fields of a dataclass have in their types, by the fields' names."""
    hints = get_type_hints(schema, include_extras=True)
    marks = {field.name: tuple(_ranges(hints[field.name])) for field in dataclasses.fields(schema)}
    return {name: limits for name, limits in marks.items() if limits}


def _ranges(hint: Any) -> Iterator[Range]:
    """The marks of a type, also of a union's members."""
    if get_origin(hint) is Annotated:
        yield from (mark for mark in hint.__metadata__ if isinstance(mark, Range))
    for part in get_args(hint):
        yield from _ranges(part)


@cache
def _adapter(schema: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(schema)
