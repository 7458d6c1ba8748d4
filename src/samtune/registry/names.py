"""Names for exchangeable parts: one decorator feeds config, help, docs and tests."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, Generic, TypeVar

from samtune.errors import InputError, nearest
from samtune.options import as_yaml, validated
from samtune.registry.outside import Outside
from samtune.registry.places import PLACE

T = TypeVar("T")


def settings(kind: str, options: Mapping[str, Any]) -> str:
    """Options of an adapter or a decoder as words of a command line."""
    return " ".join(f"{kind}.{key}={as_yaml(value)}" for key, value in options.items())


class Registry(Generic[T]):
    """Classes by name. Each has a ``name`` and, if it has options, a nested ``Config``.

    Args:
        kind: The kind of the classes, in one word.
        key: The setting that names one, for messages; by default ``kind.name``.
        members: A package whose modules register further classes. They are imported when a name is
            looked up that is not registered yet, or all names are asked for; so a room above this
            one can add to it, and nobody has to import that room.
        contract: The class that members are subclasses of, if other packages may bring some; see
            :mod:`samtune.registry.outside`. ``kind`` is one of its kinds then.
        check: Says in a clause what such a class lacks besides; empty if nothing.
    """

    def __init__(
        self,
        kind: str,
        key: str | None = None,
        members: str | None = None,
        contract: type[T] | None = None,
        check: Callable[[Any], str] = lambda cls: "",
    ) -> None:
        self.kind, self.key = kind, key or f"{kind}.name"
        self._members = members
        self._classes: dict[str, type[T]] = {}
        self._contract, self._check_class = contract, check
        self.outside: Outside[type[T]] | None = None
        """The parts of this kind from other packages, if they are allowed."""
        if contract is not None:
            self.outside = Outside(kind, self._accepted, lambda: self._classes)
        self.combine: Callable[[str], Any] | None = None
        """Builds the stand-in for a class under names joined by ``+``, if the kind has that."""
        self._joint: dict[str, Any] = {}

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

    def __contains__(self, name: object) -> bool:
        """Whether a class is registered under a name, or another package may bring it."""
        if name not in self._classes:
            self._load_members()
        return name in self._classes or (self.outside is not None and name in self.outside)

    def __getitem__(self, name: str) -> type[T]:
        """The class of that name, or what stands in for the class of ``a+b``.

        Raises:
            InputError: No such name, or no text; the nearest is suggested. Or what other packages
                bring under the name cannot be had.
        """
        if not isinstance(name, str):
            raise InputError(f"{self.key}={as_yaml(name)}: must be one of {', '.join(self)}")
        if self.combine is not None and self.is_joint(name):
            if name not in self._joint:
                self._joint[name] = self.combine(name)
            return self._joint[name]
        if name not in self._classes:
            self._load_members()
        if name not in self._classes:
            self._check_form(name)
            if self.outside is not None and name in self.outside:
                return self.outside[name]
            raise no_such_name(self.key, name, self.names())
        return self._classes[name]

    def names(self) -> list[str]:
        """The names of samtune itself, and then those that installed packages bring."""
        return [*self, *(self.outside or ())]

    def takes(self, thing: object) -> bool:
        """Whether a thing is a class that can be a member."""
        contract = self._contract
        return contract is not None and isinstance(thing, type) and issubclass(thing, contract)

    def adopt(self, cls: type[T]) -> str:
        """The name of a class that is handed over in Python, see :meth:`.Outside.adopt`.

        Raises:
            InputError: It cannot be a member.
        """
        if self._classes.get(getattr(cls, "name", "")) is cls:
            return cls.name  # type: ignore[attr-defined]
        if self.outside is None:
            raise InputError(f"{self.key}={cls.__qualname__}: must be one of {', '.join(self)}")
        self._joint.clear()  # what a notebook defines anew may be part of them
        return self.outside.adopt(cls)

    def _accepted(self, cls: Any, name: str) -> type[T]:
        """A class of another package, which knows its name from now on.

        Raises:
            TypeError: It cannot be a member; the message is a clause with the reason.
        """
        if not self.takes(cls):
            contract: Any = self._contract
            raise TypeError(
                f"is no subclass of {contract.__module__.removesuffix('.base')}."
                f"{contract.__qualname__}"
            )
        config = getattr(cls, "Config", None)
        if not (isinstance(config, type) and dataclasses.is_dataclass(config)):
            raise TypeError("has a Config that is no dataclass; put @dataclass(frozen=True) above")
        try:
            inspect.signature(cls).bind(None, None)
        except TypeError as error:
            what = f"cannot be made of a base and its options ({error})"
            raise TypeError(
                f"{what}; give it __init__(self, sam, config), or in Python a module that you "
                f"made, as in {self.kind}={cls.__name__}(...)"
            ) from error
        if lacks := self._check_class(cls):
            raise TypeError(lacks)
        earlier = vars(cls).get("name")
        if not isinstance(earlier, str) or not self._is_of(cls, earlier):
            cls.name = name
        return cls

    def _is_of(self, cls: Any, name: str) -> bool:
        outside = self.outside
        return outside is not None and outside.has_loaded(name) and outside[name] is cls

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

    def split_form(self, name: str) -> tuple[str, str]:
        """A method's name, and the short name of the form that is asked for behind a colon."""
        whole, colon, form = name.rpartition(":")
        is_place = PLACE.fullmatch(name) and whole not in self.names()
        return (name, "") if not colon or is_place else (whole, form)

    def _check_form(self, name: str) -> None:
        whole, form = self.split_form(name)
        if not form or whole not in self._classes:
            return
        forms = self.forms(whole)
        if form in forms:
            raise InputError(
                f"{self.kind}.name={name}: only comparisons take forms by name; set "
                f"{self.kind}.name={whole} {settings(self.kind, forms[form])}"
            )
        has = f"its forms are {', '.join(forms)}" if forms else "it has one form alone"
        raise InputError(f"{self.key}={name}: {has}{nearest(form, forms)}")

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
        return checked_options(cls.Config, self.kind, name, options or {})


class Members(MutableMapping[str, T]):
    """samtune's parts of one kind by name, and those of other packages behind the same lookup.

    It iterates over samtune's own.

    Args:
        kind: One of :data:`samtune.registry.places.KINDS`.
        accept: See :class:`Outside`.
        built_in: samtune's own, if they are kept elsewhere; later additions there count too.
    """

    def __init__(
        self,
        kind: str,
        accept: Callable[[Any, str], T],
        built_in: MutableMapping[str, T] | None = None,
    ) -> None:
        self._built_in: MutableMapping[str, T] = {} if built_in is None else built_in
        self.outside: Outside[T] = Outside(kind, accept, self._built_in.keys)

    def __getitem__(self, name: str) -> T:
        """The part of that name.

        Raises:
            InputError: See :class:`Outside`.
            KeyError: No package provides it.
        """
        if name in self._built_in:
            return self._built_in[name]
        if name not in self.outside:
            raise KeyError(name)
        return self.outside[name]

    def __setitem__(self, name: str, part: T) -> None:
        self._built_in[name] = part

    def __delitem__(self, name: str) -> None:
        del self._built_in[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._built_in)

    def __len__(self) -> int:
        return len(self._built_in)

    def __contains__(self, name: object) -> bool:
        """Whether samtune has the name, or another package may bring it."""
        return name in self._built_in or name in self.outside

    def names(self) -> list[str]:
        """The names of samtune itself, and then those that installed packages bring."""
        return [*self, *self.outside]


def no_such_name(key: str, name: str, known: Collection[str]) -> InputError:
    """The error for a name that nothing is registered under; the nearest is suggested.

    Args:
        key: The setting that it is the value of.
        name: The name.
        known: The names that are registered.
    """
    return InputError(f"{key}={name}: must be one of {', '.join(known)}{nearest(name, known)}")


def checked_options(config: type, kind: str, name: str, options: Mapping[str, Any]) -> Any:
    """The options of a part, each checked against its type.

    Args:
        config: The dataclass of its options.
        kind: The kind of the part.
        name: The part's name.
        options: The options that are set.

    Raises:
        InputError: It has no such option, or a value that the option's type does not allow.
    """
    _check_names(config, options, kind, name)
    return validated(config, kind, dict(options))


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
