"""The table of a run's test images with the score of each answer, for people and comparisons."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from samtune.errors import InputError
from samtune.files import write_whole
from samtune.runs.trees import Tree
from samtune.texts import read_text

PER_IMAGE = "images.csv"
"""The file of a run folder with one row per prompt and test image."""
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
    """The rows of a run's test images; empty for runs without them, as of version 0.1.0.

    Raises:
        InputError: The file is damaged.
    """
    file = folder / PER_IMAGE
    if not file.is_file():
        return []
    remedy = f"go on with resume={folder}, which writes it again"
    try:
        rows = csv.DictReader(io.StringIO(read_text(file)), strict=True)
        items = [{key: _value(key, cell) for key, cell in row.items()} for row in rows]
    except (ValueError, TypeError, OSError, csv.Error) as error:
        reason = " ".join(str(error).split())[:80]
        raise InputError(f"{file}: is damaged ({reason}); {remedy}") from error
    if not items or not all({*TEXTS} <= row.keys() for row in items):
        raise InputError(f"{file}: is damaged (it has no rows of images); {remedy}")
    return items


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
