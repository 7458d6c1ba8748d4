"""The shipped recipes as rows: for the command line and for the documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import yaml

from samtune.errors import InputError, nearest
from samtune.files import as_path, free_path, write_whole
from samtune.runs.trees import WHOLE, in_full, lay_over
from samtune.runs.words import recipes

COLUMNS = ("recipe", "what", "data.name", "published", "reproduced")
"""The columns of :func:`recipe_rows` and :func:`recipes_table`."""
_WIDTH = 88
"""Characters in a line, where words allow it."""
_DETAIL = " - "
"""Separates a published number from its source."""


def list_recipes(word: str | None = None) -> list[dict[str, Any]]:
    """Every shipped recipe by name, or those whose name has a word in it; plain values for JSON.

    Each has its notes (``about``, ``paper``, ``published``, ``status``, ``data``, ``differs`` ...)
    and its ``settings``.

    Raises:
        InputError: No recipe's name has the word in it.
    """
    shipped = recipes()
    names = [name for name in shipped if word is None or word in name]
    if word in shipped:
        names = [word]
    if not names:
        raise InputError(
            f"{word}: in no recipe's name{nearest(str(word), shipped)}; see samtune recipes"
        )
    return [_row(name, shipped[name]) for name in names]


def recipe_rows(rows: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The recipes of :func:`list_recipes` as rows for a terminal, see :data:`COLUMNS`."""
    return [
        (
            row["name"],
            row["about"],
            row["settings"].get("data", {}).get("name", "your own"),
            row["published"].partition(_DETAIL)[0],
            _reproduced(row),
        )
        for row in rows
    ]


def _reproduced(row: Mapping[str, Any]) -> str:
    """Whether a published number was reproduced; a dash if there is none."""
    if row["published"].partition(_DETAIL)[0] == "none":
        return "-"
    return "no" if row.get("status") == "not reproduced" else row.get("status", "")


def brief(row: Sequence[str]) -> tuple[str, ...]:
    """A row without what it is about, which a narrow terminal has no room for."""
    return tuple(cell for cell, name in zip(row, COLUMNS, strict=True) if name != "what")


def recipe_page(row: Mapping[str, Any]) -> str:
    """One recipe in full: its notes, its settings as YAML, and how to start it."""
    notes = [
        fill(f"{key}: {text}", _WIDTH, subsequent_indent="  ")
        for key, text in row.items()
        if key not in ("name", "settings")
    ]
    settings = yaml.safe_dump(
        row["settings"], sort_keys=False, default_flow_style=None, width=_WIDTH
    )
    return "\n".join([row["name"], *notes, "", settings, start(row)])


def write_recipe(word: str | None, rows: Sequence[Mapping[str, Any]], out: Path | None) -> Path:
    """Writes the settings of one recipe as a YAML file, with its notes as comments.

    Args:
        word: The typed name.
        rows: The recipes that it names.
        out: The file; by default the recipe's name in the current folder.

    Raises:
        InputError: Several recipes, or a file that is there already.
    """
    if len(rows) != 1:
        names = ", ".join(row["name"] for row in rows[:3])
        raise InputError(
            f"--yaml: writes one recipe, and {word or 'no name'} stands for {len(rows)} ({names}, "
            "...); give the name of one, as samtune recipes lists it"
        )
    [row] = rows
    file = as_path(out or f"{row['name']}.yaml")
    if file.suffix not in (".yaml", ".yml"):
        raise InputError(f"--out={file}: must end in .yaml, so that samtune train reads it")
    if file.exists():
        raise InputError(
            f"--out={file}: is there already; choose another, as --out {free_path(file)}"
        )
    notes = [
        fill(f"{key}: {text}", _WIDTH, initial_indent="# ", subsequent_indent="#   ")
        for key, text in row.items()
        if key != "settings"
    ]
    settings = yaml.safe_dump(
        lay_over(WHOLE, in_full(row["settings"])), sort_keys=False, allow_unicode=True
    )
    write_whole(file, "\n".join([*notes, settings]))
    return file


def start(row: Mapping[str, Any]) -> str:
    """The command that trains a recipe; what the user has to give is in capitals."""
    name = row["settings"]["base"]["name"]
    if row["name"] == "demo":
        return "samtune demo"
    weights = "" if name == "nano" else " base.weights=FILE"
    return f"samtune train {row['name']} data.root=FOLDER{weights}"


def recipes_table() -> str:
    """The recipes as a Markdown table, for the documentation."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for name, *cells in recipe_rows(list_recipes()):
        lines.append(f"| {' | '.join((f'`{name}`', *cells))} |")
    return "\n".join(lines) + "\n"


def _row(name: str, tree: Mapping[str, Any]) -> dict[str, Any]:
    settings = {key: value for key, value in tree.items() if key != "recipe"}
    return {"name": name, **tree["recipe"], "settings": settings}
