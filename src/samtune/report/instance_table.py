"""The rows of tables of automatic modes, for the terminal, for reports and for comparisons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

TITLES = {
    "ap50": "AP50",
    "msa": "mSA",
    "pq": "PQ",
    "aji": "AJI",
    "count_error": "count error",
    "ap": "AP",
    "ap75": "AP75",
    "sa50": "SA50",
    "sa75": "SA75",
    "sq": "SQ",
    "rq": "RQ",
    "aji_plus": "AJI+",
    "count_error_relative": "count error, fraction",
    "count_bias": "count bias",
}
"""The titles of metrics, the most important first."""
SHORT = ("ap50", "msa", "pq", "aji", "count_error")
"""The metrics of short tables."""
SECONDS = "seconds per image"
SIDE_NAMES = {"zero_shot": "zero-shot", "zero_shot_fitted": "zero-shot, fitted"}
"""The names of sides, as far as they differ from the words in a summary."""
SIZES = ("small", "medium", "large")
BY_SIZE = ("ap", "msa", "pq", "aji", "count_error")
"""The metrics that there are for each size."""


FITTED_BASE, BEYOND = "zero_shot_fitted", "difference_fitted"
"""The base with fitted thresholds, and what tuning is worth beyond it."""


class Line(NamedTuple):
    """A line of a table: one number of the base and of the tuned model."""

    name: str
    zero_shot: float | None
    tuned: float | None
    intervals: Mapping[str, Any]
    """Ends of the intervals, by ``zero_shot``, ``tuned`` and ``difference``; and by
    ``zero_shot_fitted`` and ``difference_fitted``, from there to ``tuned``."""
    zero_shot_fitted: float | None = None
    """The number of the base with thresholds that were fitted for it, if there are any."""


def automatic_modes(by_prompt: Mapping[str, Any] | None) -> dict[str, Mapping[str, Any]]:
    """The automatic modes of a summary's ``by_prompt``, with what was measured in each."""
    entries = (by_prompt or {}).items()
    return {mode: entry for mode, entry in entries if entry.get("automatic")}


def instance_lines(entry: Mapping[str, Any], short: bool = False) -> list[Line]:
    """The numbers of an automatic mode over all sizes.

    Args:
        entry: An entry of ``by_prompt``.
        short: Whether only the most important ones are wanted.
    """
    metrics = entry.get("metrics") or {}
    names = [name for name in (SHORT if short else TITLES) if name in metrics]
    lines = [_line(TITLES[name], metrics[name]) for name in names]
    seconds = entry.get("seconds_per_image") or {}
    before, after, fitted = (seconds.get(side) for side in ("zero_shot", "tuned", FITTED_BASE))
    return [*lines, Line(SECONDS, before, after, {}, fitted)]


def lines_by_size(entry: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Line]]]:
    """The titles of metrics, each with a line for every size that occurs."""
    metrics = entry.get("metrics") or {}
    for name in BY_SIZE:
        lines = {
            size: _line(size, metrics[f"{name}_{size}"])
            for size in SIZES
            if f"{name}_{size}" in metrics
        }
        yield TITLES[name], lines


def _line(title: str, values: Mapping[str, Any]) -> Line:
    before, after, fitted = (values.get(side) for side in ("zero_shot", "tuned", FITTED_BASE))
    return Line(title, before, after, values.get("intervals") or {}, fitted)


def has_fitted_base(lines: Sequence[Line]) -> bool:
    """Whether the base was measured with fitted thresholds too."""
    return any(line.zero_shot_fitted is not None for line in lines)


def thresholds(entry: Mapping[str, Any]) -> list[str]:
    """The thresholds with which each side of an automatic mode answers, in words."""
    sentences = []
    for side, settings in (entry.get("settings") or {}).items():
        words = [
            f"{key} {settings[key]:g}"
            for key in ("points_per_side", "pred_iou_thresh", "stability_score_thresh")
            if key in settings
        ] or [f"{key} {value}" for key, value in settings.items()]
        sentences.append(f"{SIDE_NAMES.get(side, side)}: {', '.join(words)}")
    return sentences
