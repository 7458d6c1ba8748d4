"""Finds the setting that is meant by an unknown name; needs no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Protocol, get_args, get_origin, get_type_hints

from samtune.errors import SYNONYMS, InputError, closest
from samtune.options import as_yaml
from samtune.runs.values import Kind, kind_of

ALIKE = 0.75
"""Required similarity of a name's letters, if its group is unknown."""


class Parts(Protocol):
    """Methods or decoders by name, each with the dataclass ``Config`` of its options."""

    def __iter__(self) -> Iterator[str]: ...

    def __contains__(self, name: object) -> bool: ...

    def __getitem__(self, name: str) -> Any: ...


@dataclass(frozen=True)
class SettingNames:
    """The names of all settings, those of methods and decoders included."""

    root: type
    """The dataclass of all settings, whose fields are groups or single settings."""
    parts: Mapping[str, Parts]
    """The methods and decoders by the name of their group."""

    def check(self, tree: Mapping[str, Any], schema: Any = None, prefix: str = "") -> None:
        """Refuses unknown names; the registries check those of methods and decoders.

        Args:
            tree: Settings by group.
            schema: The dataclass of the tree; by default that of all settings.
            prefix: The group before its names with its dot, or nothing.

        Raises:
            InputError: A name is unknown, with the setting that is meant; or a group has a value.
        """
        schema = schema or self.root
        hints = _groups(schema)
        for key, value in tree.items():
            if key not in hints:
                raise self.unknown(str(key), value, prefix, schema)
            if dataclasses.is_dataclass(hints[key]):
                if not isinstance(value, Mapping):
                    group = f"{prefix}{key}"
                    example = f"{group}.{dataclasses.fields(hints[key])[0].name}={value}"
                    raise InputError(f"{group}={value}: {key} is a group; did you mean {example}?")
                self.check(value, hints[key], f"{prefix}{key}.")

    def kind(self, key: str) -> Kind:
        """The kind of a setting's values by its type; ``yaml`` for unknown settings.

        For an option, all methods that have an option of this name decide.

        Args:
            key: A key, as ``data.root`` or ``adapter.rank``.
        """
        part, dot, name = key.partition(".")
        if part in self.parts and name in ("", "name"):
            return "text" if name else "yaml"
        schemas = list(self._schemas(part)) if dot else [self.root]
        hints = [get_type_hints(schema, include_extras=True) for schema in schemas]
        kinds = {kind_of(hint[name or part]) for hint in hints if (name or part) in hint}
        return kinds.pop() if len(kinds) == 1 else "yaml"

    def _schemas(self, part: str) -> Iterator[Any]:
        """The dataclasses that a group of settings may be."""
        if part in self.parts:
            yield from (self.parts[part][name].Config for name in self.parts[part])
        group = _groups(self.root).get(part)
        if dataclasses.is_dataclass(group):
            yield group

    def unknown(self, key: str, value: Any, prefix: str, schema: type) -> InputError:
        """The error for an unknown setting, with the setting that is meant.

        Args:
            key: The name, as in a group or alone.
            value: Its value.
            prefix: The group before the name with its dot, or nothing.
            schema: The settings of that group.
        """
        known = [row.name for row in dataclasses.fields(schema)]
        whose = f"{prefix}{key}: no such setting"
        if not isinstance(value, Mapping) and (names := self._meant(key, value, prefix, known)):
            words = " or ".join(f"{name}={_word(value)}" for name in names)
            return InputError(f"{whose}; did you mean {words}?")
        if near := closest(key, known, 0.5 if prefix else ALIKE):
            return InputError(f"{whose}; did you mean {near!r}?")
        return InputError(f"{whose}; known are {', '.join(prefix + name for name in known)}")

    def meaning(self, word: str, value: str) -> str | None:
        """The setting, with its value, that a word such as ``lr`` stands for, as on a command line.

        Args:
            word: A setting's name, in full or its last part, or other tools' name for it.
            value: The value that it is set to.
        """
        plain = word.replace("-", "_")
        known = plain in dict(self._settings())
        meant = [plain] if known else self._meant(plain, value, "", [*_groups(self.root)])
        return " or ".join(f"{name}={value}" for name in meant) or None

    def _meant(self, key: str, value: Any, prefix: str, known: Sequence[str]) -> list[str]:
        """The full names of the settings that a name may stand for.

        Args:
            key: The name.
            value: Its value.
            prefix: The group before the name with its dot, or nothing.
            known: The settings of that group, or the groups.
        """
        names, plain = dict(self._settings()), key.lower().replace("-", "_")
        if plain == "model" and not prefix:
            return [self._of_model(str(value))]
        same = [name for name, last in names.items() if last == plain]
        if same or plain in SYNONYMS:
            return same or self._in_full(SYNONYMS[plain], names)
        if prefix:
            near = closest(plain, known)
            return [prefix + near] if near else []
        if options := [part for part in self.parts if _has_option(self.parts[part], plain)]:
            return [f"{part}.{plain}" for part in options]
        near = closest(plain, [*names.values(), *known], ALIKE)
        return self._in_full(near, names) if near else []

    def _in_full(self, word: str, names: Mapping[str, str]) -> list[str]:
        """The full names that end in a name; for a group its first setting."""
        ends = [name for name, last in names.items() if last == word]
        group = _groups(self.root).get(word)
        if not ends and dataclasses.is_dataclass(group):
            return [f"{word}.{dataclasses.fields(group)[0].name}"]
        return ends

    def _of_model(self, value: str) -> str:
        """The setting for other tools' name of a model: method, decoder, or otherwise the base."""
        for part, registry in self.parts.items():
            if value in registry:
                return f"{part}.name"
        return "base.name"

    def _settings(self) -> Iterator[tuple[str, str]]:
        """Each setting's whole name, and the last part of it."""
        for name, kind in _groups(self.root).items():
            if name in self.parts:
                yield f"{name}.name", name
            elif dataclasses.is_dataclass(kind):
                yield from ((f"{name}.{row.name}", row.name) for row in dataclasses.fields(kind))
            else:
                yield name, name


def _has_option(parts: Parts, name: str) -> bool:
    """Whether a member has an option of this name."""
    return any(
        name in {row.name for row in dataclasses.fields(parts[each].Config)} for each in parts
    )


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
