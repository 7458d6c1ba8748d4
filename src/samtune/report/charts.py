"""The curves of a run as parts of an SVG."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from samtune.metrics.prompt_names import key_of, modes_with
from samtune.report.quantities import count, is_number

CURVE_POINTS = 600
"""Longer histories are averaged down to this many points per curve."""

FRAME = (52, 12, 548, 226)
"""Left, top, right and bottom of a chart's plot in the 560 x 270 units of its SVG."""


PROMPT_STYLES = ("prompt1", "prompt2", "prompt3", "prompt4")
"""The CSS classes of the curves of several prompts."""


@dataclass(frozen=True)
class Curve:
    """One line of a chart, in data coordinates; ``style`` is its CSS class."""

    label: str
    style: str
    points: list[tuple[float, float]]
    dots: bool = False


def charts(
    history: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The charts of a run: loss and validation, as far as its rows contain them."""
    rows = {
        event: [row for row in history if row.get("event") == event]
        for event in ("train", "val", "zero_shot", "strength")
    }
    loss = _series(rows["train"], "loss")
    smooth = len(loss) > 40
    curves = [Curve("training batch", "faint" if smooth else "loss", loss)]
    curves += [Curve("training, smoothed", "loss", _moving_average(loss))] if smooth else []
    curves.append(Curve("validation", "truth", _series(rows["val"], "loss"), dots=True))
    all_charts = [_chart("Loss", curves)]
    iou = _series(rows["val"], "iou")
    curves = [Curve("tuned", "after", iou, dots=True)]
    baseline = (rows["zero_shot"] or [summary.get("zero_shot") or {}])[-1].get("iou")
    if iou and is_number(baseline):
        ends = (min(0.0, iou[0][0]), iou[-1][0])
        curves.append(Curve("zero-shot", "before", [(x, baseline) for x in ends]))
    all_charts.append(_chart("Validation IoU", curves + _watched(rows["val"])))
    all_charts.append(_strengths(rows["strength"], summary))
    for way in ("everything", "watershed"):
        all_charts += _thresholds(way.capitalize(), summary.get(way) or {})
    return [chart for chart in all_charts if chart]


def _watched(rows: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """One curve per prompt that validations monitor."""
    styles = zip(modes_with("iou", rows[0] if rows else ()), itertools.cycle(PROMPT_STYLES))
    return [Curve(mode, style, _series(rows, key_of("iou", mode))) for mode, style in styles]


def _strengths(
    rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The validations of the last choice by strength, one curve per prompt, and the choice."""
    strength, by_mode = summary.get("strength"), summary.get("selection", {}).get("strengths", {})
    modes_at: dict[float, list[str]] = {} if by_mode or strength is None else {float(strength): []}
    for mode, level in by_mode.items():
        modes_at.setdefault(float(level), []).append(mode)
    rows = [{**row, "step": row["strength"]} for row in rows if row["step"] == rows[-1]["step"]]
    curves = _watched(rows) or [Curve("IoU", "after", _series(rows, "iou"))]
    curves = [replace(curve, dots=True) for curve in curves]
    values = [y for curve in curves for _, y in curve.points]
    for level, modes in modes_at.items() if values else ():
        name = f"chosen for {', '.join(modes)}: {level:g}" if modes else "chosen"
        curves.append(Curve(name, "before", [(level, min(values)), (level, max(values))]))
    return _chart("Validation IoU by strength", curves, "strength")


def _thresholds(what: str, entry: Mapping[str, Any]) -> list[dict[str, Any] | None]:
    """The metric of objects that are found by each setting that was fitted, and the choice."""
    charts = []
    for name, points in entry.get("curves", {}).items():
        rows = [(float(x), float(y)) for x, y in points]
        value, heights = entry["settings"].get(name), [y for _, y in rows]
        if len(rows) < 2 or value is None:
            continue
        line = [(float(value), min(heights)), (float(value), max(heights))]
        curves = [Curve(entry["metric"], "after", rows, dots=True), Curve("chosen", "before", line)]
        charts.append(_chart(f"{what}: {entry['metric']} by {name}", curves, name))
    return charts


def _series(rows: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    pairs = [(float(row["step"]), row[key]) for row in rows if is_number(row.get(key))]
    finite = np.array([p for p in pairs if math.isfinite(p[1])])
    if len(finite) > CURVE_POINTS:
        finite = np.array([part.mean(0) for part in np.array_split(finite, CURVE_POINTS)])
    return [(float(x), float(y)) for x, y in finite]


def _moving_average(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Centred moving average over a twentieth of the curve."""
    reach = max(1, len(points) // 40)
    ys = np.array([y for _, y in points])
    windows = [ys[max(0, i - reach) : i + reach + 1] for i in range(len(ys))]
    return [(x, float(w.mean())) for (x, _), w in zip(points, windows, strict=True)]


def _chart(title: str, curves: Sequence[Curve], along: str = "step") -> dict[str, Any] | None:
    """A chart in the pixels of its SVG: frame, ticks with labels, polylines."""
    curves = [c for c in curves if c.points]
    if not curves:
        return None
    left, top, right, bottom = FRAME
    xs, ys = zip(*(p for c in curves for p in c.points), strict=True)
    whole = along == "step"
    x_ticks, y_ticks = ticks(min(0.0, *xs), max(xs), whole=whole), ticks(min(ys), max(ys))
    x_range, y_range = (min(0.0, *xs), max(1.0, *xs)), (y_ticks[0], y_ticks[-1])

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - x_range[0]) / (x_range[1] - x_range[0])
        up = (y - y_range[0]) / (y_range[1] - y_range[0])
        return round(left + across * (right - left), 1), round(bottom - up * (bottom - top), 1)

    digits = max(0, -math.floor(math.log10(y_ticks[1] - y_ticks[0]) + 1e-9))
    return {
        "title": title,
        "along": along,
        "frame": FRAME,
        "x": [
            (at(t, y_range[0])[0], count(t) if whole else f"{t:g}")
            for t in x_ticks
            if t <= x_range[1]
        ],
        "y": [(at(0, t)[1], f"{t:.{digits}f}") for t in y_ticks],
        "curves": [(c, [at(x, y) for x, y in c.points]) for c in curves],
        "last": {c.label: c.points[-1][1] for c in curves},
    }


def ticks(low: float, high: float, about: int = 5, whole: bool = False) -> list[float]:
    """Round numbers, 1, 2 or 5 times a power of ten apart, that enclose ``low`` to ``high``.

    Args:
        low: The least value.
        high: The greatest.
        about: Approximate number of ticks.
        whole: Whether to use whole numbers only.
    """
    span = high - low or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / about))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= 0.999 * span / about)
    step = max(step, 1.0) if whole else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, max(last, first + 1) + 1)]
