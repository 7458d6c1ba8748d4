"""Names for exchangeable parts: one decorator feeds config, help, docs and tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, Generic, TypeVar

from samtune.errors import InputError, nearest
from samtune.options import as_yaml, validated

T = TypeVar("T")


def settings(kind: str, options: Mapping[str, Any]) -> str:
    """Options of an adapter or a decoder as words of a command line."""
    return " ".join(f"{kind}.{key}={as_yaml(value)}" for key, value in options.items())


class Registry(Generic[T]):
    """Classes by name. Each carries ``name`` and, where it has options, a nested ``Config``.

    Args:
        kind: What the classes are, in one word.
        key: The setting that names one, for messages; by default ``kind.name``.
        members: A package whose modules register further classes. They are imported when a name is
            looked up that is not registered yet, or all names are asked for; so a room above this
            one can add to it, and nobody has to import that room.
    """

    def __init__(self, kind: str, key: str | None = None, members: str | None = None) -> None:
        self.kind, self.key = kind, key or f"{kind}.name"
        self._members = members
        self._classes: dict[str, type[T]] = {}
        self.combine: Callable[[str], Any] | None = None
        """What stands in for a class under names joined by ``+``, where a kind has that."""

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """A class decorator that enters the class under ``name``.

        Raises:
            ValueError: The name is taken.
        """

        def enter(cls: type[T]) -> type[T]:
            if name in self._classes:
                raise ValueError(f"{self.kind} {name!r} is registered already")
            cls.name = name  # type: ignore[attr-defined]
            self._classes[name] = cls
            return cls

        return enter

    def _load_members(self) -> None:
        package, self._members = self._members, None
        if package is not None:
            for module in iter_modules(import_module(package).__path__, f"{package}."):
                import_module(module.name)

    def __iter__(self) -> Iterator[str]:
        self._load_members()
        return iter(sorted(self._classes))

    def __len__(self) -> int:
        self._load_members()
        return len(self._classes)

    def __getitem__(self, name: str) -> type[T]:
        """The class of that name, or what stands in for the class of ``a+b``.

        Raises:
            InputError: No such name, or no text; the nearest is suggested.
        """
        if not isinstance(name, str):
            raise InputError(f"{self.key}={as_yaml(name)}: must be one of {', '.join(self)}")
        if self.combine is not None and self.is_joint(name):
            return self.combine(name)
        if name not in self._classes:
            self._load_members()
        if name not in self._classes:
            self._check_form(name)
            raise InputError(
                f"{self.key}={name}: must be one of {', '.join(self)}{nearest(name, self)}"
            )
        return self._classes[name]

    def is_joint(self, name: str) -> bool:
        """Whether a name stands for several classes at once, as ``a+b``."""
        return self.combine is not None and "+" in name

    def check(self, name: object) -> None:
        """Refuses a name that nothing is registered under.

        Args:
            name: A setting's value; of a switch true and false, as a command line takes it.

        Raises:
            InputError: No such name; the nearest is suggested.
        """
        self[as_yaml(name)]

    def _check_form(self, name: str) -> None:
        whole, _, form = name.partition(":")
        if whole in self._classes and form in (forms := self.forms(whole)):
            raise InputError(
                f"{self.kind}.name={name}: only comparisons take forms by name; set "
                f"{self.kind}.name={whole} {settings(self.kind, forms[form])}"
            )

    def forms(self, name: str) -> Mapping[str, Mapping[str, Any]]:
        """The other forms that the class of that name declares: options by a short name.

        Raises:
            InputError: No such name.
        """
        return vars(self[name]).get("forms", {})  # a subclass has none but its own

    def config(self, name: str, options: Mapping[str, Any] | None = None) -> Any:
        """The ``Config`` of that class with ``options`` set, each checked against its type.

        Raises:
            InputError: No such name or option, or a value that the option's type does not allow.
        """
        cls: Any = self[name]
        _check_names(cls.Config, options or {}, self.kind, name)
        return validated(cls.Config, self.kind, dict(options or {}))


def _check_names(config: type, options: Mapping[str, Any], prefix: str, name: str) -> None:
    """Refuses options that a ``Config`` lacks, also those of its parts by the part's name."""
    types = {field.name: field.type for field in dataclasses.fields(config)}
    for key, value in options.items():
        if key not in types:
            has = f"its options are {', '.join(types)}" if types else "it has no options"
            raise InputError(f"{prefix}.{key}: {name} does not know it, {has}{nearest(key, types)}")
        part = types[key]
        if isinstance(part, type) and dataclasses.is_dataclass(part) and isinstance(value, Mapping):
            _check_names(part, value, f"{prefix}.{key}", key)
