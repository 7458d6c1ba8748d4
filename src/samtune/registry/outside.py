"""Parts that other packages bring: entry points, dotted paths, and classes handed over in Python.

Where their code lies, and whether it may be imported, stands in :mod:`samtune.registry.places`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from samtune.errors import InputError
from samtune.registry.places import (
    DOTTED,
    KINDS,
    PLACE,
    Plugin,
    attribute_of,
    installed,
    package_of,
    place_of,
    thing_at,
    trust,
)

T = TypeVar("T")

_outsides: dict[str, Outside[Any]] = {}
"""The members from other packages, by kind."""
_NAME = re.compile(rf"{DOTTED}(?::{DOTTED})?")


def row_of(kind: str, name: str, thing: Any) -> dict[str, str]:
    """A file's entry about a part that is not samtune's own.

    Returns:
        ``part`` (its kind), ``name``, ``class`` (its place), and ``package`` and ``version`` if it
        belongs to an installed package.
    """
    defined = thing if hasattr(thing, "__qualname__") else type(thing)
    place = place_of(defined) if defined is thing else f"{defined.__module__}:{name}"
    return {"part": kind, "name": name, "class": place, **package_of(defined)}


def rows_in(tree: Mapping[str, Any], kinds: Sequence[str]) -> list[dict[str, str]]:
    """A file's entries about all parts in its settings that are not samtune's own.

    Args:
        tree: Settings by ``train.lr`` and the like, flat.
        kinds: The kinds that count.
    """
    rows: list[dict[str, str]] = []
    for kind in (kind for kind in kinds if kind in _outsides):
        outside = _outsides[kind]
        texts = [tree.get(key) for key in outside.kind.settings]
        words = [w for text in texts for w in (text if isinstance(text, list | tuple) else [text])]
        names = {name for word in words if isinstance(word, str) for name in _NAME.findall(word)}
        rows += [outside.row(name) for name in sorted(names) if outside.has_loaded(name)]
    return rows


class Outside(Generic[T]):
    """The parts of one kind from other packages, by name.

    Args:
        kind: One of :data:`KINDS`.
        accept: Returns a member and its name for the object at a place; or raises a TypeError with
            the reason as a clause, as ``is no subclass of Adapter``.
        own: The names that samtune itself has, which nothing can take.
    """

    def __init__(
        self, kind: str, accept: Callable[[Any, str], T], own: Callable[[], Collection[str]]
    ) -> None:
        self.kind, self._accept, self._samtunes = KINDS[kind], accept, own
        self._members: dict[str, T] = {}
        self._things: dict[str, Any] = {}
        _outsides[kind] = self

    def __iter__(self) -> Iterator[str]:
        """The names that installed packages bring, from metadata alone."""
        names = dict.fromkeys(plugin.name for plugin in installed(self.kind.name))
        return (name for name in names if name not in self._samtunes())

    def __contains__(self, name: object) -> bool:
        """Whether a name is one of these, or has the form of a place."""
        if not isinstance(name, str):
            return False
        return name in self._members or bool(PLACE.fullmatch(name)) or name in list(self)

    def has_loaded(self, name: str) -> bool:
        """Whether a name has been looked up, or its class handed over, in this process."""
        return name in self._members

    def row(self, name: str) -> dict[str, str]:
        """A file's entry about a member that has been looked up, see :func:`row_of`."""
        plugin = self.plugin(name)
        if plugin is None:
            return row_of(self.kind.name, name, self._things[name])
        about = {"class": plugin.place, "package": plugin.package, "version": plugin.version}
        return {"part": self.kind.name, "name": name, **about}

    def plugin(self, name: str) -> Plugin | None:
        """The installed entry point of that name or place.

        Raises:
            InputError: Several packages have the name.
        """
        declared = installed(self.kind.name)
        if PLACE.fullmatch(name):
            return next((each for each in declared if each.place == name), None)
        alike = [each for each in declared if each.name == name]
        if len({each.package for each in alike}) > 1:
            whose = " and ".join(each.origin for each in alike)
            raise InputError(
                f"{self.message_key(name)}: {whose} both bring this name; write its place, as in "
                f"{self.kind.settings[0]}={alike[0].place}"
            )
        return alike[0] if alike else None

    def remark(self, plugin: Plugin) -> str:
        """The reason why an entry point's name does not lead to it, and how to write it."""
        place = f"write {self.kind.settings[0]}={plugin.place} for the one of {plugin.package}"
        if plugin.name in self._samtunes():
            return f"{plugin.name} is samtune's own {plugin.kind}; {place}"
        try:
            self.plugin(plugin.name)
        except InputError:
            return f"several packages have a {plugin.kind} {plugin.name}; {place}"
        return ""

    def message_key(self, name: str) -> str:
        """A setting with its value, as messages begin."""
        return f"{self.kind.settings[0]}={name}"

    def __getitem__(self, name: str) -> T:
        """The member of that name, see :meth:`member`."""
        return self.member(name, self.message_key(name))

    def member(self, name: str, key: str) -> T:
        """The member of a name; its module is imported at the first time.

        Args:
            name: The name of an entry point, or a place.
            key: The start of messages: the setting with its value.

        Raises:
            InputError: Several packages have the name, its package is broken, or a file alone
                named the place.
        """
        if name in self._members:
            return self._members[name]
        plugin = self.plugin(name)
        if plugin is None:
            thing, place = thing_at(name, key, self._samtunes()), name
        else:
            if not PLACE.fullmatch(plugin.place):
                raise InputError(
                    f"{key}: {plugin.origin} declares it as {plugin.place!r}, which is no place "
                    f"such as my_pkg.mod:Name; update {plugin.package}"
                )
            module, _, attribute = plugin.place.partition(":")
            thing = attribute_of(module, attribute, key, plugin.origin)
            place = f"{plugin.place} of {plugin.origin}"
        try:
            return self._enter(name, thing)
        except TypeError as error:
            raise InputError(f"{key}: {place} {error}") from error

    def adopt(self, thing: Any) -> str:
        """The name of a class or function that is handed over in Python.

        It is that of its entry point, or else its place. A class that is defined anew, as in a
        notebook, takes the place of the earlier one.

        Raises:
            InputError: It is none of this kind.
        """
        if not hasattr(thing, "__qualname__") and not hasattr(thing, "name"):
            raise InputError(f"{self.message_key(str(thing))}: must be a class; give it itself")
        place = place_of(thing) if hasattr(thing, "__qualname__") else str(thing.name)
        declared = installed(self.kind.name)
        names = [each.name for each in declared if each.place == place]
        alone = [name for name in names if sum(each.name == name for each in declared) == 1]
        name = next((name for name in alone if name not in self._samtunes()), place)
        if name in self._samtunes():
            raise InputError(
                f"{self.message_key(name)}: samtune has one of that name itself; choose another"
            )
        try:
            self._enter(name, thing)
        except TypeError as error:
            raise InputError(f"{place}: {error}") from error
        return name

    def typed(self, thing: Any) -> Any:
        """The name of a part as Python code gives it: a text, a class or a function.

        The places in a text may be imported from now on, because who types them runs code anyway.

        Args:
            thing: A name, a place or an expression of them; a class or function; all else is
                returned as it is.

        Raises:
            InputError: A class or function that is none of this kind.
        """
        if isinstance(thing, str):
            trust(*PLACE.findall(thing))
            return thing
        return self.adopt(thing) if hasattr(thing, "__qualname__") else thing

    def _enter(self, name: str, thing: Any) -> T:
        if self._things.get(name) is not thing:
            self._members[name] = self._accept(thing, name)
            self._things[name] = thing
        return self._members[name]


def fitting(name: str, registries: Sequence[Any], key: str) -> Any:
    """The registry, of several, that a method's name belongs to; ``None`` if none has it.

    The code at a place is imported, because its name does not show its kind.

    Args:
        name: The name of an adapter, a decoder, ...
        registries: The registries that may have it.
        key: The start of a message.

    Raises:
        InputError: A place that cannot be imported, or that holds something else.
    """
    if not PLACE.fullmatch(name):
        return next((registry for registry in registries if name in registry), None)
    thing = thing_at(name, key, [known for registry in registries for known in registry])
    fits = next((registry for registry in registries if registry.takes(thing)), None)
    if fits is None:
        kinds = " nor ".join(registry.kind for registry in registries)
        raise InputError(f"{key}: {name} is neither {kinds}")
    return fits
