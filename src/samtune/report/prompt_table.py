"""The rows of the table of prompts, for the terminal and for the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TITLE = "By prompt (all but none are taken from the ground truth)"
NOTHING = "none"
"""The mode without any prompt."""
Numbers = Mapping[str, float] | None


@dataclass(frozen=True)
class Row:
    """One line of the table: a prompt mode, a guess or a click, with both models' metrics."""

    mode: str
    label: str
    """The mode, or for a line below it the guess or the click."""
    origin: str
    """The prompts' origin: ``ground truth`` or ``nothing``; empty for a line below a mode."""
    zero_shot: Numbers
    tuned: Numbers


def asked_with(mode: str) -> str:
    """A prompt mode with its origin, as ``box (from the ground truth)``."""
    return mode if mode == NOTHING else f"{mode} (from the ground truth)"


def with_guesses(groups: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers by metric or class, and below each a row for what needs no model.

    Args:
        groups: By name what was measured; ``guesses`` in it, by name, become rows of their own.
    """
    rows: dict[str, Any] = {}
    for name, values in groups.items():
        rows[name] = values
        if isinstance(values, Mapping):
            rows[name] = {key: value for key, value in values.items() if key != "guesses"}
            for guess, value in (values.get("guesses") or {}).items():
                rows[f"{name}: {guess}, no model"] = {"zero_shot": value}
    return rows


def metric_rows(metrics: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, Any, Any]]:
    """A label, the zero-shot and the tuned value for each metric; below it what needs no model.

    Args:
        metrics: By name ``zero_shot``, ``tuned`` and ``guesses`` by name.
    """
    rows = with_guesses(metrics).items()
    return [(label, values.get("zero_shot"), values.get("tuned")) for label, values in rows]


def prompt_rows(by_prompt: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """A row for each prompt mode; below a box the guesses, below clicks each click.

    Args:
        by_prompt: By mode ``zero_shot`` and ``tuned`` metrics, ``trained``, ``ground_truth``,
            ``guesses`` by name, and ``by_click`` with a list for each model.
    """
    rows = []
    for mode, values in by_prompt.items():
        origin = "ground truth" if values.get("ground_truth", mode != NOTHING) else "nothing"
        label = f"{mode} (trained)" if values.get("trained") else mode
        rows.append(Row(mode, label, origin, values.get("zero_shot"), values.get("tuned")))
        for name, guess in (values.get("guesses") or {}).items():
            rows.append(Row(mode, f"{name}, no model", "", guess, None))
        clicks = values.get("by_click") or {}
        before, after = (clicks.get(side) or [] for side in ("zero_shot", "tuned"))
        for i, first in enumerate(before):
            second = after[i] if i < len(after) else None
            rows.append(Row(mode, f"click {i + 1}", "", first, second))
    return rows
