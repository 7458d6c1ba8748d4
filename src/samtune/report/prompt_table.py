"""The rows of the table of prompts, for the terminal and for the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NOTHING = "none"
"""The mode without any prompt."""
ON_WHOLE, BEYOND_WHOLE = "zero_shot_whole_images", "difference_whole_images"
"""The keys of the base on whole images in its own frame, and of the tuned model's difference to it;
only if the model's frame is larger, or shows tiles."""
BASE_ON_WHOLE = "zero-shot on whole images"
Numbers = Mapping[str, float] | None


@dataclass(frozen=True)
class Row:
    """One line of the table: a prompt mode, a guess or a click, with both models' metrics."""

    mode: str
    label: str
    """The mode, or for a line below it the guess or the click."""
    origin: str
    """The origin of the prompts: ``ground truth`` or ``nothing``; empty for a line below a mode."""
    zero_shot: Numbers
    tuned: Numbers
    intervals: Mapping[str, Any]
    """The interval of each metric, by ``zero_shot``, ``tuned`` and ``difference``."""


def asked_with(mode: str, by_prompt: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """A prompt mode with its origin, as ``box (from the ground truth)``.

    Args:
        mode: The mode.
        by_prompt: The results of each mode, which show the automatic ones.
    """
    if ((by_prompt or {}).get(mode) or {}).get("automatic"):
        return f"{mode} (no prompts)"
    return mode if mode == NOTHING else f"{mode} (from the ground truth)"


def title_of(by_prompt: Mapping[str, Mapping[str, Any]], start: str = "By prompt") -> str:
    """The title of a table of prompt modes, with the origin of prompts.

    Args:
        by_prompt: The results of each mode, which show the automatic ones.
        start: The first words.
    """
    automatic = [mode for mode, entry in by_prompt.items() if entry.get("automatic")]
    others = " and ".join([", ".join([NOTHING, *automatic[:-1]]), *automatic[-1:]])
    return f"{start} (all but {others} are taken from the ground truth)"


def about_trained(summary: Mapping[str, Any]) -> Mapping[str, Any]:
    """A summary whose main numbers are of the first trained prompt, if the first is not trained.

    Else a training whose trained prompt is measured second would seem to change nothing.

    Args:
        summary: The summary of a run or an evaluation.
    """
    by_prompt = summary.get("by_prompt") or {}
    modes = [mode for mode, entry in by_prompt.items() if entry.get("trained")]
    if not modes or summary.get("prompt") in modes:
        return summary
    keys = ("zero_shot", "tuned", "guesses", "intervals")
    title = f"{summary.get('title')}, asked with {modes[0]}"
    of_mode = {key: by_prompt[modes[0]].get(key) for key in keys}
    return {**summary, **of_mode, "prompt": modes[0], "title": title}


def on_whole_images(summary: Mapping[str, Any]) -> tuple[Numbers, Mapping[str, Any]]:
    """The base on whole images for the first prompt, and its intervals; empty without it.

    Args:
        summary: The summary of a run or an evaluation.
    """
    entry = (summary.get("by_prompt") or {}).get(summary.get("prompt")) or {}
    return entry.get(ON_WHOLE), (entry.get("intervals") or {}).get(ON_WHOLE) or {}


def sureness(summary: Mapping[str, Any]) -> str:
    """The meaning of the intervals in the tables; empty for summaries of versions without them."""
    of = summary.get("interval")
    if not of:
        return ""
    return (
        f"Intervals cover {100 * of['level']:.0f} %: bootstrap over the test images, paired for "
        "differences."
    )


def with_guesses(groups: Mapping[str, Any]) -> dict[str, Any]:
    """Results by metric or class; a row for each guess without a model follows below.

    Args:
        groups: The results by name; ``guesses`` within them, by name, become separate rows.
    """
    rows: dict[str, Any] = {}
    for name, values in groups.items():
        rows[name] = values
        if isinstance(values, Mapping):
            rows[name] = {key: value for key, value in values.items() if key != "guesses"}
            for guess, value in (values.get("guesses") or {}).items():
                ends = _of_guess(values.get("intervals"), guess)
                rows[f"{name}: {guess}, no model"] = {"zero_shot": value, "intervals": ends}
    return rows


def _of_guess(intervals: Mapping[str, Any] | None, guess: str) -> dict[str, Any]:
    """The interval of a guess, in the place of the zero-shot one."""
    return {"zero_shot": ((intervals or {}).get("guesses") or {}).get(guess)}


def metric_rows(
    metrics: Mapping[str, Mapping[str, Any]],
) -> list[tuple[str, Any, Any, Mapping[str, Any]]]:
    """One row per metric, followed by the guesses without a model.

    Args:
        metrics: By name ``zero_shot``, ``tuned``, ``guesses`` by name, and ``intervals``.

    Returns:
        For each a label, the zero-shot and the tuned value, and the intervals.
    """
    return [
        (label, values.get("zero_shot"), values.get("tuned"), values.get("intervals") or {})
        for label, values in with_guesses(metrics).items()
    ]


def prompt_rows(by_prompt: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """One row per prompt mode, followed by the guesses, or by each click for clicks.

    Args:
        by_prompt: By mode ``zero_shot`` and ``tuned`` metrics, ``trained``, ``ground_truth``,
            ``guesses`` by name, ``by_click`` with a list for each model, ``intervals``,
            ``click_intervals`` of each click, and :data:`ON_WHOLE`.
    """
    rows = []
    for mode, values in by_prompt.items():
        origin = "ground truth" if values.get("ground_truth", mode != NOTHING) else "nothing"
        label = f"{mode} (trained)" if values.get("trained") else mode
        ends = values.get("intervals") or {}
        sides = (values.get("zero_shot"), values.get("tuned"))
        rows.append(Row(mode, label, origin, *sides, ends))
        if whole := values.get(ON_WHOLE):
            of_whole = {"zero_shot": ends.get(ON_WHOLE)}
            rows.append(Row(mode, BASE_ON_WHOLE, "", whole, None, of_whole))
        for name, guess in (values.get("guesses") or {}).items():
            rows.append(Row(mode, f"{name}, no model", "", guess, None, _of_guess(ends, name)))
        clicks = values.get("by_click") or {}
        before, after = (clicks.get(side) or [] for side in ("zero_shot", "tuned"))
        of_clicks = values.get("click_intervals") or []
        for i, first in enumerate(before):
            second = after[i] if i < len(after) else None
            ends = of_clicks[i] if i < len(of_clicks) else {}
            rows.append(Row(mode, f"click {i + 1}", "", first, second, ends))
    return rows
