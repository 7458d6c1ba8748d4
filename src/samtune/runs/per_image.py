"""The table of a run's test images: what each answer scored, for people and for comparisons."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from samtune.files import write_whole
from samtune.runs.trees import Tree

PER_IMAGE = "images.csv"
"""The file of a run folder with a row for each prompt and test image."""
TEXTS = ("prompt", "image")
COUNTS = ("zero_shot_objects", "tuned_objects")


def write_items(folder: Path, items: Sequence[Tree]) -> Path | None:
    """Writes the rows of :func:`samtune.runs.baseline.compare_with_base`; a NaN becomes empty."""
    if not items:
        return None
    text = io.StringIO()
    writer = csv.DictWriter(text, list(items[0]), lineterminator="\n")
    writer.writeheader()
    for row in items:
        writer.writerow({key: _cell(value) for key, value in row.items()})
    return write_whole(folder / PER_IMAGE, text.getvalue())


def read_items(folder: Path) -> list[Tree]:
    """The rows of a run's test images; empty for a run that has none, as those of version 0.1.0."""
    file = folder / PER_IMAGE
    if not file.is_file():
        return []
    with file.open(encoding="utf-8", newline="") as lines:
        return [
            {key: _value(key, cell) for key, cell in row.items()} for row in csv.DictReader(lines)
        ]


def _cell(value: object) -> object:
    if isinstance(value, float):
        return "" if math.isnan(value) else round(value, 9)
    return value


def _value(key: str, cell: str) -> str | float | int:
    if key in TEXTS:
        return cell
    if key in COUNTS:
        return int(cell)
    return float(cell) if cell else math.nan
