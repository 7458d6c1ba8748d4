"""Dataclasses of settings that do not exist with a wrong value, at whichever door they are made."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import PurePath
from types import MappingProxyType
from typing import Any, ClassVar, Self, get_type_hints

from samtune.errors import InputError, closest, meant
from samtune.options.docs import WithFieldDocs
from samtune.options.python_names import SCHEMAS, as_typed_in_python

_ALIKE = 0.65
"""How alike the letters of a name must be to be meant."""
_BY_WORDS: ContextVar[bool] = ContextVar("settings are made of a command line's words")


class Settings(metaclass=WithFieldDocs):
    """The base of frozen dataclasses of settings, which are checked when they are made.

    Values get the kinds of their fields, as a list becomes a tuple. In Python a message names a
    setting as it was typed there, ``lr``; on a command line, with its section, ``train.lr``.

    Raises:
        InputError: The first value that its type does not allow, or that does not go with others.
    """

    section: ClassVar[str] = ""
    """The prefix of its fields' names on a command line, as ``train``."""
    former_names: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Names of fields in earlier versions, which are still read, with the present names."""
    elsewhere: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Words that are often taken for fields, each with a clause that says where the matter is
    settled."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        SCHEMAS.append(cls)

    def __new__(cls, *args: Any, **values: Any) -> Self:
        """Refuses names that no field has, with the one that is meant."""
        names = [row.name for row in dataclasses.fields(cls)]  # type: ignore[arg-type]
        for name, value in values.items():
            if name not in names:
                if hint := meant(name, cls.elsewhere):
                    raise InputError(f"{name}: {hint}")
                near = closest(name, names, _ALIKE)
                hint = f"did you mean {near!r}? " if near else ""
                raise InputError(
                    f"{name}={value!r}: {cls.__name__} has no such setting; {hint}see "
                    f"help({cls.__name__})"
                )
        return super().__new__(cls)

    def __post_init__(self) -> None:
        if not _BY_WORDS.get(False):
            with as_typed_in_python(type(self)):
                self.take_parts()
                _settle(self)

    def take_parts(self) -> None:
        """Puts names in the place of classes that Python code gives, and trusts places in it.

        It does not run for the words of a command line or a file, whose places need trust.

        Raises:
            InputError: The first that cannot be such a part.
        """

    def check_together(self) -> None:
        """Refuses values that do not go with each other, or mean nothing; with the section's name.

        Raises:
            InputError: The first of them.
        """


@contextmanager
def made_of_words() -> Iterator[None]:
    """While settings are read from words and files, whose names have sections before them."""
    token = _BY_WORDS.set(True)
    try:
        yield
    finally:
        _BY_WORDS.reset(token)


def check_all_together(settings: Any) -> None:
    """Refuses values that do not go together, here and in the dataclasses within.

    Raises:
        InputError: The first of them.
    """
    if isinstance(settings, Settings):
        settings.check_together()
    for row in dataclasses.fields(settings):
        value = getattr(settings, row.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            check_all_together(value)


def plain_kind(value: Any) -> Any:
    """A value as a command line would give it: text for a path, Python's number for NumPy's."""
    if isinstance(value, PurePath):
        return str(value)
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return value.item()
    if isinstance(value, Mapping):
        return {key: plain_kind(one) for key, one in value.items()}
    return [plain_kind(one) for one in value] if isinstance(value, list | tuple) else value


def _settle(settings: Settings) -> None:
    """Gives what was set the kinds of its fields, and checks it."""
    from samtune.options.validation import validated

    kinds = _kinds_of(type(settings))
    values = {
        row.name: _as_list(plain_kind(value), kinds[row.name])
        for row in dataclasses.fields(settings)  # type: ignore[arg-type]
        if not _is_default(row, value := getattr(settings, row.name))
    }
    if values:
        checked = validated(type(settings), settings.section, values)
        for name in values:
            object.__setattr__(settings, name, getattr(checked, name))


@cache
def _kinds_of(schema: type) -> dict[str, Any]:
    """The types of a class's fields, of which each takes a while to evaluate."""
    return get_type_hints(schema)


def _as_list(value: Any, kind: Any) -> Any:
    """A text in the place of several, as on a command line: ``"iou,hd95"``, or one alone."""
    several = isinstance(value, str) and kind == tuple[str, ...]
    return [word.strip() for word in value.split(",")] if several else value


def _is_default(row: dataclasses.Field[Any], value: Any) -> bool:
    return type(value) is type(row.default) and value == row.default
