"""The settings of a run by level: for the help of the verbs, and for the documentation."""

from __future__ import annotations

import dataclasses
from importlib.resources import files
from textwrap import wrap
from typing import Any, get_type_hints

from typer.core import TyperCommand

WIDTH = 80
"""Columns of the help."""
WHERE = "samtune settings"
"""The verb that lists all settings."""


EVERYDAY = "everyday_settings.txt"
"""The file with the result of :func:`everyday_help`, written by ``docs/generate.py``: reading it
needs no torch."""


class TakesSettings(TyperCommand):
    """The verb whose help ends with the everyday settings."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The verb's own help, then the settings."""
        super().format_help(ctx, formatter)
        print((files("samtune.cli") / EVERYDAY).read_text("utf-8"), end="")


def everyday_help() -> str:
    """The everyday settings, each with its default and a sentence, and where the others stand."""
    rows = [(_word(row["name"], row["default"]), _sentence(row)) for row in rows_of("everyday")]
    width = max(len(word) for word, _ in rows)
    lines = ["Everyday settings, with their defaults:", ""]
    for word, text in rows:
        first, *more = wrap(text, WIDTH - width - 4)
        lines += [f"  {word:<{width}}  {first}", *(" " * (width + 4) + line for line in more)]
    return "\n".join([*lines, "", f"All settings, also for experts: {WHERE}", ""])


def _word(name: str, default: Any) -> str:
    """A setting as a word of a command line, or its name if nothing is its default."""
    from samtune.options import as_yaml

    if default in (None, (), ""):
        return name
    value = ",".join(default) if isinstance(default, tuple) else as_yaml(default)
    return f"{name}='{value}'" if " " in value else f"{name}={value}"


def _sentence(row: dict[str, Any]) -> str:
    """The meaning of a setting, and the names among which it chooses."""
    said = " ".join(row["help"].replace("``", "").split()).split(". ")[0].rstrip(".")
    if not row["names"]:
        return said
    return f"{said}: one of {', '.join(row['names'])} ({WHERE} {row['name']} describes them)"


def rows_of(level: str) -> list[dict[str, Any]]:
    """The settings of a level; see :func:`setting_rows`."""
    return [row for row in setting_rows() if row["level"] == level]


def setting_rows() -> list[dict[str, Any]]:
    """All settings of a run but the options of methods and decoders, each by its whole name.

    See :func:`samtune.cli.catalogue.options`.
    """
    from samtune.cli.catalogue import options
    from samtune.runs.config import RunConfig
    from samtune.runs.values import DEFAULTS

    rows, kinds = [], get_type_hints(RunConfig)
    for row in options(RunConfig, whole=True):
        part = row["name"]
        if dataclasses.is_dataclass(kinds[part]):
            inner = options(kinds[part])  # type: ignore[arg-type]
            rows += [{**each, "name": f"{part}.{each['name']}"} for each in inner]
        elif part in DEFAULTS:
            rows.append({**row, "name": f"{part}.name", "default": DEFAULTS[part]})
        else:
            rows.append(row)
    return rows


def settings_table(level: str, group: str = "") -> str:
    """The settings of a level as a Markdown table, for the documentation.

    Args:
        level: See :func:`rows_of`.
        group: Only those of a group, as ``train``.
    """
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    rows = rows_of(level)
    for row in (row for row in rows if not group or row["name"].startswith(f"{group}.")):
        text = " ".join(row["help"].split()).replace("|", "\\|")
        default = "" if row["default"] is None else f"`{row['default']}`"
        lines.append(f"| `{row['name']}` | {default} | {text} |")
    return "\n".join(lines) + "\n"
