"""The properties of a field of settings: who needs it, and which registry has its names."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import field
from importlib import import_module
from typing import Any, Literal, Protocol

Level = Literal["everyday", "expert", "published"]
"""Who needs a setting: everybody; those who tune a training; those who repeat a published one."""


class Names(Protocol):
    """A collection that knows the names that a setting takes, as a registry does."""

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
        default: The default value.
        level: Who needs it.
        names: The registry whose members are its values, or its place as ``module:NAME`` if its
            members build on these settings. Each member's docstring is part of the setting's help.
        changeable: Whether it can be changed for a trained model, as tiles can.
    """
    about = {"level": level, "names": names, "changeable": changeable}
    return field(default=default, metadata=about)


def changeable(schema: type) -> tuple[str, ...]:
    """The fields of a settings dataclass that can be changed for a trained model."""
    return tuple(row.name for row in dataclasses.fields(schema) if row.metadata.get("changeable"))


def level_of(row: dataclasses.Field[Any]) -> Level:
    """The level of a field."""
    return row.metadata.get("level", "everyday")


def published_settings(settings: Any) -> list[str]:
    """The fields of level ``published`` that a dataclass sets to other values than the default.

    They turn on rules that repeat published trainings.
    """
    rows = [row for row in dataclasses.fields(settings) if level_of(row) == "published"]
    return [row.name for row in rows if getattr(settings, row.name) != row.default]


def as_yaml(value: Any) -> str:
    """A default or an option in the form that a command line takes."""
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


def names_of(row: dataclasses.Field[Any]) -> Names | None:
    """The registry whose members are a field's values, if there is one."""
    registry = row.metadata.get("names")
    if isinstance(registry, str):
        module, _, name = registry.partition(":")
        registry = getattr(import_module(module), name)
    return registry


def is_pattern(value: object) -> bool:
    """Whether a setting's value is a pattern of files, or a path, and not a plain word."""
    return isinstance(value, str) and any(sign in value for sign in "*?/\\[.")
