"""The table of how many objects each image has, and how large they are, for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from samtune.errors import InputError
from samtune.files import as_path
from samtune.inference.formats import Predicted

COUNTS = "counts.csv"
"""The file, beside ``predictions.json``."""
COLUMNS = (
    "image", "width", "height", "objects", "mean_area", "median_area", "total_area", "mean_score",
)  # fmt: skip
"""Areas are in pixels of the image; of an image without objects means and medians are empty."""


def counts_table(results: Iterable[Predicted]) -> str:
    """One row per image, as CSV.

    Args:
        results: The images with the entries of their objects.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for each in results:
        areas = np.array([entry["area"] for entry in each.entries], np.float64)
        scores = [float(entry["score"]) for entry in each.entries]
        means: list[object] = ["", "", 0, ""]
        if len(areas):
            of_areas = [round(float(v), 2) for v in (areas.mean(), np.median(areas))]
            means = [*of_areas, int(areas.sum()), round(float(np.mean(scores)), 4)]
        writer.writerow([each.label, each.size[1], each.size[0], len(areas), *means])
    return text.getvalue()


def check_counts(out: str | Path) -> None:
    """Refuses a folder with a table of this name that somebody else wrote.

    Args:
        out: The output folder.

    Raises:
        InputError: It names the file.
    """
    file = as_path(out) / COUNTS
    if not file.is_file():
        return
    with file.open("rb") as lines:
        first = lines.readline(1000)
    if first.strip() != ",".join(COLUMNS).encode():
        raise InputError(
            f"--out={out}: holds a {COUNTS} that samtune everything did not write; choose another "
            "folder"
        )
