"""The results of a comparison: each method's metrics over its seeds, and tables of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from samtune.compare.plan import ALL, Run, shots_name
from samtune.compare.sureness import ALIKE, BEST, HIGHEST
from samtune.metrics.measures import HEADLINE
from samtune.report.instance_table import FITTED_BASE, SHORT, SIDE_NAMES, TITLES, automatic_modes
from samtune.report.prompt_table import asked_with, title_of
from samtune.report.quantities import duration, metric, quantity, rate_of, span
from samtune.runs.values import Tree

SIDES = ("zero_shot", "tuned")
NOTHING = metric(None)


def aggregate(runs: Sequence[Run], summaries: Sequence[Tree]) -> list[Tree]:
    """One row per method and number of shots, over its seeds, in the order of the runs.

    Its keys: ``method``, ``adapter``, ``decoder``, ``shots`` (a number or ``all``), ``seeds``;
    ``iou`` and ``dice``, each with ``mean``, ``std`` (of the sample, ``n - 1``; ``None`` for one
    seed) and ``values``; ``zero_shot`` means; ``metrics`` (by name ``zero_shot`` and ``tuned``,
    each such a spread) and ``by_prompt`` (by mode ``zero_shot`` and ``tuned`` with IoU and Dice,
    and ``metrics``); ``trainable_parameters``; ``seconds`` (mean of a training),
    ``images_per_second`` (mean, for the first prompt; ``None`` if a run did not measure it),
    ``peak_memory_bytes`` (greatest); ``runs``, the folders.
    :func:`samtune.compare.sureness.add_sureness` adds their uncertainty, and ``best``: whether all
    others with the same shots are worse.
    """
    groups: dict[tuple[int | None, str], list[tuple[Run, Tree]]] = {}
    for run, summary in zip(runs, summaries, strict=True):
        groups.setdefault((run.shots, run.method), []).append((run, summary))
    return [_row(pairs) for pairs in groups.values()]


def zero_shot(summaries: Sequence[Tree]) -> Tree:
    """The values that belong to no method: zero-shot means over all runs, and guesses from boxes.

    Returns:
        ``zero_shot`` (IoU and Dice), ``metrics`` (by name), ``guesses``, and ``by_prompt``: for
        each mode ``zero_shot``, ``metrics``, ``guesses``, ``ground_truth`` and ``trained``; with
        each ``zero_shot`` come the ``intervals`` of it and of the guesses, from the first run.
    """
    first = summaries[0]
    by_prompt = {}
    for mode in dict.fromkeys(mode for s in summaries for mode in s.get("by_prompt") or {}):
        entries = [s["by_prompt"][mode] for s in summaries if mode in s["by_prompt"]]
        entry = entries[0]
        by_prompt[mode] = {
            "zero_shot": _means([each["zero_shot"] for each in entries]),
            "metrics": _metric_means(entries),
            **{key: entry[key] for key in ABOUT if key in entry},
            "intervals": _untrained(entry),
            **_seconds(entries, "zero_shot"),
            **_fitted_base(entries),
        }
    return {
        "zero_shot": _means([{k: s["zero_shot"][k] for k in HEADLINE} for s in summaries]),
        "metrics": _metric_means(summaries),
        "guesses": {
            name: {**values, **_of_guess(name, first.get("metrics") or {})}
            for name, values in (first.get("guesses") or {}).items()
        },
        "by_prompt": by_prompt,
        "intervals": _untrained(first),
    }


def _fitted_base(entries: Sequence[Tree]) -> Tree:
    """The base with fitted thresholds in an automatic mode: the means of those runs that fitted."""
    fitted = [each for each in entries if FITTED_BASE in (each.get("seconds_per_image") or {})]
    if not fitted:
        return {}
    numbers = [{name: v[FITTED_BASE] for name, v in e["metrics"].items()} for e in fitted]
    return {FITTED_BASE: {"metrics": _means(numbers), **_seconds(fitted, FITTED_BASE)}}


ABOUT = ("guesses", "ground_truth", "trained", "automatic")
"""The entries of a prompt mode that do not depend on the method."""


def _seconds(entries: Sequence[Tree], side: str) -> Tree:
    """The mean time of an automatic mode for an image, if it is one."""
    times = [each["seconds_per_image"].get(side) for each in entries if each.get("automatic")]
    return {"seconds_per_image": _spread(times)["mean"]} if times else {}


def _untrained(entry: Tree) -> Tree:
    """The intervals, over the test images, of the values that belong to no method."""
    ends = entry.get("intervals") or {}
    return {key: ends[key] for key in ("zero_shot", "guesses") if key in ends}


def _of_guess(guess: str, metrics: Tree) -> Tree:
    """A guess's values by metric, for the metrics that it has."""
    values = {name: (sides.get("guesses") or {}).get(guess) for name, sides in metrics.items()}
    return {name: value for name, value in values.items() if value is not None}


def with_deviation(spread: Mapping[str, Any]) -> str:
    """A mean with its deviation, as ``0.812 ±0.010``."""
    text = metric(spread["mean"])
    return text if spread["std"] is None else f"{text} \N{PLUS-MINUS SIGN}{metric(spread['std'])}"


@dataclass(frozen=True)
class Grid:
    """A table of texts."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


MARKS = {BEST: "*", HIGHEST: "=", ALIKE: "="}
"""Marks after a name: the best, and methods that are not distinguishable from the highest."""


def main_grids(result: Mapping[str, Any]) -> list[Grid]:
    """The main tables: the scores of each method, and its costs.

    Args:
        result: See :func:`samtune.compare.jobs.compare`.
    """
    ends = result.get("intervals") or {}
    untrained = [
        (name, guess, (ends.get("guesses") or {}).get(name) or {})
        for name, guess in (result.get("guesses") or {}).items()
    ]
    untrained.append(("zero-shot", result["zero_shot"], ends.get("zero_shot") or {}))
    scored: list[tuple[str, ...]] = [
        (name, "", _below(metric(each["iou"]), span(of.get("iou"))), metric(each["dice"]), "", "")
        for name, each, of in untrained
    ]
    scored += [_scored(row) for row in result["rows"]]
    costs: list[tuple[str, ...]] = [
        (
            row["method"], str(row["shots"]), quantity(row["trainable_parameters"]),
            duration(row["seconds"]), rate_of(row.get("images_per_second")),
            quantity(row["peak_memory_bytes"], "B"),
        )
        for row in result["rows"]
    ]  # fmt: skip
    asked = f"prompt {asked_with(result['prompt'], result.get('by_prompt'))}"
    return [
        Grid(
            f"{result['title']}, {asked}, {result['images']} test images",
            ("method", "shots", "IoU", "Dice", "gain in IoU", "p value"),
            scored,
        ),
        Grid("What it takes", ("method", "shots", "trained", "time", "images/s", "memory"), costs),
    ]


def _scored(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Name, shots, IoU, Dice, gain and p value against the best of a row, with intervals below."""
    ends = row.get("intervals") or {}
    of = ends.get("tuned") or {}
    sides = row["iou"]["mean"], row["zero_shot"]["iou"]
    gain = None if None in sides else sides[0] - sides[1]
    p = ((row.get("against_best") or {}).get("images") or {}).get("corrected")
    return (
        _marked(row["method"], row),
        str(row["shots"]),
        _below(with_deviation(row["iou"]), span(of.get("iou"))),
        with_deviation(row["dice"]).replace(" ", "\n"),  # the page shows its interval
        _below(metric(gain, sign=True), span((ends.get("difference") or {}).get("iou"), sign=True)),
        p_value(p),
    )


def _marked(name: str, entry: Mapping[str, Any]) -> str:
    mark = MARKS.get(entry.get("standing") or "")
    return f"{name} {mark}" if mark else name


def _below(number: str, interval: str) -> str:
    return f"{number}\n{interval}" if interval else number


def p_value(p: float | None) -> str:
    """A probability as ``0.031`` or ``<0.001``; empty without one."""
    if p is None:
        return ""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def paired_grid(result: Mapping[str, Any]) -> list[Grid]:
    """The table of paired tests, if any: every two methods, and each against zero-shot."""
    tests = result.get("tests") or []
    several = len({test["prompt"] for test in tests}) > 1
    rows = [
        (
            " - ".join(test["methods"]),
            *([test["prompt"]] if several else []),
            str(test["shots"]),
            _below(metric(test["difference"], sign=True), span(test["interval"], sign=True)),
            p_value(test["images"]["corrected"]),
            p_value(test["draws"]["corrected"]),
        )
        for test in tests
    ]
    columns = ("methods", *(["prompt"] if several else []), "shots", "difference in IoU")
    title = "Paired tests, p after Holm's correction"
    return [Grid(title, (*columns, "p, images", "p, draws"), rows)] if rows else []


def grids(result: Mapping[str, Any]) -> list[Grid]:
    """The additional tables: by prompt and by metric, if several were evaluated.

    Args:
        result: See :func:`samtune.compare.jobs.compare`.
    """
    automatic = automatic_modes(result.get("by_prompt"))
    instances = [_instance_grid(result, mode, entry) for mode, entry in automatic.items()]
    others = (_prompt_grid(result), _metric_grid(result))
    return [*(grid for grid in others if grid is not None), *instances]


def _instance_grid(result: Mapping[str, Any], mode: str, zero_shot: Mapping[str, Any]) -> Grid:
    """A table of what counts for instances, with one row per method and shots."""
    cells = [metric(zero_shot["metrics"].get(name)) for name in SHORT]
    rows = [("zero-shot", "", *cells, metric(zero_shot.get("seconds_per_image")))]
    if fitted := zero_shot.get(FITTED_BASE):
        cells = [metric(fitted["metrics"].get(name)) for name in SHORT]
        rows.append((SIDE_NAMES[FITTED_BASE], "", *cells, metric(fitted.get("seconds_per_image"))))
    for row in result["rows"]:
        entry = row["by_prompt"].get(mode)
        if entry is None:
            cells, seconds = [NOTHING] * len(SHORT), None
        else:
            sides = [entry["metrics"][name] for name in SHORT]
            cells = [
                _below(
                    with_deviation(each["tuned"]), span((each.get("intervals") or {}).get("tuned"))
                )
                for each in sides
            ]
            seconds = entry.get("seconds_per_image")
        rows.append((row["method"], str(row["shots"]), *cells, metric(seconds)))
    titles = (TITLES[name] for name in SHORT)
    columns = ("method", "shots", *titles, "s per image")
    return Grid(f"Instances without prompts: {mode}", columns, rows)


def _prompt_grid(result: Mapping[str, Any]) -> Grid | None:
    """A table of IoU with one row per method and shots, and one column per prompt."""
    by_mode: Mapping[str, Any] = result.get("by_prompt") or {}
    if len(by_mode) < 2:
        return None
    names = dict.fromkeys(name for entry in by_mode.values() for name in entry.get("guesses") or {})
    rows = []
    for name in names:
        cells = (_of_guess_in(entry, name) for entry in by_mode.values())
        rows.append((f"{name}, no model", "", *cells))
    cells = (
        _below(metric(entry["zero_shot"]["iou"]), span(_iou_ends(entry, "zero_shot")))
        for entry in by_mode.values()
    )
    rows.append(("zero-shot", "", *cells))
    for row in result["rows"]:
        cells = (_of_mode(row["by_prompt"].get(mode)) for mode in by_mode)
        rows.append((row["method"], str(row["shots"]), *cells))
    labels = (f"{mode} (trained)" if e.get("trained") else mode for mode, e in by_mode.items())
    return Grid(title_of(by_mode, "IoU by prompt"), ("method", "shots", *labels), rows)


def _of_mode(entry: Mapping[str, Any] | None) -> str:
    """A method's IoU with its interval; a dash if it cannot do an automatic mode."""
    if entry is None:
        return NOTHING
    text = _marked(with_deviation(entry["tuned"]["iou"]), entry)
    return _below(text, span(_iou_ends(entry, "tuned")))


def _of_guess_in(entry: Mapping[str, Any], name: str) -> str:
    """A guess's IoU with its interval; empty if this prompt has no such guess."""
    guess = (entry.get("guesses") or {}).get(name)
    of = (((entry.get("intervals") or {}).get("guesses") or {}).get(name)) or {}
    return "" if guess is None else _below(metric(guess["iou"]), span(of.get("iou")))


def _iou_ends(entry: Mapping[str, Any], side: str) -> list[float] | None:
    ends: list[float] | None = ((entry.get("intervals") or {}).get(side) or {}).get("iou")
    return ends


def _metric_grid(result: Mapping[str, Any]) -> Grid | None:
    """A table of the metrics besides IoU and Dice, for the first prompt."""
    names = [name for name in result.get("metrics") or {} if name not in HEADLINE]
    if not names or result["prompt"] in automatic_modes(result.get("by_prompt")):
        return None
    rows = [
        (f"{guess}, no model", "", *("" if n not in g else metric(g[n]) for n in names))
        for guess, g in result["guesses"].items()
        if set(names) & set(g)
    ]
    rows.append(("zero-shot", "", *(metric(result["metrics"][name]) for name in names)))
    for row in result["rows"]:
        cells = (with_deviation(row["metrics"][name]["tuned"]) for name in names)
        rows.append((row["method"], str(row["shots"]), *cells))
    title = f"By metric, prompt {asked_with(result['prompt'])}"
    if len(names) <= len(rows):
        return Grid(title, ("method", "shots", *names), rows)
    # Many metrics of few methods are easier to read with one row per metric.
    heads = (_head(method, shots) for method, shots, *_ in rows)
    turned = [(name, *(row[i] for row in rows)) for i, name in enumerate(names, 2)]
    return Grid(title, ("metric", *heads), turned)


def _head(method: str, shots: str) -> str:
    return f"{method}, {shots_name(None if shots == ALL else int(shots))}" if shots else method


def _row(pairs: Sequence[tuple[Run, Tree]]) -> Tree:
    run, first = pairs[0]
    summaries = [summary for _, summary in pairs]
    before = [{k: s["zero_shot"][k] for k in HEADLINE} for s in summaries]
    return {
        "method": run.method,
        "adapter": run.config.adapter["name"],
        "decoder": run.config.decoder["name"],
        "shots": ALL if run.shots is None else run.shots,
        "seeds": [each.seed for each, _ in pairs],
        **_spreads([{k: s["tuned"][k] for k in HEADLINE} for s in summaries]),
        "zero_shot": _means(before),
        "metrics": _by_metric(summaries),
        "by_prompt": _by_prompt(summaries),
        "trainable_parameters": first["trainable_parameters"],
        "seconds": round(statistics.fmean(s["seconds"] for s in summaries), 3),
        "images_per_second": _spread([s.get("images_per_second") for s in summaries])["mean"],
        "peak_memory_bytes": max(s["peak_memory_bytes"] for s in summaries),
        "best": False,
        "runs": [str(each.folder) for each, _ in pairs],
    }


def _by_prompt(summaries: Sequence[Tree]) -> Tree:
    found = {}
    for mode in summaries[0].get("by_prompt") or {}:
        entries = [s["by_prompt"][mode] for s in summaries]
        sides = {side: _spreads([each[side] for each in entries]) for side in SIDES}
        found[mode] = {**sides, "metrics": _by_metric(entries), **_seconds(entries, "tuned")}
    return found


def _by_metric(entries: Sequence[Tree]) -> Tree:
    """The spread over the seeds, by metric and side."""
    spreads = {
        name: {side: _spread([e["metrics"][name][side] for e in entries]) for side in SIDES}
        for name in entries[0].get("metrics") or {}
    }
    if len(entries) == 1:  # of one training the intervals over images are those of the row
        for name, spread in spreads.items():
            if ends := entries[0]["metrics"][name].get("intervals"):
                spread["intervals"] = ends
    return spreads


def _metric_means(entries: Sequence[Tree]) -> Tree:
    measured = [e.get("metrics") or {} for e in entries]
    return _means([{name: v["zero_shot"] for name, v in each.items()} for each in measured])


def _means(numbers: Sequence[Mapping[str, float | None]]) -> Tree:
    return {key: spread["mean"] for key, spread in _spreads(numbers).items()}


def _spreads(numbers: Sequence[Mapping[str, float | None]]) -> Tree:
    return {key: _spread([each[key] for each in numbers]) for key in numbers[0]}


def _spread(values: Sequence[float | None]) -> Tree:
    known = [v for v in values if v is not None and math.isfinite(v)]
    return {
        "mean": statistics.fmean(known) if known else None,
        "std": statistics.stdev(known) if len(known) > 1 else None,
        "values": list(values),
    }
