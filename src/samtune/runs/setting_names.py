"""Finds the setting that is meant by an unknown name."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from samtune.errors import SYNONYMS, InputError, closest
from samtune.model.packages import REGISTRIES
from samtune.options import as_yaml
from samtune.registry import Registry

ALIKE = 0.75
"""Required similarity of a name's letters, if its group is unknown."""


def unknown(key: str, value: Any, prefix: str, schema: type, root: type) -> InputError:
    """The error for an unknown setting, with the setting that is meant.

    Args:
        key: The name, as in a group or alone.
        value: Its value.
        prefix: The group before the name with its dot, or nothing.
        schema: The settings of that group.
        root: All settings.
    """
    known = [row.name for row in dataclasses.fields(schema)]
    whose = f"{prefix}{key}: no such setting"
    if not isinstance(value, Mapping) and (names := _meant(key, value, prefix, known, root)):
        words = " or ".join(f"{name}={_word(value)}" for name in names)
        return InputError(f"{whose}; did you mean {words}?")
    if near := closest(key, known, 0.5 if prefix else ALIKE):
        return InputError(f"{whose}; did you mean {near!r}?")
    return InputError(f"{whose}; known are {', '.join(prefix + name for name in known)}")


def meaning(word: str, value: str, root: type) -> str | None:
    """The setting, with its value, that a word such as ``lr`` stands for, as on a command line.

    Args:
        word: A setting's name, in full or its last part, or other tools' name for it.
        value: What it is set to.
        root: All settings.
    """
    plain = word.replace("-", "_")
    known = plain in dict(_settings(root))
    meant = [plain] if known else _meant(plain, value, "", [*_groups(root)], root)
    return " or ".join(f"{name}={value}" for name in meant) or None


def _meant(key: str, value: Any, prefix: str, known: Sequence[str], root: type) -> list[str]:
    """The full names of the settings that a name may stand for.

    Args:
        key: The name.
        value: Its value.
        prefix: The group before the name with its dot, or nothing.
        known: The settings of that group, or the groups.
        root: All settings.
    """
    names, plain = dict(_settings(root)), key.lower().replace("-", "_")
    if plain == "model" and not prefix:
        return [_of_model(str(value))]
    same = [name for name, last in names.items() if last == plain]
    if same or plain in SYNONYMS:
        return same or _in_full(SYNONYMS[plain], names, root)
    if prefix:
        near = closest(plain, known)
        return [prefix + near] if near else []
    if options := [part for part in REGISTRIES if _has_option(REGISTRIES[part], plain)]:
        return [f"{part}.{plain}" for part in options]
    near = closest(plain, [*names.values(), *known], ALIKE)
    return _in_full(near, names, root) if near else []


def _in_full(word: str, names: Mapping[str, str], root: type) -> list[str]:
    """The full names that end in a name; for a group its first setting."""
    ends = [name for name, last in names.items() if last == word]
    group = _groups(root).get(word)
    if not ends and dataclasses.is_dataclass(group):
        return [f"{word}.{dataclasses.fields(group)[0].name}"]
    return ends


def _of_model(value: str) -> str:
    """The setting for other tools' name of a model: a method, a decoder, or otherwise the base."""
    for part, registry in REGISTRIES.items():
        if value in registry:
            return f"{part}.name"
    return "base.name"


def _has_option(registry: Registry[Any], name: str) -> bool:
    """Whether a member has an option of this name."""
    return any(
        name in {row.name for row in dataclasses.fields(registry[each].Config)} for each in registry
    )


def _settings(root: type) -> Iterator[tuple[str, str]]:
    """Each setting's whole name, and the last part of it."""
    for name, kind in _groups(root).items():
        if name in REGISTRIES:
            yield f"{name}.name", name
        elif dataclasses.is_dataclass(kind):
            yield from ((f"{name}.{row.name}", row.name) for row in dataclasses.fields(kind))
        else:
            yield name, name


@cache
def _groups(root: type) -> dict[str, Any]:
    """The type of each field."""
    hints = get_type_hints(root)
    return {row.name: hints[row.name] for row in dataclasses.fields(root)}


def _word(value: Any) -> str:
    """A value as a command line takes it."""
    if isinstance(value, list | tuple):
        return ",".join(map(as_yaml, value))
    return "" if value is None else as_yaml(value)


def choices_of(root: type) -> dict[str, list[str]]:
    """The words among which each setting chooses by its type, by its whole name.

    Args:
        root: All settings.
    """
    kinds = {
        f"{group}.": kind for group, kind in _groups(root).items() if dataclasses.is_dataclass(kind)
    }
    hints = {
        f"{prefix}{name}": hint
        for prefix, schema in {"": root, **kinds}.items()
        for name, hint in get_type_hints(schema).items()
    }
    return {name: words for name, hint in hints.items() if (words := _words_among(hint))}


def _words_among(hint: Any) -> list[str]:
    if hint is bool:
        return ["true", "false"]
    if get_origin(hint) is Literal:
        return [str(each) for each in get_args(hint)]
    return [word for part in get_args(hint) for word in _words_among(part)]
