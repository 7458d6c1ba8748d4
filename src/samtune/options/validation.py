"""The one place that reads the types of options: their kinds, choices, ranges and names."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from numbers import Real
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from samtune.errors import InputError, nearest
from samtune.options.fields import as_yaml, names_of
from samtune.options.ranges import Range
from samtune.options.settings import check_all_together, made_of_words


def validated(schema: Any, prefix: str, values: Mapping[str, Any]) -> Any:
    """Builds a dataclass from plain values, whose kinds, choices and ranges are checked.

    Args:
        schema: The dataclass, whose fields may be dataclasses themselves.
        prefix: The prefix of field names in messages, as ``adapter``.
        values: The values of
            its fields.

    Raises:
        InputError: The first value that its type does not allow, with the rule.
    """
    from pydantic import ValidationError

    _refuse_switches(schema, prefix, values)
    with made_of_words():
        try:
            settings = _adapter(schema).validate_python(values)
        except ValidationError as error:
            raise _refusal(schema, prefix, values, error.errors()[0]["loc"]) from error
        check_values(settings, prefix)
        check_all_together(settings)
    return settings


def _refuse_switches(schema: Any, prefix: str, values: Mapping[str, Any]) -> None:
    """Refuses true and false in a field of numbers, which Python takes for 1 and 0."""
    hints = _hints(schema)
    for name, value in values.items():
        hint = hints.get(name)
        if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
            _refuse_switches(hint, f"{prefix}.{name}" if prefix else name, value)
        members = value if isinstance(value, list | tuple) else (value,)
        if any(isinstance(one, bool) for one in members) and not _allows(hint, bool):
            raise _refusal(schema, prefix, values, (name,))


def _allows(hint: Any, kind: type) -> bool:
    """Whether a type is a kind, includes it, or does not restrict kinds."""
    return hint in (None, Any, kind) or any(_allows(part, kind) for part in get_args(hint))


def _refusal(schema: Any, prefix: str, values: Any, place: Sequence[Any]) -> InputError:
    """The error for the field at a place in a dataclass, or in a nested one.

    Raises:
        InputError: The registry of that field does not have the name.
    """
    name, *within = place
    row = next(row for row in dataclasses.fields(schema) if row.name == name)
    key, hint, value = f"{prefix}.{name}".lstrip("."), _hints(schema)[name], values[name]
    if dataclasses.is_dataclass(hint) and within and isinstance(value, Mapping):
        return _refusal(hint, key, value, within)
    if (registry := names_of(row)) is not None:
        registry.check(value)
    near = nearest(value, _choices(hint)) if isinstance(value, str) else ""
    return InputError(f"{key}={as_yaml(value)}: must be {_in_words(hint)}{near}")


_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}


def _in_words(hint: Any) -> str:
    """The values that a type allows, as ``a whole number or a list of 2 whole numbers``."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _in_words(parts[0])
    if origin is Literal:
        words = [as_yaml(part) for part in parts]
        return words[0] if len(words) == 1 else f"one of {', '.join(words)}"
    kinds = [_in_words(part) for part in parts if part not in (..., type(None))]
    if origin in (Union, UnionType):
        return " or ".join(kinds)
    if origin not in (tuple, list):
        return _KINDS.get(hint, "a mapping of settings")
    if len(set(kinds)) > 1:
        return f"a list of {' and '.join(kinds)}"
    count = f"{len(kinds)} " if len(kinds) > 1 else ""
    return f"a list of {count}{kinds[0].removeprefix('a ')}s"


def _choices(hint: Any) -> list[str]:
    """The words of a type's choices."""
    if get_origin(hint) is Literal:
        return [str(part) for part in get_args(hint)]
    return [word for part in get_args(hint) for word in _choices(part)]


def check_values(settings: Any, prefix: str) -> None:
    """Refuses a dataclass with a value out of range, not a choice, not finite, or an unknown name.

    It applies the checks of :func:`validated` to objects built in Python, whose kinds are right.

    Args:
        settings: An instance; fields that are dataclasses are checked too.
        prefix: The prefix of field names in messages, as ``adapter``.

    Raises:
        InputError: The first such value, with the rule.
    """
    check_ranges(settings, prefix)
    check_finite(settings, prefix)
    check_names(settings)


def check_ranges(settings: Any, prefix: str) -> None:
    """Refuses a dataclass with a field outside of its type's :class:`Range` or choices.

    Args:
        settings: An instance; fields that are dataclasses are checked too.
        prefix: The prefix of field names in messages, as ``adapter``.

    Raises:
        InputError: The first such field: its value and its range.
    """
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    schema: type = type(settings)
    start = f"{prefix}." if prefix else ""
    for name, hint in _limiting(schema).items():
        value = values[name]
        if get_origin(hint) is Literal and value not in get_args(hint):
            raise _refusal(schema, prefix, values, (name,))
        for one, limit in () if value is None else _limited(hint, value):
            if one in _choices(hint) or (isinstance(one, str) and _allows(hint, str)):
                continue  # a word that stands for a number, or several
            if isinstance(one, bool) or not isinstance(one, Real):
                raise _refusal(schema, prefix, values, (name,))
            if not limit.holds(one, values):  # type: ignore[arg-type]
                is_list = isinstance(value, list | tuple)
                said, subject = (list(value), f"{one} ") if is_list else (value, "")
                remedy = f"; {limit.remedy}" if limit.remedy else ""
                rule = f"{subject}must be {limit.rule(values)}{remedy}"
                raise InputError(f"{start}{name}={said}: {rule}")
    for name, value in values.items():
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            check_ranges(value, f"{start}{name}")


def _limited(hint: Any, value: Any) -> Iterator[tuple[Any, Range]]:
    """A value, or the members of a list, with each range in its type."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (tuple, list):
        if isinstance(value, list | tuple):
            alike = origin is list or parts[-1] is ...
            for part, one in zip(parts[:1] * len(value) if alike else parts, value, strict=False):
                yield from _limited(part, one)
    elif origin is Annotated:
        if not isinstance(value, list | tuple):
            yield from ((value, mark) for mark in hint.__metadata__ if isinstance(mark, Range))
        yield from _limited(parts[0], value)
    elif origin in (Union, UnionType):
        for part in parts:
            yield from _limited(part, value)


def check_finite(settings: Any, prefix: str) -> None:
    """Refuses a dataclass with a number that is NaN or infinite.

    Args:
        settings: An instance; fields that are dataclasses are checked too.
        prefix: The prefix of field names in messages, as ``adapter``.

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
    """The remedy at the end of a message: the default value, if there is one."""
    if row.default in (None, dataclasses.MISSING):
        return ""
    return f"; the default is {row.default}"


@cache
def _limiting(schema: type) -> dict[str, Any]:
    """The types of a dataclass that have choices or ranges, by field name."""
    hints = _hints(schema)
    return {k: h for k, h in hints.items() if get_origin(h) is Literal or k in ranges(schema)}


@cache
def ranges(schema: type) -> dict[str, tuple[Range, ...]]:
    """The ranges in the types of a dataclass, by field name."""
    hints = _hints(schema)
    marks = {field.name: tuple(_ranges(hints[field.name])) for field in dataclasses.fields(schema)}
    return {name: limits for name, limits in marks.items() if limits}


def _ranges(hint: Any) -> Iterator[Range]:
    """The ranges of a type, including those of a union's members."""
    if get_origin(hint) is Annotated:
        yield from (mark for mark in hint.__metadata__ if isinstance(mark, Range))
    for part in get_args(hint):
        yield from _ranges(part)


@cache
def _hints(schema: type) -> dict[str, Any]:
    return get_type_hints(schema, include_extras=True)


@cache
def _adapter(schema: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(schema)


def check_names(settings: Any) -> None:
    """Refuses a dataclass with a field that names an unknown member of its registry.

    Args:
        settings: An instance; fields that are dataclasses are checked too.

    Raises:
        InputError: The name is unknown; the message lists the known ones.
    """
    for row in dataclasses.fields(settings):
        value, registry = getattr(settings, row.name), names_of(row)
        if registry is not None and value is not None:
            registry.check(value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            check_names(value)
