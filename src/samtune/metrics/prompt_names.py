"""The names of metrics by prompt mode in the row of a validation, as ``iou@point``."""

from __future__ import annotations

import re
from collections.abc import Iterable

_NAME = re.compile(r"([A-Za-z_][\w.]*(?::[A-Za-z_][\w.]*)?)@(\w+)")
"""One metric and one prompt mode. Criteria over several, as ``iou@none+iou@point`` and
``min(iou@box,iou@point)``, have numbers in the same row, and are none."""


def key_of(measure: str, mode: str) -> str:
    """The name of a metric under a prompt mode."""
    return f"{measure}@{mode}"


def mode_of(key: str) -> str | None:
    """The prompt mode of a number with this name; ``None`` if it is of none or of several."""
    match = _NAME.fullmatch(key)
    return None if match is None else match[2]


def modes_with(measure: str, row: Iterable[str]) -> tuple[str, ...]:
    """The prompt modes in which a validation measured a metric, in the order of its row."""
    modes = ((key, mode_of(key)) for key in row)
    return tuple(mode for key, mode in modes if mode is not None and key == key_of(measure, mode))
