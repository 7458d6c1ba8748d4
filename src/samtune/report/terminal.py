"""The output of a run: a progress bar on a terminal, plain lines elsewhere, tables at the end."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from samtune.distributed import is_main
from samtune.metrics.contract import contract
from samtune.options import as_yaml
from samtune.report.prompt_table import (
    IOU_TITLE,
    TITLE,
    asked_with,
    metric_rows,
    prompt_rows,
    sureness,
)
from samtune.report.quantities import duration, metric, quantity, span
from samtune.report.validation import strength_note, validation_line

PLAIN_SECONDS = 10.0
"""Least seconds between progress lines if the output is not a terminal."""

HEADLINE = ("iou", "dice")
NOTHING = metric(None)
READABLE = 80
"""Width in columns of a paragraph of settings."""
WIDE = 120
"""Columns from which a terminal has room for details in a list."""


class Display:
    """Prints for the person at the terminal; with ``json`` everything goes to stderr.

    If there are several processes, only the main one prints.

    Use as a context manager, so that the bar is taken down whatever happens.
    """

    def __init__(self, json: bool = False) -> None:
        quiet = not is_main()
        self.console = Console(stderr=json, highlight=False, soft_wrap=True, quiet=quiet)
        self.errors = Console(stderr=True, highlight=False, soft_wrap=True, quiet=quiet)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(compact=True),
            console=self.errors,
            transient=True,
            # Lines of a redirected stdout must not appear above the bar on the terminal.
            redirect_stdout=sys.stdout.isatty(),
        )
        self._live = sys.stderr.isatty() and not quiet
        self._tasks: dict[str, Any] = {}
        self._last_lines: dict[str, float] = {}

    def __enter__(self) -> Display:
        if self._live:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._bar.stop()

    def say(self, text: str) -> None:
        """Prints one line."""
        self.console.print(text, markup=False)

    @contextmanager
    def without_lines(self) -> Iterator[None]:
        """Suppresses all lines except warnings and validations; the bar goes on."""
        before, self.console.quiet = self.console.quiet, True
        try:
            yield
        finally:
            self.console.quiet = before

    def warn(self, text: str) -> None:
        """Prints one line about a problem to stderr."""
        self.errors.print(text, markup=False)

    def settings(self, tree: Mapping[str, Any], where: str | None = None) -> None:
        """Prints settings as a command line takes them, one paragraph per group.

        Unset ones are left out.

        Args:
            tree: The settings that differ from the defaults.
            where: The file that contains all settings.
        """
        if where is not None:
            self.say(f"settings that differ from the defaults (all are in {where}):")
        for group, value in tree.items():
            if words := _words(group, value):
                self.say(_paragraph(words))

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        """Shows the progress of a long piece of work."""
        if self._live:
            if what not in self._tasks:
                self._tasks[what] = self._bar.add_task(what, total=total, note=note)
            self._bar.update(self._tasks[what], completed=done, total=total, note=note)
            if done >= total:
                self._bar.remove_task(self._tasks.pop(what))
            return
        if self.console.quiet:
            return
        now = time.monotonic()
        # Work with a note prints at once; quick work prints nothing.
        last = self._last_lines.setdefault(what, now - PLAIN_SECONDS if note else now)
        if now - last >= PLAIN_SECONDS or (note and done >= total):
            self._last_lines[what] = now
            self.errors.print(f"{what}: {done}/{total} {note}".rstrip(), markup=False)

    def event(self, event: Mapping[str, Any]) -> None:
        """Prints a row of a training's log."""
        if event["event"] == "train":
            note = f"loss {event['loss']:.4f}  lr {event['lr']:.2g}"
            note += f"  {event['not_finite']} not finite" if event.get("not_finite") else ""
            self.progress("train", event["step"], event["total"], note)
        elif event["event"] in ("zero_shot", "val", "strength"):
            self.errors.print(validation_line(event), markup=False)
            if "warning" in event:
                self.warn(event["warning"])

    def results(self, summary: Mapping[str, Any]) -> None:
        """Prints the closing table: guesses without a model, zero-shot, tuned, and the costs."""
        if summary.get("verdict"):
            self.say(summary["verdict"])
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
        for name, side in (("zero-shot", "zero_shot"), ("tuned", "tuned")):
            if summary.get(side):
                add(name, summary[side], ends.get(side))
        before, after = summary.get("zero_shot"), summary.get("tuned")
        if before and after and None not in (*before.values(), *after.values()):
            gains = {key: after[key] - before[key] for key in HEADLINE}
            add("gain", gains, ends.get("difference"), sign=True)
        self.console.print(table)
        self._prompts(summary)
        self._by_class(summary.get("by_class") or {})
        several = len(summary.get("by_prompt") or {}) > 1
        self._metrics(
            summary.get("metrics") or {}, asked_with(summary["prompt"]) if several else None
        )
        self.say(terms(summary))
        if of_intervals := sureness(summary):
            self.say(of_intervals)
        self.say(_facts(summary))
        for key in ("checkpoint", "report"):
            if summary.get(key):
                note = strength_note(summary) if key == "checkpoint" else ""
                self.say(f"{key}: {summary[key]}{note}")

    def _metrics(
        self, metrics: Mapping[str, Mapping[str, float | None]], prompt: str | None = None
    ) -> None:
        """Prints one row per metric, if there are others than IoU and Dice, for a prompt."""
        if not set(metrics) - {"iou", "dice"}:
            return
        sides = ["zero-shot", "tuned", "difference"]
        sides = sides if any("tuned" in values for values in metrics.values()) else sides[:1]
        title = prompt and f"prompt {prompt}"
        table = Table("metric", title=title, title_justify="left")
        for side in sides:
            table.add_column(side, justify="right")
        for label, before, after, ends in metric_rows(metrics):
            cells = _beside(before, after, ends)[: len(sides)]
            table.add_row(
                label, *("" if "no model" in label and c == NOTHING else c for c in cells)
            )
        self._numbers(table)

    def _prompts(self, summary: Mapping[str, Any]) -> None:
        """Prints one row per prompt mode, if there are several modes or clicks."""
        groups = summary.get("by_prompt") or {}
        if len(groups) < 2 and not any("by_click" in values for values in groups.values()):
            return
        rows = prompt_rows(groups)
        both = any(row.tuned for row in rows)
        # with both sides there is no room for Dice, which the report shows
        table = Table(title=IOU_TITLE if both else TITLE, title_justify="left")
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
        self._numbers(table)

    def matrix(self, summary: Mapping[str, Any]) -> None:
        """Prints how several models answer each prompt: IoU, with one column per model.

        Args:
            summary: See :func:`samtune.runs.prompt_matrix.evaluate_several`.
        """
        models = summary["matrix"]
        names = [f"{n}: {row['trained_with'] or 'zero-shot'}" for n, row in enumerate(models, 1)]
        table = Table(Column("asked with", no_wrap=True), *names, title_justify="left")
        table.title = (
            "IoU by prompt of training and evaluation (all but none are from the ground truth)"
        )
        for mode in models[0]["by_prompt"]:
            ends = [((row.get("intervals") or {}).get(mode) or {}).get("iou") for row in models]
            ious = [row["by_prompt"][mode]["iou"] for row in models]
            table.add_row(mode, *map(_sure, ious, ends))
            of_guesses = (summary.get("matrix_guess_intervals") or {}).get(mode) or {}
            for name, guess in summary["matrix_guesses"].get(mode, {}).items():
                of_guess = (of_guesses.get(name) or {}).get("iou")
                table.add_row(f"  {name}, no model", _sure(guess["iou"], of_guess))
        self._numbers(table)
        for n, row in enumerate(models, 1):
            self.say(f"{n}: {row['checkpoint'] or row['base']}, report: {row['report']}")
        self.say(summary["contract"].rstrip())

    def _by_class(self, groups: Mapping[str, Mapping[str, Any]]) -> None:
        """Prints one row per class: its mean IoU, and its IoU over the pixels of all images."""
        if not groups:
            return
        kinds = {"iou": "IoU", "iou_pooled": "pooled IoU"}
        sides = ("zero_shot", "tuned")
        names = (f"{side.replace('_', '-')} {kind}" for kind in kinds.values() for side in sides)
        table = Table(
            Column("class", overflow="fold"), *(Column(n, justify="right") for n in names)
        )
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
        self._numbers(table)

    def table(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
        whole: bool = False,
        title: str | None = None,
        numbers: bool = False,
    ) -> None:
        """Prints a plain table; the names in its first column are never cut.

        Args:
            columns: Their titles.
            rows: One text per column.
            whole: Print the full width if the output is not a terminal.
            title: A title above the table.
            numbers: Right-align all columns except the first, which are numbers.
        """
        side: Any = "right" if numbers else "left"
        others = (Column(name, overflow="fold", justify=side) for name in columns[1:])
        first = Column(columns[0], no_wrap=not numbers, overflow="fold")
        table = Table(first, *others, title=title, title_justify="left")
        for row in rows:
            table.add_row(*row)
        self._numbers(table) if whole else self.console.print(table)

    def listing(
        self, columns: Sequence[str], rows: Sequence[Sequence[str]], fixed: int = 1
    ) -> None:
        """Prints one line per row; a terminal cuts long lines, other outputs show all.

        Args:
            columns: Their titles.
            rows: A text for each column.
            fixed: Number of columns, from the first on, that are never cut.
        """
        table = Table(*(Column(name, no_wrap=i < fixed) for i, name in enumerate(columns)))
        for row in rows:
            table.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in row))
        self._numbers(table)

    @property
    def narrow(self) -> bool:
        """Whether the output goes to a terminal with few columns."""
        return self.console.is_terminal and self.console.width < WIDE

    def _numbers(self, table: Table) -> None:
        """A table of full width unless a terminal bounds it: a cut number would be wrong."""
        console = self.console
        if not console.is_terminal:
            console = Console(stderr=console.stderr, quiet=console.quiet, width=400)
        console.print(table)


def _sure(value: float | None, ends: Sequence[float] | None, sign: bool = False) -> str:
    """A number, with its interval below it if there is one."""
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


def terms(summary: Mapping[str, Any]) -> str:
    """The meaning of the numbers in the closing tables; the report covers all metrics.

    Args:
        summary: With ``metrics`` by name, and ``by_class``, if there are any.
    """
    shown = ["iou", "dice", *(summary.get("metrics") or {})]
    if summary.get("by_class"):
        shown.append("iou_pooled")
    return contract(dict.fromkeys(shown)).rstrip()


def _paragraph(words: Sequence[str]) -> str:
    """Wraps words into lines of at most :data:`READABLE` columns if possible."""
    first, *others = words
    lines = [first]
    for word in others:
        if len(lines[-1]) + 1 + len(word) > READABLE:
            lines.append(f" {word}")
        else:
            lines[-1] += f" {word}"
    return "\n".join(lines)


def _words(key: str, value: Any) -> list[str]:
    """A setting, or each setting in a group, as ``key=value`` with the whole key."""
    if isinstance(value, Mapping):
        return [word for inner, v in value.items() for word in _words(f"{key}.{inner}", v)]
    if value is None or value in ([], ""):
        return []
    return [f"{key}={shlex.quote(_value(value))}"]


def _value(value: Any) -> str:
    if not isinstance(value, list):
        return as_yaml(value)
    joined = ",".join(map(as_yaml, value))
    if value == [joined]:
        return joined
    # Without brackets one number would be no list; text with spaces or slashes stays whole.
    return joined if "," in joined and not any(c in joined for c in " /\\") else f"[{joined}]"


def _facts(summary: Mapping[str, Any]) -> str:
    facts = [f"prompt {asked_with(summary['prompt'])}", f"{summary['images']} images"]
    if summary.get("trainable_parameters") is not None:
        facts.append(f"{quantity(summary['trainable_parameters'])} trainable parameters")
    facts.append(duration(summary["seconds"]))
    facts.append(f"peak memory {quantity(summary['peak_memory_bytes'], 'B')}")
    return ", ".join(facts)
