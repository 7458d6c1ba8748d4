"""Shell completion: names of recipes, methods and settings, without loading torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

NAMES = "completion.json"
"""The file with the result of :func:`completion_names`, written by ``docs/generate.py``."""
OF_A_COMPARISON = ("methods=", "shots=", "seeds=", "launcher=", "jobs=", "retries=")


def completion_names() -> dict[str, Any]:
    """The settings by whole name with their possible values, all methods, and export's formats."""
    from samtune.adapters import ADAPTERS
    from samtune.cli.setting_list import setting_rows
    from samtune.data.named import DATASETS
    from samtune.decoders import DECODERS
    from samtune.exports.base import FORMATS
    from samtune.runs.config import RunConfig
    from samtune.runs.setting_names import choices_of
    from samtune.sam.spec import SPECS

    choices = choices_of(RunConfig)
    known = {
        "base.name": [*SPECS],
        "adapter.name": [*ADAPTERS],
        "decoder.name": [*DECODERS],
        "data.name": [*DATASETS],
        "device": ["auto", "cpu", "cuda", "mps"],
    }
    settings = {
        row["name"]: known.get(row["name"]) or row["names"] or choices.get(row["name"], [])
        for row in setting_rows()
    }
    methods = {"adapters": [*ADAPTERS], "decoders": [*DECODERS]}
    return {"settings": settings, **methods, "formats": [*FORMATS]}


def complete_words(ctx: Any, incomplete: str) -> list[str]:
    """The recipes and settings that a word may become, or the values of a setting.

    A shell that parts words at ``=`` gives what stands behind it alone.
    """
    before = list(ctx.params.get("words") or [])
    if incomplete == "=" and before:
        return [*_values(before[-1])]
    if len(before) > 1 and before[-1] == "=":
        return [value for value in _values(before[-2]) if value.startswith(incomplete)]
    key, equals, begun = incomplete.partition("=")
    if equals:
        return [f"{key}={value}" for value in _values(key) if value.startswith(begun)]
    verb = ctx.info_name or ""
    own = OF_A_COMPARISON if verb == "compare" else ()
    shipped = recipe_names() if verb in ("train", "demo", "compare") else ()
    words = [*shipped, *own, *(f"{name}=" for name in _names()["settings"])]
    return [word for word in words if word.startswith(incomplete)]


def complete_method(incomplete: str) -> list[str]:
    """The adapters and decoders whose names begin so."""
    names = [*_names()["adapters"], *_names()["decoders"]]
    return [name for name in names if name.startswith(incomplete)]


def format_names() -> Sequence[str]:
    """The formats of ``samtune export``; none while the file is written."""
    return _names().get("formats", ())


def complete_format(incomplete: str) -> list[str]:
    """The formats of ``samtune export`` whose names begin so."""
    return [name for name in format_names() if name.startswith(incomplete)]


def complete_recipe(incomplete: str) -> list[str]:
    """The recipes whose names begin so."""
    return [name for name in recipe_names() if name.startswith(incomplete)]


def recipe_names() -> Sequence[str]:
    """The names of the shipped recipes, by their files."""
    folder = files("samtune") / "recipes"
    names = (path.name for path in folder.iterdir())
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def _values(setting: str) -> Iterator[str]:
    if setting == "methods":
        yield from _names()["adapters"]
    yield from _names()["settings"].get(setting, ())


@cache
def _names() -> Mapping[str, Any]:
    return json.loads((files("samtune.cli") / NAMES).read_text("utf-8"))
