"""The closing tables of runs and evaluations, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Column, Table

from samtune.metrics.measures import HEADLINE
from samtune.report.instance_table import (
    BEYOND,
    FITTED_BASE,
    automatic_modes,
    has_fitted_base,
    instance_lines,
)
from samtune.report.prompt_table import (
    BASE_ON_WHOLE,
    about_trained,
    asked_with,
    metric_rows,
    on_whole_images,
    prompt_rows,
    title_of,
)
from samtune.report.quantities import counted, duration, metric, quantity, span

NOTHING = metric(None)


def headline_table(summary: Mapping[str, Any]) -> Table:
    """IoU and Dice of the guesses without a model, zero-shot and tuned, and what was gained.

    It is about the first prompt, or the first that was trained if that one was not.

    Args:
        summary: The summary of a run or an evaluation.
    """
    summary = about_trained(summary)
    table = Table(title=summary.get("title"), title_justify="left")
    ends = summary.get("intervals") or {}
    ends = ends if any(span(of.get("iou")) for of in ends.values()) else {}  # not of one image
    level = (summary.get("interval") or {}).get("level", 0.95)
    table.add_column("")
    for column in ("IoU", "Dice"):
        table.add_column(column, justify="right")
        if ends:
            table.add_column(f"{100 * level:.0f} % interval", justify="right")

    def add(name: str, values: Mapping[str, float | None], of: Any, sign: bool = False) -> None:
        pairs = [(metric(values[k], sign), span((of or {}).get(k), sign)) for k in HEADLINE]
        table.add_row(name, *(cell for pair in pairs for cell in pair[: 2 if ends else 1]))

    for name, values in (summary.get("guesses") or {}).items():
        add(name, values, (ends.get("guesses") or {}).get(name))
    whole, of_whole = on_whole_images(summary)
    if whole:
        add(BASE_ON_WHOLE, whole, of_whole)
    for name, side in (("zero-shot", "zero_shot"), ("tuned", "tuned")):
        if summary.get(side):
            add(name, summary[side], ends.get(side))
    before, after = summary.get("zero_shot"), summary.get("tuned")
    if before and after and None not in (*before.values(), *after.values()):
        gains = {key: after[key] - before[key] for key in HEADLINE}
        add("gain", gains, ends.get("difference"), sign=True)
    return table


def further_tables(summary: Mapping[str, Any]) -> Iterator[Table]:
    """Tables by prompt, by class and by metric, each if it says more than the others.

    Args:
        summary: The summary of a run or an evaluation.
    """
    several = len(summary.get("by_prompt") or {}) > 1
    automatic = automatic_modes(summary.get("by_prompt"))
    prompt = asked_with(summary["prompt"]) if several else None
    of_first = {} if summary["prompt"] in automatic else summary.get("metrics") or {}
    tables = (
        _prompts(summary),
        _by_class(summary.get("by_class") or {}),
        _metrics(of_first, prompt),
        *(_instances(mode, entry) for mode, entry in automatic.items()),
    )
    yield from (table for table in tables if table is not None)


def _instances(mode: str, entry: Mapping[str, Any]) -> Table:
    """The numbers of an automatic mode that count most; the report has all, also by size."""
    lines = instance_lines(entry, short=True)
    sides = ["zero-shot", "tuned", "difference"]
    sides = sides if any(line.tuned is not None for line in lines) else sides[:1]
    fitted = has_fitted_base(lines)
    if fitted:
        sides = ["zero-shot", "zero-shot,\nfitted", "tuned", "tuned -\nfitted"]
    table = Table(mode, title=f"Instances without prompts: {mode}", title_justify="left")
    for side in sides:
        table.add_column(side, justify="right")
    for line in lines:
        cells = _beside(line.zero_shot, line.tuned, line.intervals)
        if fitted:
            ends = {"zero_shot": line.intervals.get(FITTED_BASE)}
            ends |= {"difference": line.intervals.get(BEYOND)}
            base, _, beyond = _beside(line.zero_shot_fitted, line.tuned, ends)
            # four intervals do not fit into a terminal; the report has all
            cells = [metric(line.zero_shot), base, cells[1], beyond]
        table.add_row(line.name, *cells[: len(sides)])
    return table


def _metrics(
    metrics: Mapping[str, Mapping[str, float | None]], prompt: str | None = None
) -> Table | None:
    """A row for each metric, where there are others than IoU and Dice; of which prompt."""
    if not set(metrics) - {"iou", "dice"}:
        return None
    sides = ["zero-shot", "tuned", "difference"]
    sides = sides if any("tuned" in values for values in metrics.values()) else sides[:1]
    title = prompt and f"prompt {prompt}"
    table = Table("metric", title=title, title_justify="left")
    for side in sides:
        table.add_column(side, justify="right")
    for label, before, after, ends in metric_rows(metrics):
        cells = _beside(before, after, ends)[: len(sides)]
        table.add_row(label, *("" if "no model" in label and c == NOTHING else c for c in cells))
    return table


def _prompts(summary: Mapping[str, Any]) -> Table | None:
    """A row for each prompt mode, where there are several or the clicks of one."""
    groups = summary.get("by_prompt") or {}
    if len(groups) < 2 and not any("by_click" in values for values in groups.values()):
        return None
    rows = prompt_rows(groups)
    both = any(row.tuned for row in rows)
    # with both sides there is no room for Dice, which the report has
    title = title_of(groups, "IoU by prompt" if both else "By prompt")
    table = Table(title=title, title_justify="left")
    table.add_column("prompt", overflow="fold")
    columns = ("zero-shot", "tuned", "difference") if both else ("IoU", "Dice")
    for name in columns:
        table.add_column(name, justify="right")
    for row in rows:
        first, second, ends = row.zero_shot or {}, row.tuned or {}, row.intervals
        if both:
            of_iou = {side: (values or {}).get("iou") for side, values in ends.items()}
            cells = _beside(first.get("iou"), second.get("iou"), of_iou)
            cells = cells if second else [cells[0], "", ""]
        else:
            of_side = ends.get("zero_shot") or {}
            cells = [_sure(first.get(key), of_side.get(key)) for key in HEADLINE]
        table.add_row(row.label if row.origin else f"  {row.label}", *cells)
    return table


def _by_class(groups: Mapping[str, Mapping[str, Any]]) -> Table | None:
    """A row for each class: its mean IoU, and that of the pixels of all images."""
    if not groups:
        return None
    kinds = {"iou": "IoU", "iou_pooled": "pooled IoU"}
    sides = ("zero_shot", "tuned")
    names = (f"{side.replace('_', '-')} {kind}" for kind in kinds.values() for side in sides)
    table = Table(Column("class", overflow="fold"), *(Column(n, justify="right") for n in names))
    for name, values in groups.items():
        ends = values.get("intervals") or {}
        cells = (
            _sure((values.get(side) or {}).get(key), (ends.get(side) or {}).get(key))
            for key in kinds
            for side in sides
        )
        table.add_row(str(name), *cells)
        for guess, value in (values.get("guesses") or {}).items():
            of = (ends.get("guesses") or {}).get(guess) or {}
            pairs = ((_sure(value.get(key), of.get(key)), "") for key in kinds)
            table.add_row(f"  {guess}, no model", *(cell for pair in pairs for cell in pair))
    return table


def matrix_table(summary: Mapping[str, Any]) -> Table:
    """How models of several prompts answer each prompt: IoU, a column for each model.

    Args:
        summary: See :func:`samtune.runs.prompt_matrix.evaluate_several`.
    """
    models = summary["matrix"]
    names = [f"{n}: {row['trained_with'] or 'zero-shot'}" for n, row in enumerate(models, 1)]
    table = Table(Column("prompt", no_wrap=True), *names, title_justify="left")
    automatic = dict.fromkeys(mode for row in models for mode in row.get("instances") or {})
    others = " and ".join(["none", *automatic])
    table.title = (
        f"IoU by prompt of training and evaluation (all but {others} are from the ground truth)"
    )
    for mode in dict.fromkeys(mode for row in models for mode in row["by_prompt"]):
        ends = [((row.get("intervals") or {}).get(mode) or {}).get("iou") for row in models]
        ious = [(row["by_prompt"].get(mode) or {}).get("iou") for row in models]
        table.add_row(mode, *map(_sure, ious, ends))
        of_guesses = (summary.get("matrix_guess_intervals") or {}).get(mode) or {}
        for name, guess in summary["matrix_guesses"].get(mode, {}).items():
            of_guess = (of_guesses.get(name) or {}).get("iou")
            table.add_row(f"  {name}, no model", _sure(guess["iou"], of_guess))
    return table


def instance_matrix(summary: Mapping[str, Any]) -> Table | None:
    """The instances that several models find without prompts, a column for each, if there are any.

    Args:
        summary: See :func:`matrix_table`.
    """
    models = summary["matrix"]
    by_model = [row.get("instances") or {} for row in models]
    lines = dict.fromkeys((mode, name) for row in by_model for mode in row for name in row[mode])
    if not lines:
        return None
    names = [f"{n}: {row['trained_with'] or 'zero-shot'}" for n, row in enumerate(models, 1)]
    columns = (Column(name, justify="right") for name in names)
    table = Table(Column("instances", no_wrap=True), *columns, title_justify="left")
    table.title = "Instances without prompts"
    for mode, name in lines:
        table.add_row(
            f"{mode}: {name}", *(metric((row.get(mode) or {}).get(name)) for row in by_model)
        )
    return table


def _sure(value: float | None, ends: Sequence[float] | None, sign: bool = False) -> str:
    """A number, and below it its interval where there is one."""
    below = span(ends, sign)
    return f"{metric(value, sign)}\n{below}" if below else metric(value, sign)


def _beside(before: float | None, after: float | None, ends: Mapping[str, Any]) -> list[str]:
    """Cells of zero-shot, tuned and their difference, each with its interval."""
    known = before is not None and after is not None
    gain = after - before if before is not None and after is not None else None
    return [
        _sure(before, ends.get("zero_shot")),
        _sure(after, ends.get("tuned")),
        _sure(gain, ends.get("difference"), sign=True) if known else NOTHING,
    ]


def facts(summary: Mapping[str, Any]) -> str:
    """The measurements and the costs, in one line."""
    asked = asked_with(summary["prompt"], summary.get("by_prompt"))
    words = [f"prompt {asked}", counted(summary["images"], "image")]
    if summary.get("trainable_parameters") is not None:
        words.append(f"{quantity(summary['trainable_parameters'])} trainable parameters")
    words.append(duration(summary["seconds"]))
    words.append(f"peak memory {quantity(summary['peak_memory_bytes'], 'B')}")
    return ", ".join(words)
