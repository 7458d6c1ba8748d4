"""What a run prints: a progress bar on a terminal, plain lines elsewhere, tables at the end."""

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
from samtune.report.prompt_table import TITLE, asked_with, metric_rows, prompt_rows
from samtune.report.quantities import duration, metric, quantity

PLAIN_SECONDS = 10.0
"""Without a terminal, a line about progress at most this often."""

READABLE = 80
"""Columns of a paragraph of settings."""
WIDE = 120
"""Columns of a terminal that has room for details in a list."""


class Display:
    """Speaks to the person at the terminal; with ``json`` all of it goes to stderr.

    Of several processes only the main one speaks.

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
            # Redirected to a file, stdout must not end up above the bar on the terminal.
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
        """One line for the reader."""
        self.console.print(text, markup=False)

    @contextmanager
    def hushed(self) -> Iterator[None]:
        """Keeps back all lines but warnings and validations; the bar goes on."""
        before, self.console.quiet = self.console.quiet, True
        try:
            yield
        finally:
            self.console.quiet = before

    def warn(self, text: str) -> None:
        """One line about what is wrong, on stderr."""
        self.errors.print(text, markup=False)

    def settings(self, tree: Mapping[str, Any], where: str | None = None) -> None:
        """Settings as a command line takes them, a paragraph for each group.

        What is not set is left out.

        Args:
            tree: Those that differ from the defaults.
            where: The file that has all of them.
        """
        if where is not None:
            self.say(f"settings other than the defaults; all stand in {where}:")
        for group, value in tree.items():
            if words := _words(group, value):
                self.say(_paragraph(words))

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        """How far a long piece of work is."""
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
        # What has a note speaks at once; what is quickly done says nothing.
        last = self._last_lines.setdefault(what, now - PLAIN_SECONDS if note else now)
        if now - last >= PLAIN_SECONDS or (note and done >= total):
            self._last_lines[what] = now
            self.errors.print(f"{what}: {done}/{total} {note}".rstrip(), markup=False)

    def event(self, event: Mapping[str, Any]) -> None:
        """A row of a training's log."""
        if event["event"] == "train":
            note = f"loss {event['loss']:.4f}  lr {event['lr']:.2g}"
            self.progress("train", event["step"], event["total"], note)
        elif event["event"] == "val":
            self.errors.print(
                f"step {event['step']}: validation IoU {metric(event['iou'])}, "
                f"Dice {metric(event['dice'])}",
                markup=False,
            )

    def results(self, summary: Mapping[str, Any]) -> None:
        """The closing table: guesses without a model, zero-shot, tuned, and what it cost."""
        table = Table(title=summary.get("title"), title_justify="left")
        for column in ("", "IoU", "Dice"):
            table.add_column(column, justify="left" if not column else "right")
        rows: list[tuple[str, Mapping[str, float] | None]] = list(
            (summary.get("guesses") or {}).items()
        )
        rows += [("zero-shot", summary.get("zero_shot")), ("tuned", summary.get("tuned"))]
        for name, values in rows:
            if values:
                table.add_row(name, metric(values["iou"]), metric(values["dice"]))
        before, after = summary.get("zero_shot"), summary.get("tuned")
        if before and after and None not in (*before.values(), *after.values()):
            gains = [metric(after[key] - before[key], sign=True) for key in ("iou", "dice")]
            table.add_row("gain", *gains)
        self.console.print(table)
        self._prompts(summary)
        self._by_class(summary.get("by_class") or {})
        several = len(summary.get("by_prompt") or {}) > 1
        self._metrics(
            summary.get("metrics") or {}, asked_with(summary["prompt"]) if several else None
        )
        self.say(terms(summary))
        self.say(_facts(summary))
        for key in ("checkpoint", "report"):
            if summary.get(key):
                self.say(f"{key}: {summary[key]}")

    def _metrics(
        self, metrics: Mapping[str, Mapping[str, float | None]], prompt: str | None = None
    ) -> None:
        """A row for each metric, where there are others than IoU and Dice; of which prompt."""
        if not set(metrics) - {"iou", "dice"}:
            return
        tuned = any("tuned" in values for values in metrics.values())
        title = prompt and f"prompt {prompt}"
        table = Table("metric", "zero-shot", *(["tuned"] if tuned else []), title=title)
        for label, *values in metric_rows(metrics):
            cells = ("" if v is None and "no model" in label else metric(v) for v in values)
            table.add_row(label, *list(cells)[: 1 + tuned])
        self.console.print(table)

    def _prompts(self, summary: Mapping[str, Any]) -> None:
        """A row for each prompt mode, where there are several or the clicks of one."""
        groups = summary.get("by_prompt") or {}
        if len(groups) < 2 and not any("by_click" in values for values in groups.values()):
            return
        table = Table(title=TITLE, title_justify="left")
        table.add_column("prompt", no_wrap=True)
        rows = prompt_rows(groups)
        sides = ["zero-shot", *(["tuned"] if any(row.tuned for row in rows) else [])]
        for name in (f"{side} {what}" for side in sides for what in ("IoU", "Dice")):
            table.add_column(name, justify="right")
        for row in rows:
            pairs = (row.zero_shot, row.tuned)[: len(sides)]
            cells = [metric(v.get(k)) if v else "-" for v in pairs for k in ("iou", "dice")]
            table.add_row(row.label if row.origin else f"  {row.label}", *cells)
        self.console.print(table)

    def matrix(self, summary: Mapping[str, Any]) -> None:
        """How models of several prompts answer each prompt: IoU, a column for each model.

        Args:
            summary: See :func:`samtune.runs.prompt_matrix.evaluate_several`.
        """
        models = summary["matrix"]
        names = [f"{n}: {row['trained_with'] or 'zero-shot'}" for n, row in enumerate(models, 1)]
        table = Table(Column("asked with", no_wrap=True), *names, title_justify="left")
        table.title = (
            "IoU by trained and asked prompt (all but none are taken from the ground truth)"
        )
        for mode in models[0]["by_prompt"]:
            table.add_row(mode, *(metric(row["by_prompt"][mode]["iou"]) for row in models))
            for name, guess in summary["matrix_guesses"].get(mode, {}).items():
                table.add_row(f"  {name}, no model", metric(guess["iou"]))
        self._numbers(table)
        for n, row in enumerate(models, 1):
            self.say(f"{n}: {row['checkpoint'] or row['base']}, report: {row['report']}")
        self.say(summary["contract"].rstrip())

    def _by_class(self, groups: Mapping[str, Mapping[str, Any]]) -> None:
        """A row for each class: its mean IoU, and that of the pixels of all images."""
        if not groups:
            return
        kinds = {"iou": "IoU", "iou_pooled": "pooled IoU"}
        sides = ("zero_shot", "tuned")
        names = (f"{side.replace('_', '-')} {kind}" for kind in kinds.values() for side in sides)
        table = Table(Column("class", no_wrap=True), *names)
        for name, values in groups.items():
            cells = [(values.get(side) or {}).get(key) for key in kinds for side in sides]
            table.add_row(str(name), *map(metric, cells))
            for guess, value in (values.get("guesses") or {}).items():
                of_guess = (cell for key in kinds for cell in (metric(value.get(key)), ""))
                table.add_row(f"  {guess}, no model", *of_guess)
        self.console.print(table)

    def table(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
        whole: bool = False,
        title: str | None = None,
    ) -> None:
        """A plain table; what stands in its first column is a name and never cut.

        Args:
            columns: Their titles.
            rows: A text for each column.
            whole: As wide as it is where no terminal bounds it.
            title: Above it.
        """
        others = (Column(name, overflow="fold") for name in columns[1:])
        table = Table(Column(columns[0], no_wrap=True), *others, title=title, title_justify="left")
        for row in rows:
            table.add_row(*row)
        self._numbers(table) if whole else self.console.print(table)

    def listing(
        self, columns: Sequence[str], rows: Sequence[Sequence[str]], fixed: int = 1
    ) -> None:
        """A line for each row: what a terminal has no room for is cut, elsewhere all is shown.

        Args:
            columns: Their titles.
            rows: A text for each column.
            fixed: How many columns, from the first on, are never cut.
        """
        table = Table(*(Column(name, no_wrap=i < fixed) for i, name in enumerate(columns)))
        for row in rows:
            table.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in row))
        self._numbers(table)

    @property
    def narrow(self) -> bool:
        """Whether a terminal of few columns shows what is said."""
        return self.console.is_terminal and self.console.width < WIDE

    def _numbers(self, table: Table) -> None:
        """A table as wide as it is, unless a terminal bounds it: a number that is cut is wrong."""
        console = self.console
        if not console.is_terminal:
            console = Console(stderr=console.stderr, quiet=console.quiet, width=400)
        console.print(table)


def terms(summary: Mapping[str, Any]) -> str:
    """What the numbers of the closing tables mean; the report has all that was measured.

    Args:
        summary: With ``metrics`` by name, and ``by_class``, where there are any.
    """
    shown = ["iou", "dice", *(summary.get("metrics") or {})]
    if summary.get("by_class"):
        shown.append("iou_pooled")
    return contract(dict.fromkeys(shown)).rstrip()


def _paragraph(words: Sequence[str]) -> str:
    """Words in lines of at most :data:`READABLE` columns where they can be."""
    first, *others = words
    lines = [first]
    for word in others:
        if len(lines[-1]) + 1 + len(word) > READABLE:
            lines.append(f" {word}")
        else:
            lines[-1] += f" {word}"
    return "\n".join(lines)


def _words(key: str, value: Any) -> list[str]:
    """A setting that is set, or each in a group, as ``key=value`` with the whole key."""
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
    # Without brackets one number is no list, and a text with spaces or slashes stays whole.
    return joined if "," in joined and not any(c in joined for c in " /\\") else f"[{joined}]"


def _facts(summary: Mapping[str, Any]) -> str:
    facts = [f"prompt {asked_with(summary['prompt'])}", f"{summary['images']} images"]
    if summary.get("trainable_parameters") is not None:
        facts.append(f"{quantity(summary['trainable_parameters'])} trainable parameters")
    facts.append(duration(summary["seconds"]))
    facts.append(f"peak memory {quantity(summary['peak_memory_bytes'], 'B')}")
    return ", ".join(facts)
