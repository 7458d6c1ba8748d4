"""The table of a run's test images with the score of each answer, for people and comparisons."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

from samtune.errors import InputError
from samtune.files import write_whole
from samtune.runs.values import Tree
from samtune.texts import read_text

PER_IMAGE = "images.csv"
"""The file of a run folder with one row per prompt and test image."""
TEXTS = ("prompt", "image")
COUNTS = ("zero_shot_objects", "zero_shot_fitted_objects", "tuned_objects")


def write_items(folder: Path, items: Sequence[Tree]) -> Path | None:
    """Writes the rows of :func:`samtune.runs.baseline.compare_with_base`; a NaN becomes empty."""
    if not items:
        return None
    text = io.StringIO()
    columns = dict.fromkeys(key for row in items for key in row)  # automatic modes have more
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    for row in items:
        writer.writerow({key: _cell(value) for key, value in row.items()})
    return write_whole(folder / PER_IMAGE, text.getvalue())


def checksum_of_items(folder: Path) -> str | None:
    """A hash of the file's text; ``None`` if there is no such file.

    Raises:
        InputError: The file cannot be read.
    """
    text = _text_of(folder)
    return None if text is None else _hash(text)


def _hash(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _text_of(folder: Path) -> str | None:
    file = folder / PER_IMAGE
    if not os.path.lexists(file):
        return None
    try:
        return read_text(file)
    except (ValueError, OSError) as error:
        raise _damaged(folder, error) from error


def read_items(folder: Path, checksum: object = None) -> list[Tree]:
    """The rows of a run's test images; empty for runs without them, as of version 0.1.0.

    Args:
        folder: The run's folder.
        checksum: The value of :func:`checksum_of_items` when the file was written; ``None`` if that
            is not known.

    Raises:
        InputError: The file is damaged, or missing although there is a checksum.
    """
    text = _text_of(folder)
    if checksum is not None and checksum != (None if text is None else _hash(text)):
        what = "is missing" if text is None else "its checksum does not match"
        raise _damaged(folder, what)
    if text is None:
        return []
    try:
        rows = csv.DictReader(io.StringIO(text), strict=True)
        items = [{key: _value(key, cell) for key, cell in row.items()} for row in rows]
    except (ValueError, TypeError, csv.Error) as error:
        raise _damaged(folder, error) from error
    if not items or not all({*TEXTS} <= row.keys() for row in items):
        raise _damaged(folder, "it has no rows of images")
    return items


def _damaged(folder: Path, reason: object) -> InputError:
    short = " ".join(str(reason).split())[:80]
    return InputError(
        f"{folder / PER_IMAGE}: is damaged ({short}); go on with resume={folder}, which writes it "
        "again"
    )


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
