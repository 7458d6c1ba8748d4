"""Remarks that a reader of a comparison should know before believing its tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from samtune.compare.plan import ALL, shots_name
from samtune.compare.sureness import CHANCE
from samtune.metrics.intervals import FEW, LEVEL, outside


def notes(
    result: Mapping[str, Any],
    marks: tuple[str, str] = ("*", "="),
    against: str = "the method with the highest mean and the same shots",
) -> list[str]:
    """The remarks for a reader of the tables, a sentence or two each.

    Args:
        result: See :func:`samtune.compare.jobs.compare`.
        marks: The marks of the best method, and of those that it cannot be told from.
        against: The other side of the p values of the main table.
    """
    return [
        *_of_failures(result), *_of_spread(result), *_of_tests(result, marks, against),
        *_of_results(result),
    ]  # fmt: skip


def _of_failures(result: Mapping[str, Any]) -> Iterator[str]:
    failed = result.get("failed") or []
    if failed:
        names = "; ".join(dict.fromkeys(map(_name, failed)))
        yield (
            f"The tables leave out {names}: {len(failed)} of the runs failed. The same command "
            "tries them again."
        )


def _name(row: Mapping[str, Any]) -> str:
    """The method and the number of shots of a row."""
    return f"{row['method']}, {shots_name(None if row['shots'] == ALL else row['shots'])}"


def _of_spread(result: Mapping[str, Any]) -> Iterator[str]:
    rows = result["rows"]
    seeds = min(len(row["seeds"]) for row in rows)
    if seeds > 1:
        yield f"\N{PLUS-MINUS SIGN} is the standard deviation over {seeds} draws of the shots."
    else:
        yield "There is only one draw of the shots, so the results say nothing about other draws."
    if any(row.get("intervals") for row in rows):
        yield (
            f"Intervals cover {100 * LEVEL:.0f} %: bootstrap over test images and draws, paired "
            "for differences."
        )
    else:
        yield "There are no intervals: some runs lack images.csv, or their test images differ."
    if result["images"] < FEW:
        yield (
            f"{result['images']} test images are few (fewer than {FEW}): the intervals are wide, "
            "and still too short."
        )


def _of_tests(result: Mapping[str, Any], marks: tuple[str, str], against: str) -> Iterator[str]:
    if any(row.get("standing") for row in result["rows"]):
        yield (
            f"{marks[0]} is the best method with these shots, {marks[1]} is not distinguishable "
            "from the one with the highest mean."
        )
    for test in (result.get("tests") or [])[:1]:
        yield (
            f"p is from a paired permutation test over test images, against {against}, after "
            f"Holm's correction; a difference counts if p is below {CHANCE:.2g} and the interval "
            "excludes 0."
        )
        draws = test["draws"]
        if draws["n"] > 1 and draws["least"] >= CHANCE:
            yield (
                f"With {draws['n']} draws, p over draws cannot fall below {draws['least']:.2g}; "
                "6 draws are enough."
            )


def _of_results(result: Mapping[str, Any]) -> Iterator[str]:
    """Names methods that are no better than zero-shot or than a guess without a model."""
    guesses = {name: guess["iou"] for name, guess in (result.get("guesses") or {}).items()}
    known = {name: iou for name, iou in guesses.items() if iou is not None}
    top = max(known, key=lambda name: known[name], default=None)
    under, worse, unsure = [], [], []
    for row in result["rows"]:
        iou, ends = row["iou"]["mean"], (row.get("intervals") or {}).get("difference") or {}
        name = _name(row)
        if top is not None and iou is not None and iou <= known[top]:
            under.append(name)
        if ends.get("iou") and not outside(ends["iou"]):
            unsure.append(name)
        elif ends.get("iou") and ends["iou"][1] < 0:
            worse.append(name)
    if worse:
        yield f"Worse than zero-shot: {'; '.join(worse)}."
    if unsure:
        yield f"Not distinguishable from zero-shot: {'; '.join(unsure)}."
    if under:
        yield f"Not better than the {top}, which needs no model: {'; '.join(under)}."
