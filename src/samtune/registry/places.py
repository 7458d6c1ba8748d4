"""The places of code outside samtune, and whether it may be imported.

A class of an installed package that declares it as an entry point has the entry point's name, as
``gain``; any other has the name of its place, as ``my_pkg.mod:Gain``. Nothing is imported before
its name is looked up.

A file must not run code: an entry point is loaded because somebody installed its package, and a
place only if the user named it (on the command line, in a YAML file given there, or in Python) or
trusts its package; see :func:`trust`. Names of samtune itself always win.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points, packages_distributions, version
from typing import Any

from samtune.errors import InputError, nearest

DOTTED = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
PLACE = re.compile(rf"{DOTTED}:{DOTTED}")
"""The place of a definition: a module and a name in it, as ``my_pkg.mod:Gain``."""


@dataclass(frozen=True)
class Kind:
    """A kind of part that other packages can bring."""

    name: str
    group: str
    """The group of the entry points that declare them."""
    settings: tuple[str, ...]
    """The settings that name one; the first stands in messages."""


KINDS = {
    kind.name: kind
    for kind in (
        Kind("adapter", "samtune.adapters", ("adapter.name", "adapter")),
        Kind("decoder", "samtune.decoders", ("decoder.name", "decoder")),
        Kind("loss", "samtune.losses", ("train.loss",)),
        Kind("metric", "samtune.metrics", ("eval.metrics", "train.metric")),
        Kind("layout", "samtune.layouts", ("data.layout",)),
    )
}
"""All kinds, by name."""


@dataclass(frozen=True)
class Plugin:
    """One entry point of an installed package, as its metadata has it; nothing is imported."""

    kind: str
    name: str
    place: str
    package: str
    version: str

    @property
    def origin(self) -> str:
        """The package and its version, for a person."""
        return f"{self.package} {self.version}"


def installed(kind: str) -> list[Plugin]:
    """The entry points of a kind, of all installed packages, by name."""
    return list(_entries(KINDS[kind].group, kind, tuple(sys.path)))


@cache
def _entries(group: str, kind: str, path: tuple[str, ...]) -> tuple[Plugin, ...]:
    found = {
        Plugin(kind, entry.name, entry.value.split("[")[0].strip(), entry.dist.name, version_of)
        for entry in entry_points(group=group)
        if entry.dist is not None and (version_of := entry.dist.version)
    }
    return tuple(sorted(found, key=lambda each: (each.name, each.package, each.place)))


_trusted: set[str] = set()


def trust(*names: str) -> None:
    """Allows code outside samtune to be imported where a file names it, in this process.

    Args:
        *names: Modules with all that lies below them, as ``my_pkg``, or single places, as
            ``my_pkg.mod:Gain``.

    Raises:
        InputError: A name that is neither.
    """
    for name in names:
        if not isinstance(name, str):
            raise InputError(f"trust={name!r}: must be the name of a module, as in trust=my_pkg")
        if not PLACE.fullmatch(name) and not re.fullmatch(DOTTED, name):
            near = re.sub(r"\W+", "_", name).strip("_")
            raise InputError(
                f"trust={name}: must be the name of a module as Python imports it, as in "
                f"trust={near or 'my_pkg'}"
            )
    _trusted.update(names)


def is_trusted(place: str) -> bool:
    """Whether the user named a place, trusts its module or one above, or installed it as a plug-in.

    The last if an installed package declares this very place as one of its entry points.
    """
    module = place.partition(":")[0]
    if place in _trusted or any(module == t or module.startswith(f"{t}.") for t in _trusted):
        return True
    return any(plugin.place == place for kind in KINDS for plugin in installed(kind))


def named_in(tree: Mapping[str, Any]) -> list[str]:
    """The places that the settings of a tree name.

    Args:
        tree: Settings by ``train.lr`` and the like, flat.
    """
    keys = {key for kind in KINDS.values() for key in kind.settings}
    texts = [tree[key] for key in tree if key in keys]
    words = [word for text in texts for word in (text if isinstance(text, list) else [text])]
    return [place for word in words if isinstance(word, str) for place in PLACE.findall(word)]


def thing_at(place: str, key: str, known: Iterable[str] = ()) -> Any:
    """The object at a place; its module is imported.

    The working folder counts as a place of modules here, after all others: a script beside the data
    need not be installed.

    Args:
        place: A place, as ``my_pkg.mod:Gain``.
        key: The start of a message, as ``adapter.name=my_pkg.mod:Gain``.
        known: Names that may have been meant.

    Raises:
        InputError: The place is not trusted, there is no such module or name, or importing failed.
    """
    module, _, attribute = place.partition(":")
    if not is_trusted(place):
        top = module.partition(".")[0]
        raise InputError(
            f"{key}: a file names {place}, which is code outside samtune; if you trust it, add "
            f"trust={top}, in Python samtune.trust({top!r})"
        )
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    return attribute_of(module, attribute, key, hint=nearest(module, known))


def attribute_of(module: str, attribute: str, key: str, whose: str = "", hint: str = "") -> Any:
    """The object with a name in a module; the module is imported.

    Args:
        module: Its name.
        attribute: A name in the module, as ``Gain``, or ``Outer.Gain``.
        key: The start of a message.
        whose: The package that brings it, if one does.
        hint: The hint of a message at the name that may have been meant.

    Raises:
        InputError: There is no such module or name, or importing failed.
    """
    remedy = f"; repair or update {whose}, or pip uninstall it" if whose else "; correct it"
    try:
        thing = import_module(module)
    except (Exception, SystemExit) as error:
        absent = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
        if absent and not whose and f"{module}.".startswith(f"{absent}."):
            remedy = f"install its package, or correct the name{hint}"
            raise InputError(f"{key}: there is no module {module}; {remedy}") from error
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        of = f"the plug-in of {whose}" if whose else module
        raise InputError(f"{key}: {of} cannot be imported ({reason}){remedy}") from error
    for name in attribute.split("."):
        if not hasattr(thing, name):
            of = f" of {whose}" if whose else ""
            public = [word for word in vars(thing) if not word.startswith("_")]
            near = nearest(name, public)
            raise InputError(f"{key}: {module}{of} has no {name}{near}{'' if near else remedy}")
        thing = getattr(thing, name)
    return thing


def place_of(thing: Any) -> str:
    """The place where a class or function is defined, as ``my_pkg.mod:Gain``."""
    return f"{thing.__module__}:{thing.__qualname__}"


def is_ours(thing: Any) -> bool:
    """Whether a class or function is one of samtune's own."""
    return thing.__module__.partition(".")[0] == __name__.partition(".")[0]


def package_of(thing: Any) -> dict[str, str]:
    """The installed package that a class or function belongs to, and its version; else empty."""
    place, module = place_of(thing), thing.__module__
    for kind in KINDS:
        for plugin in installed(kind):
            same = plugin.place.partition(":")[0].partition(".")[0] == module.partition(".")[0]
            if plugin.place == place or same:
                return {"package": plugin.package, "version": plugin.version}
    names = packages_distributions().get(module.partition(".")[0], [])
    return {"package": names[0], "version": version(names[0])} if names else {}


def key_of(name: str) -> str:
    """The key of a part's options among those of others; for a place its last word."""
    return re.split(r"[.:]", name)[-1]
