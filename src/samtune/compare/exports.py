"""A comparison as files for papers and spreadsheets: Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from samtune.compare.notes import notes
from samtune.compare.rows import Grid, grids, main_grids, p_value, paired_grid
from samtune.compare.sureness import ALIKE, BEST, HIGHEST, ZERO_SHOT
from samtune.files import write_whole
from samtune.report.instance_table import FITTED_BASE, SHORT, SIDE_NAMES
from samtune.report.quantities import metric, span
from samtune.runs.values import Tree

NAMES = {"markdown": "comparison.md", "csv": "comparison.csv", "latex": "comparison.tex"}
"""The file names, by the key in the comparison's JSON."""
COLUMNS = (
    "method", "adapter", "decoder", "shots", "prompt", "draws", "iou_mean", "iou_std", "iou_low",
    "iou_high", "dice_mean", "dice_std", "dice_low", "dice_high", "gain_iou", "gain_low",
    "gain_high", "standing", "against_best_p_images", "against_best_p_draws",
    "against_zero_shot_p_images", "against_zero_shot_p_draws", "trainable_parameters", "seconds",
    "images_per_second", "peak_memory_bytes",
    "ap50", "msa", "pq", "aji", "count_error", "seconds_per_image",
)  # fmt: skip
"""Columns of the CSV, which has one row per method, number of shots and prompt; rows without
training come first. The last columns are of automatic modes."""
OVER = ("images", "draws")
"""The things that paired tests permute."""
LATEX_MARKS = ("Bold", "a dagger")
"""Marks in the LaTeX table: of the best, and of those not distinguishable from the highest."""
SPECIAL = {c: f"\\{c}" for c in "&%$#_{}"} | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
SPECIAL |= {"\\": r"\textbackslash{}"}


def write_exports(folder: Path, result: Mapping[str, Any]) -> None:
    """Writes all of the files.

    Args:
        folder: The target folder.
        result: See :func:`samtune.compare.jobs.compare`.
    """
    texts = {"markdown": markdown(result), "csv": as_csv(result), "latex": latex(result)}
    for kind, text in texts.items():
        write_whole(folder / NAMES[kind], text)


def markdown(result: Mapping[str, Any]) -> str:
    """The tables of the page, with the meaning of the metrics."""
    asked = f"Prompt {result['prompt']}, {result['images']} test images."
    parts = [f"# {result['title']}: methods compared", asked]
    for grid in (*main_grids(result), *grids(result), *paired_grid(result)):
        parts += [f"## {grid.title}", _markdown_table(grid)]
    parts += [*(f"- {note}" for note in notes(result)), result["contract"].rstrip()]
    return "\n\n".join(parts) + "\n"


def _markdown_table(grid: Grid) -> str:
    """One table; a second line of a cell follows its value in brackets."""
    lines = [grid.columns, tuple("---" if not i else "---:" for i in range(len(grid.columns)))]
    rows = [[_in_line(cell).replace("|", "\\|") for cell in row] for row in (*lines, *grid.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _in_line(cell: str) -> str:
    number, newline, below = cell.partition("\n")
    return f"{number} ({below})" if newline else number


def as_csv(result: Mapping[str, Any]) -> str:
    """One row per method, shots and prompt, with :data:`COLUMNS`; unknown values are empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for row in (*_without_training(result), *_trained_rows(result)):
        writer.writerow({key: "" if value is None else value for key, value in row.items()})
    return text.getvalue()


def _without_training(result: Mapping[str, Any]) -> Iterator[Tree]:
    keys = ("zero_shot", "guesses", "intervals")
    first = {key: result.get(key) or {} for key in keys}
    for mode, entry in (result.get("by_prompt") or {result["prompt"]: first}).items():
        sides = {**(entry.get("guesses") or {}), ZERO_SHOT: entry["zero_shot"]}
        for name, numbers in sides.items():
            means = _with_ends(numbers, _ends_without_training(entry, name))
            automatic = _of_instances(entry) if name == ZERO_SHOT else {}
            yield {"method": name, "prompt": mode, **means, **automatic}
        if fitted := entry.get(FITTED_BASE):
            yield {"method": SIDE_NAMES[FITTED_BASE], "prompt": mode, **_of_instances(fitted)}


def _ends_without_training(entry: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The interval of each metric of zero-shot, or of the guess of this name."""
    ends = entry.get("intervals") or {}
    of_name = ends.get("zero_shot") if name == ZERO_SHOT else (ends.get("guesses") or {}).get(name)
    return of_name or {}


def _with_ends(numbers: Mapping[str, Any], ends: Mapping[str, Any]) -> Tree:
    """The columns of IoU and Dice: means and ends of intervals."""
    columns: Tree = {}
    for key in ("iou", "dice"):
        low, high = ends.get(key) or (None, None)
        columns |= {f"{key}_mean": numbers.get(key), f"{key}_low": low, f"{key}_high": high}
    return columns


def _trained_rows(result: Mapping[str, Any]) -> Iterator[Tree]:
    for row in result["rows"]:
        alone = {"tuned": {"iou": row["iou"], "dice": row["dice"]}, "zero_shot": row["zero_shot"]}
        for mode, entry in (row.get("by_prompt") or {result["prompt"]: alone}).items():
            test = _against_zero_shot(result, row, mode)
            tested = {f"against_zero_shot_p_{over}": _corrected(test, over) for over in OVER}
            numbers = {**_numbers(entry), **tested, **_of_instances(entry)}
            yield {**_costs(row), "prompt": mode, **numbers}


def _against_zero_shot(result: Mapping[str, Any], row: Mapping[str, Any], mode: str) -> Tree:
    """The paired test of a method against zero-shot with a prompt; empty if there is none."""
    for test in result.get("tests") or []:
        of_row = test["methods"] == [row["method"], ZERO_SHOT] and test["shots"] == row["shots"]
        if of_row and test["prompt"] == mode:
            return dict(test)
    return {}


def _corrected(test: Mapping[str, Any], over: str) -> float | None:
    """The p value of a test over images or draws, after correction."""
    p: float | None = (test.get(over) or {}).get("corrected")
    return p


def _of_instances(entry: Mapping[str, Any]) -> Tree:
    """The columns of an automatic mode: means over draws, or the numbers without training."""
    if entry.get("seconds_per_image") is None:
        return {}
    values = {}
    for name in SHORT:
        value = entry["metrics"][name]
        values[name] = value["tuned"]["mean"] if isinstance(value, Mapping) else value
    return {**values, "seconds_per_image": entry["seconds_per_image"]}


def _costs(row: Mapping[str, Any]) -> Tree:
    keys = ("method", "adapter", "decoder", "shots", "trainable_parameters", "seconds",
            "images_per_second", "peak_memory_bytes")  # fmt: skip
    return {**{key: row.get(key) for key in keys}, "draws": len(row["seeds"])}


def _numbers(entry: Mapping[str, Any]) -> Tree:
    ends: Tree = entry.get("intervals") or {}
    spreads = {key: entry["tuned"][key] for key in ("iou", "dice")}
    means = {key: spread["mean"] for key, spread in spreads.items()}
    numbers = _with_ends(means, ends.get("tuned") or {})
    numbers |= {f"{key}_std": spread["std"] for key, spread in spreads.items()}
    before = entry["zero_shot"]["iou"]
    before = before["mean"] if isinstance(before, Mapping) else before
    low, high = (ends.get("difference") or {}).get("iou") or (None, None)
    known = None not in (before, numbers["iou_mean"])
    against = entry.get("against_best") or {}
    return {
        **numbers,
        "gain_iou": numbers["iou_mean"] - before if known else None,
        "gain_low": low,
        "gain_high": high,
        "standing": entry.get("standing"),
        **{f"against_best_p_{over}": _corrected(against, over) for over in OVER},
    }


def latex(result: Mapping[str, Any]) -> str:
    r"""A table for ``\input`` in a paper that loads ``booktabs``; the best value is bold.

    A dagger marks methods that the test images cannot distinguish from the best with the same
    shots. Intervals are those of the other tables; ``p`` is the one against zero-shot.
    """
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{tabular}{llrrrrrr}",
        "\\toprule",
        "method & shots & IoU & 95\\,\\% interval & gain & 95\\,\\% interval & $p$ & Dice \\\\",
        "\\midrule",
    ]
    untrained = {**(result.get("guesses") or {}), ZERO_SHOT: result["zero_shot"]}
    for name, numbers in untrained.items():
        interval = _latex_span(_ends_without_training(result, name).get("iou"))
        cells = (metric(numbers["iou"]), interval, "", "", "", metric(numbers["dice"]))
        lines.append(_latex_row(name, "", *cells))
    for row in result["rows"]:
        ends = row.get("intervals") or {}
        iou, dice = (_plus_minus(row[key]) for key in ("iou", "dice"))
        if row.get("standing") == BEST:
            iou = f"\\textbf{{{iou}}}"
        elif row.get("standing") in (ALIKE, HIGHEST):
            iou += "$^\\dagger$"
        sides = row["iou"]["mean"], row["zero_shot"]["iou"]
        gain = "" if None in sides else metric(sides[0] - sides[1], sign=True)
        interval = _latex_span((ends.get("tuned") or {}).get("iou"))
        of_gain = _latex_span((ends.get("difference") or {}).get("iou"), sign=True)
        p = p_value(_corrected(_against_zero_shot(result, row, result["prompt"]), "images"))
        p = p.replace("<", "$<$")
        cells = (iou, interval, gain, of_gain, p, dice)
        lines.append(_latex_row(row["method"], str(row["shots"]), *cells))
    notes_of = [f"% {note}" for note in notes(result, LATEX_MARKS, ZERO_SHOT)]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", *notes_of]) + "\n"


def _latex_span(ends: list[float] | None, sign: bool = False) -> str:
    """An interval with the dash of LaTeX; empty without one."""
    return span(ends, sign).replace("\N{EN DASH}", "--")


def _latex_row(method: str, shots: str, *cells: str) -> str:
    texts = ("".join(SPECIAL.get(c, c) for c in text) for text in (method, shots))
    numbers = (cell.replace("\N{MINUS SIGN}", "$-$") for cell in cells)
    return " & ".join([*texts, *numbers]) + " \\\\"


def _plus_minus(spread: Mapping[str, Any]) -> str:
    text = metric(spread["mean"])
    return text if spread["std"] is None else f"{text} $\\pm$ {metric(spread['std'])}"


def paths(folder: Path) -> dict[str, str]:
    """The path of each file, by the key in the comparison's JSON."""
    return {kind: str(folder / name) for kind, name in NAMES.items()}
