"""The packages besides samtune that a checkpoint needs, and whether they may be used."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from samtune.adapters import ADAPTERS, Adapter, Stack
from samtune.decoders import DECODERS, Decoder
from samtune.errors import InputError
from samtune.registry import Registry
from samtune.registry.outside import row_of, rows_in
from samtune.registry.places import PLACE, is_ours, is_trusted

REGISTRIES: Mapping[str, Registry[Any]] = {"adapter": ADAPTERS, "decoder": DECODERS}
"""The registries with the names of a model's parts."""
_PLAIN = re.compile(r"[A-Za-z0-9_.:+<>-]{1,200}")


def packages_of(
    names: Mapping[str, str], adapter: Adapter, decoder: Decoder
) -> list[dict[str, str]]:
    """A checkpoint's entries about parts that are not samtune's own.

    Args:
        names: The names of the adapter and of the decoder, as they were given.
        adapter: The adapter with that name; a stack has several parts.
        decoder: The decoder with that name.

    Returns:
        One row per part, see :func:`samtune.registry.outside.row_of`.
    """
    parts = [*adapter.adapters] if isinstance(adapter, Stack) else [adapter]
    given = names["adapter"].split("+")
    of_parts = [("adapter", *pair) for pair in zip(given, parts, strict=True)]
    return [
        row_of(kind, name, type(part))
        for kind, name, part in [*of_parts, ("decoder", names["decoder"], decoder)]
        if not is_ours(type(part))
    ]


def with_packages_of_settings(header: dict[str, Any]) -> dict[str, Any]:
    """A header that also says where the loss, metrics and layout of its settings come from.

    Args:
        header: The header of a checkpoint.
    """
    settings = header.get("config")
    groups = settings.items() if isinstance(settings, Mapping) else ()
    flat = {
        f"{group}.{name}": value
        for group, part in groups
        if isinstance(part, Mapping)
        for name, value in part.items()
    }
    rows = [*header.get("packages", []), *rows_in(flat, ("loss", "metric", "layout"))]
    return {**header, "packages": rows} if rows else header


def check_packages(header: Mapping[str, Any], origin: str) -> None:
    """Refuses a checkpoint with a part that is not available or needs the user's consent.

    Args:
        header: The header of the checkpoint.
        origin: The start of messages: its path.

    Raises:
        InputError: A part is refused; the message names the package and the remedy.
    """
    about = {(row["part"], row["name"]): row for row in header.get("packages", [])}
    for kind, registry in REGISTRIES.items():
        for name in _names(kind, header):
            row = about.get((kind, name), {})
            outside = registry.outside
            if outside is None or name in list(registry) or outside.has_loaded(name):
                continue
            plugin = outside.plugin(name)
            if plugin is not None and plugin.package != row.get("package", plugin.package):
                raise InputError(
                    f"{origin}: its {kind} {name} is of the package {_package(row)}, but "
                    f"{plugin.origin} is installed, which has one of the same name; install the "
                    "other, or give the class to samtune.load"
                )
            if plugin is None:
                _check_place(kind, name, row, origin)


def _names(kind: str, header: Mapping[str, Any]) -> Iterator[str]:
    name = header[kind]["name"]
    yield from name.split("+") if kind == "adapter" else [name]


def _check_place(kind: str, name: str, row: Mapping[str, Any], origin: str) -> None:
    """Refuses a path that no installed package declares, unless the user trusts it."""
    if not PLACE.fullmatch(name):
        if not row and ":" not in name:
            return  # for an unknown name the registry suggests the nearest
        if not row:
            raise InputError(f"{origin}: {name!r} is not the name of a {kind}; copy the file again")
        what = f"needs the package {_package(row)} for its {kind} {name}"
        remedy = (
            f"if you trust it: pip install {row['package']}"
            if "package" in row
            else (f"it was in no package; give its class, as in samtune.load(..., {kind}=MyClass)")
        )
        raise InputError(f"{origin}: {what}; {remedy}")
    module = name.partition(":")[0]
    if module == "__main__":
        raise InputError(
            f"{origin}: its {kind} {name.partition(':')[2]} was defined in a script or notebook; "
            f"give the class, as in samtune.load(..., {kind}={name.partition(':')[2]})"
        )
    whose = f" of the package {_package(row)}" if "package" in row else ""
    if not is_trusted(name):
        top = module.partition(".")[0]
        raise InputError(
            f"{origin}: needs the {kind} {name}{whose}, which is code outside samtune; if you "
            f"trust it, add trust={top} (in Python samtune.load(..., trust={top!r}))"
        )
    try:
        REGISTRIES[kind][name]
    except InputError as error:
        needs = f"needs the {kind} {name}{whose}"
        remedy = (
            f"pip install {row['package']}"
            if "package" in row
            else (f"put {module.partition('.')[0]} where Python finds it")
        )
        raise InputError(f"{origin}: {needs}, which cannot be had ({error}); {remedy}") from error


def _package(row: Mapping[str, Any]) -> str:
    if "package" not in row:
        return f"of {row.get('class', 'nobody')}"
    return f"{row['package']} {row.get('version', '')}".strip()


def lacking_packages(header: Mapping[str, Any]) -> str:
    """The packages that a checkpoint's settings need and that are not installed, as a clause.

    Args:
        header: The header of a checkpoint; :func:`check_packages` handles its adapter and decoder.
    """
    rows = [row for row in header.get("packages", []) if row["part"] not in REGISTRIES]
    lacking = [row for row in rows if "package" in row and not _is_installed(row["package"])]
    needs = [f"the package {_package(row)} for its {row['part']} {row['name']}" for row in lacking]
    names = " ".join(dict.fromkeys(row["package"] for row in lacking))
    return f"it needs {' and '.join(needs)}; if you trust it: pip install {names}" if needs else ""


def _is_installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def wrong_rows(packages: Any) -> bool:
    """Whether a header's ``packages`` have another form than :func:`packages_of` returns."""
    if not isinstance(packages, list):
        return True
    return not all(
        isinstance(row, dict)
        and {"part", "name", "class"} <= row.keys()
        and all(isinstance(text, str) and _PLAIN.fullmatch(text) for text in row.values())
        for row in packages
    )
