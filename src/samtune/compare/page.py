"""A comparison of methods as one self-contained page: table, IoU against size, and pictures."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from samtune.compare.notes import notes
from samtune.compare.rows import grids, p_value, paired_grid
from samtune.files import write_whole
from samtune.report.charts import FRAME, ticks
from samtune.report.overlays import PANEL, Overlay, panels
from samtune.report.page import encoded, page, versions
from samtune.report.prompt_table import asked_with
from samtune.report.quantities import duration, metric, quantity, rate_of

DOT, BESIDE, LETTER, LINE, WIDTH = 5.0, 9.0, 6.8, 13.0, 580.0
"""Sizes in a chart, in pixels of its SVG: radius of a point, distance of its label, approximate
width of a letter, height of a label, and width of the chart."""


@dataclass(frozen=True)
class Entry:
    """One method's answer for an image."""

    method: str
    mask: np.ndarray | None
    """``(h, w)`` bool; ``None`` if the image has no objects to prompt."""
    iou: float | None
    """The IoU of the mask, the union of all objects."""


@dataclass(frozen=True)
class Picture:
    """One image with its ground truth and each method's answer."""

    overlay: Overlay
    """Image, truth and prompts."""
    entries: Sequence[Entry]


def write_page(
    folder: Path,
    result: Mapping[str, Any],
    pictures: Sequence[Picture],
    config: Mapping[str, Any],
    command: str = "",
) -> Path:
    """Writes ``report.html`` of a comparison.

    Args:
        folder: The target folder.
        result: See :func:`samtune.compare.jobs.compare`.
        pictures: The same images for each method.
        config: Settings of the first run.
        command: The command line.
    """
    return write_whole(folder / "report.html", render(result, pictures, config, command))


def render(
    result: Mapping[str, Any],
    pictures: Sequence[Picture],
    config: Mapping[str, Any],
    command: str = "",
) -> str:
    """The page's HTML; for the arguments see :func:`write_page`."""
    import yaml

    shots = list(dict.fromkeys(row["shots"] for row in result["rows"]))
    groups = {each: [row for row in result["rows"] if row["shots"] == each] for each in shots}
    named = {_of_shots(each).capitalize(): rows for each, rows in groups.items()}
    return page("comparison.html.j2").render(
        result=result,
        groups=named,
        grids=grids(result),
        tests=paired_grid(result),
        notes=notes(result),
        p_value=p_value,
        rate_of=rate_of,
        facts=[
            ("Prompt", asked_with(str(result["prompt"]), result.get("by_prompt"))),
            ("Test images", str(result["images"])),
            ("Seeds", ", ".join(map(str, result["rows"][0]["seeds"]))),
            ("Trainings", str(result["runs"])),
            ("Time in all", duration(result["seconds"])),
        ],
        charts=[scatter(each, rows, result["zero_shot"]["iou"]) for each, rows in groups.items()],
        gallery=_grid(pictures),
        command=command,
        config=yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True),
        versions=versions(),
        metric=metric,
        quantity=quantity,
        duration=duration,
    )


def scatter(
    shots: int | str, rows: Sequence[Mapping[str, Any]], zero_shot: float | None
) -> dict[str, Any]:
    """IoU against trainable parameters on a logarithmic axis, in the pixels of its SVG.

    Returns:
        ``title``, ``frame``, ``beside`` (distance of a label from its point), ``x`` and ``y``
        (position and label of each tick), ``zero_shot`` (the height of its line, or ``None``),
        ``below`` (the base's IoU, if it is so far below the methods that they would overlap on a
        common axis), ``lines`` (the meaning of the points' error bars) and ``points``: method,
        position, the ends of its error bar, the side of its label (none if it would overlap another
        point or label, or leave the chart), and whether it is the best.
    """
    known = [row for row in rows if row["iou"]["mean"] is not None]
    sizes = [max(1, row["trainable_parameters"]) for row in known]
    low = math.floor(math.log10(min(sizes, default=1)))
    high = max(low + 1, math.ceil(math.log10(max(sizes, default=1)) + 1e-9))
    spans = [_span(row) for row in known]
    heights = [end for ends in spans for end in ends]
    far = zero_shot is not None and _far_below(zero_shot, heights)
    line = None if far else zero_shot
    heights += [] if line is None else [line]
    y_ticks = ticks(min(heights, default=0.0), max(heights, default=1.0))
    left, top, right, bottom = FRAME

    def across(parameters: float) -> float:
        return round(left + (math.log10(parameters) - low) / (high - low) * (right - left), 1)

    def up(iou: float) -> float:
        part = (iou - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return round(bottom - part * (bottom - top), 1)

    points = []
    for row, size, (low_end, high_end) in zip(known, sizes, spans, strict=True):
        x, mean = across(size), row["iou"]["mean"]
        points.append(
            {
                "method": row["method"],
                "at": (x, up(mean)),
                "ends": (up(low_end), up(high_end)) if low_end < high_end else None,
                "best": row["best"],
                "label": f"{row['method']}: IoU {metric(mean)}, {quantity(size)} parameters",
            }
        )
    digits = max(0, -math.floor(math.log10(y_ticks[1] - y_ticks[0]) + 1e-9))
    return {
        "title": f"IoU by trainable parameters, {_of_shots(shots)}",
        "frame": FRAME,
        "beside": BESIDE,
        "x": [(across(10.0**power), quantity(10.0**power)) for power in range(low, high + 1)],
        "y": [(up(tick), f"{tick:.{digits}f}") for tick in y_ticks],
        "zero_shot": None if line is None else up(line),
        "below": zero_shot if far else None,
        "points": _with_labels(points, (left + right) / 2),
        "lines": _meaning_of_lines(known),
    }


def _span(row: Mapping[str, Any]) -> tuple[float, float]:
    """The ends of a row's error bar: its interval, or otherwise a deviation up and down."""
    ends = ((row.get("intervals") or {}).get("tuned") or {}).get("iou")
    if ends:
        return ends[0], ends[1]
    mean, deviation = row["iou"]["mean"], row["iou"]["std"] or 0.0
    return mean - deviation, mean + deviation


def _meaning_of_lines(rows: Sequence[Mapping[str, Any]]) -> str:
    if any(row.get("intervals") for row in rows):
        return "95 % intervals over test images and draws"
    return "one standard deviation over draws" if any(row["iou"]["std"] for row in rows) else ""


def _with_labels(points: list[dict[str, Any]], middle: float) -> list[dict[str, Any]]:
    """Adds the ``side`` of each point's label: away from the middle, towards it, or ``None``.

    The highest points choose first.
    """
    occupied = [_around(x, y, DOT, DOT) for x, y in (point["at"] for point in points)]
    sides: list[str | None] = [None] * len(points)
    for k in sorted(range(len(points)), key=lambda k: points[k]["at"][1]):
        (x, y), width = points[k]["at"], LETTER * len(points[k]["method"])
        outer, inner = ("left", "right") if x > middle else ("right", "left")
        for side in (outer, inner):
            centre = x + (BESIDE + width / 2) * (1 if side == "right" else -1)
            box = _around(centre, y, width / 2, LINE / 2)
            others = [other for i, other in enumerate(occupied) if i != k]
            fits = box[0] >= 0 and box[2] <= WIDTH
            if fits and not any(_meet(box, other) for other in others):
                occupied.append(box)
                sides[k] = side
                break
    return [{**point, "side": sides[k]} for k, point in enumerate(points)]


def _around(x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
    """The edges of a box, from its centre and half its sides."""
    return x - width, y - height, x + width, y + height


def _meet(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    """Whether two boxes overlap."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _far_below(zero_shot: float, heights: Sequence[float]) -> bool:
    return len(heights) > 2 and min(heights) - zero_shot > 3 * (max(heights) - min(heights))


def _grid(pictures: Sequence[Picture]) -> list[dict[str, Any]]:
    """Rows of pictures: image, truth, then one row per method over the same images."""
    if not pictures:
        return []
    rows: list[dict[str, Any]] = [{"name": name, "cells": []} for name in ("image", "truth")]
    for each in pictures:
        pictures_by_name = dict(panels(each.overlay))
        for row in rows:
            row["cells"].append(_cell(pictures_by_name[row["name"]], each.overlay.name))
    for k, entry in enumerate(pictures[0].entries):
        cells = []
        for each in pictures:
            answer = each.entries[k]
            caption = "" if answer.iou is None else f"IoU {metric(answer.iou)}"
            picture = _picture_of(each.overlay, answer.mask, tuned=k > 0)
            cells.append(_cell(picture, each.overlay.name, caption))
        rows.append({"name": entry.method, "cells": cells})
    return rows


def _of_shots(shots: int | str) -> str:
    if isinstance(shots, str):
        return "all training images"
    return f"{shots} training image{'s' if shots > 1 else ''}"


def _picture_of(overlay: Overlay, mask: np.ndarray | None, tuned: bool) -> np.ndarray:
    """A method's answer over the image, as large as the other panels."""
    if mask is None:
        return panels(replace(overlay, truth=None))[0][1]
    return panels(replace(overlay, **{"after" if tuned else "before": mask}))[-1][1]  # type: ignore[arg-type]


def _cell(picture: np.ndarray, name: str, caption: str = "") -> dict[str, Any]:
    kind = "PNG" if 2 * max(picture.shape[:2]) <= PANEL else "JPEG"
    data = base64.b64encode(encoded(picture, kind)).decode()
    return {
        "source": f"data:image/{kind.lower()};base64,{data}",
        "shape": picture.shape,
        "name": name,
        "caption": caption,
    }
