"""The published data sets as table rows, for the command line and the documentation."""

from __future__ import annotations

import re
from typing import Any

from samtune.data.named.base import DATASETS, NamedSet


def list_datasets() -> list[dict[str, Any]]:
    """Every published set by name, with its description and files; plain values for JSON.

    ``classes`` counts the values of a class map, background included, and is 1 for a foreground.
    """
    return [_row(DATASETS[name]) for name in sorted(DATASETS)]


def datasets_table() -> str:
    """The published sets as a Markdown table, for the documentation."""
    heads = ["`data.name`", "set", "task", "classes", "images", "layout below the root", "paper"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in list_datasets():
        images = ", ".join(f"{count} {split}" for split, count in row["splits"].items())
        names = ", ".join(row["class_names"])
        cells = [
            f"`{row['name']}`",
            f"[{row['title']}]({row['url']})",
            row["task"],
            f"{row['classes']}: {names}" if names else str(row["classes"]),
            images.replace(" all", ", no split"),
            "<br>or ".join(map(_layout_cell, row["layout"])),
            row["paper"],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _layout_cell(line: str) -> str:
    """A line of a layout with its paths as code and its remark as text."""
    if line.startswith("("):
        return line.strip("()")
    paths, bracket, remark = line.partition(" (")
    code = " and ".join(f"`{path}`" for path in re.split(r" and (?=\S+$)", paths))
    return f"{code}{bracket}{remark}"


def _row(entry: NamedSet) -> dict[str, Any]:
    return {
        "name": entry.name,
        "title": entry.title,
        "task": entry.task,
        "classes": entry.defaults.get("classes", 1),
        "class_names": list(entry.defaults.get("class_names", ())),
        "ignore": entry.defaults.get("ignore"),
        "splits": dict(entry.splits),
        "layout": list(entry.layout),
        "paper": entry.paper,
        "url": entry.url,
    }
