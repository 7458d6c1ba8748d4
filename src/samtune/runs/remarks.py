"""Remarks that a reader should know before believing a run's results."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from samtune.metrics.intervals import FEW, LEVEL
from samtune.report.prompt_table import BEYOND_WHOLE, ON_WHOLE
from samtune.report.quantities import metric, span
from samtune.runs.values import Tree

PERCENT = f"{100 * LEVEL:.0f} %"


def few_images(split: str, images: int) -> str | None:
    """A remark on a split for measuring with few images; ``None`` if it has enough."""
    if split == "train" or images >= FEW:
        return None
    if images == 1:
        return f"{split}: a single image, so its numbers say little; add some"
    use = {
        "val": "so the best step is chosen partly by chance",
        "test": "so intervals are wide, and still too short",
    }.get(split, "so its numbers are rough")
    return f"{split}: {images} images are few (fewer than {FEW}), {use}"


@dataclass(frozen=True)
class _Cell:
    """One prompt mode's IoU and the value that it is compared with."""

    mode: str
    iou: float
    other: float
    name: str
    """The name of the compared value."""
    ends: list[float] | None
    """The interval of their difference."""

    @property
    def sure(self) -> bool:
        """Whether the difference is more than chance; always true without an interval."""
        return self.ends is None or not self.ends[0] <= 0 <= self.ends[1]

    def __str__(self) -> str:
        return f"{self.mode} {self.iou:.3f}, {self.name} {self.other:.3f}"

    @property
    def gain(self) -> str:
        """The difference with its interval."""
        return (
            f"{self.mode} {metric(self.iou - self.other, sign=True)}, {span(self.ends, sign=True)}"
        )


def shortfalls(by_prompt: Mapping[str, Tree]) -> list[str]:
    """Remarks if tuning did harm or no measurable good, or if no model beats the guesses.

    Requested metrics without a value are named too, and automatic modes that found nothing.

    Args:
        by_prompt: A result of :func:`samtune.runs.baseline.compare_with_base`; without intervals
            values are compared directly.
    """
    gains = list(_gains(by_prompt))
    worse = [str(cell) for cell in gains if cell.iou < cell.other and cell.sure]
    unsure = [cell.gain for cell in gains if cell.iou != cell.other and not cell.sure]
    remarks = [entry["hint"] for entry in by_prompt.values() if "hint" in entry]
    if worse:
        remarks.append(
            f"tuned is worse than zero-shot (IoU: {'; '.join(worse)}): try a lower train.lr or "
            "add training images"
        )
    whole = [str(cell) for cell in _beyond_whole(by_prompt) if cell.iou < cell.other and cell.sure]
    if whole:
        remarks.append(
            f"the base on whole images is better than tuned in its frame (IoU: {'; '.join(whole)}):"
            " for these prompts use the base, or train with input.tiles=whole"
        )
    if unsure:
        remarks.append(
            f"tuned and zero-shot are not distinguishable (IoU: {'; '.join(unsure)}): the "
            f"{PERCENT} interval of the difference contains 0"
        )
    for side, label in (("tuned", "tuned"), ("zero_shot", "zero-shot")):
        cells = list(_above_guesses(by_prompt, side))
        under = [str(cell) for cell in cells if cell.iou <= cell.other]
        near = [str(cell) for cell in cells if cell.iou > cell.other and not cell.sure]
        if under:
            remarks.append(
                f"{label} is not better than guesses without a model (IoU: {'; '.join(under)})"
            )
        if near:
            remarks.append(
                f"{label} is not distinguishable from guesses without a model (IoU: "
                f"{'; '.join(near)}): the {PERCENT} interval of the difference contains 0"
            )
    if names := _without_number(by_prompt):
        remarks.append(f"{', '.join(names)}: nothing to measure, so there is no number")
    return remarks


def _without_number(by_prompt: Mapping[str, Tree]) -> list[str]:
    """Requested metrics without a value, as those of sizes that do not occur."""
    names = []
    for mode, entry in by_prompt.items():
        if entry.get("automatic"):  # it has all metrics of instances, of every size
            continue
        for name, sides in (entry.get("metrics") or {}).items():
            values = [sides[side] for side in ("tuned", "zero_shot") if side in sides]
            if values and all(
                v is None or (isinstance(v, float) and math.isnan(v)) for v in values
            ):
                names.append(f"{name} ({mode})" if len(by_prompt) > 1 else name)
    return names


def _gains(by_prompt: Mapping[str, Tree]) -> Iterator[_Cell]:
    for mode, entry in by_prompt.items():
        tuned, before = (_iou(entry.get(side)) for side in ("tuned", "zero_shot"))
        ends = (entry.get("intervals") or {}).get("difference") or {}
        if tuned is not None and before is not None:
            yield _Cell(mode, tuned, before, "before", ends.get("iou"))


def _beyond_whole(by_prompt: Mapping[str, Tree]) -> Iterator[_Cell]:
    """The tuned model beside the base on whole images, where their frames differ."""
    for mode, entry in by_prompt.items():
        tuned, whole = (_iou(entry.get(side)) for side in ("tuned", ON_WHOLE))
        ends = (entry.get("intervals") or {}).get(BEYOND_WHOLE) or {}
        if tuned is not None and whole is not None:
            yield _Cell(mode, tuned, whole, "on whole images", ends.get("iou"))


def _above_guesses(by_prompt: Mapping[str, Tree], side: str) -> Iterator[_Cell]:
    """The last side of each mode beside the best guess, if that side is this one."""
    for mode, entry in by_prompt.items():
        last = "tuned" if entry.get("tuned") else "zero_shot"
        iou = _iou(entry.get(last))
        if last != side or iou is None:
            continue
        guesses = {name: _iou(guess) for name, guess in (entry.get("guesses") or {}).items()}
        known = {name: value for name, value in guesses.items() if value is not None}
        if known:
            name = max(known, key=lambda each: known[each])
            ends = ((entry.get("intervals") or {}).get("above_guesses") or {}).get(name) or {}
            yield _Cell(mode, iou, known[name], name, ends.get("iou"))


def _iou(numbers: Any) -> float | None:
    """The IoU, unless there is none or it is NaN."""
    iou = (numbers or {}).get("iou")
    return None if iou is None or math.isnan(iou) else iou
