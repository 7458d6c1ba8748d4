"""The output of a run: a progress bar on a terminal, plain lines elsewhere, tables at the end."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from textwrap import fill
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column, Table
from rich.text import Text

from samtune.distributed import is_main
from samtune.report.closing_tables import (
    facts,
    further_tables,
    headline_table,
    instance_matrix,
    matrix_table,
)
from samtune.report.pace import Pace
from samtune.report.quantities import duration, quantity, rate_of
from samtune.report.validation import length_line, strength_note, validation_line

PLAIN_SECONDS = 10.0
"""Least seconds between progress lines if the output is not a terminal."""

WIDE = 120
"""Columns from which a terminal has room for details in a list."""


TRAIN = "train"
"""The name of a training among the pieces of work."""


class Display:
    """Prints for the person at the terminal; with ``json`` everything goes to stderr.

    With ``quiet`` it warns, and shows what came out. Of several processes only the main one speaks.

    Use as a context manager, so that the bar is taken down whatever happens.
    """

    def __init__(self, json: bool = False, quiet: bool = False) -> None:
        alone = is_main()
        self.console = Console(stderr=json, highlight=False, soft_wrap=True, quiet=not alone)
        self.errors = Console(stderr=True, highlight=False, soft_wrap=True, quiet=not alone)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(16),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.errors,
            transient=True,
            # Lines of a redirected stdout must not appear above the bar on the terminal.
            redirect_stdout=sys.stdout.isatty(),
        )
        self._quiet = quiet
        self._live = sys.stderr.isatty() and alone and not quiet
        self._tasks: dict[str, Any] = {}
        self._paces: dict[str, Pace] = {}
        self._loss = ""
        self._speed_shown = False
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
        """One line for the reader; on a terminal it is broken between words."""
        if not self._quiet:
            self.result(text)

    def result(self, text: str) -> None:
        """A line of what came out, which ``quiet`` shows too."""
        if self.console.quiet:
            return
        # The bar makes room for what its own console prints, on the same terminal.
        console = self.errors if self._live and sys.stdout.isatty() else self.console
        console.print(self._broken(text, console), markup=False)

    @staticmethod
    def _broken(text: str, console: Console) -> str:
        if not console.is_terminal:
            return text
        width = max(40, console.width)
        return "\n".join(
            fill(
                line,
                width,
                subsequent_indent=" " * _indent_of(line),
                break_long_words=False,
                break_on_hyphens=False,
            )
            if len(line) > width
            else line
            for line in text.split("\n")
        )

    @contextmanager
    def without_lines(self) -> Iterator[None]:
        """Suppresses all lines except warnings and validations; the bar goes on."""
        before, self.console.quiet = self.console.quiet, True
        try:
            yield
        finally:
            self.console.quiet = before

    def warn(self, text: str) -> None:
        """One line about what is wrong, on stderr."""
        self.errors.print(self._broken(text, self.errors), markup=False)

    def progress(self, what: str, done: int, total: int, note: str = "", images: int = 1) -> None:
        """How far a long piece of work is.

        Args:
            what: Its name.
            done: The number of its pieces that are done; they are images unless the name has a
                pace of its own.
            total: How many pieces there are.
            note: Further words.
            images: Images in a piece; 0 if the pieces are none.
        """
        pace = self._paces.setdefault(what, Pace(images))
        pace.note(done)
        note = "  ".join(part for part in (note, pace.words(total)) if part)
        if done >= total:
            del self._paces[what]
        if self._live:
            if what not in self._tasks:
                self._tasks[what] = self._bar.add_task(what, total=total, note=note)
            self._bar.update(self._tasks[what], completed=done, total=total, note=note)
            if done >= total:
                self._bar.remove_task(self._tasks.pop(what))
            return
        if self._quiet or self.console.quiet:
            return
        now = time.monotonic()
        last = self._last_lines.setdefault(what, now)  # what is quickly done says nothing
        if now - last >= PLAIN_SECONDS:
            self._last_lines[what] = now
            self.errors.print(f"{what}: {done}/{total} {note}".rstrip(), markup=False)

    def step(self, done: int, total: int, images: int, memory: int) -> None:
        """A step of a training; once its pace is known, a line says how long it will take.

        Args:
            done: Steps that are done.
            total: The number of all steps.
            images: In a step, of all processes.
            memory: The greatest number of bytes so far.
        """
        if TRAIN not in self._paces:
            self._paces[TRAIN] = Pace(images)
            self._speed_shown = False
        self.progress(TRAIN, done, total, self._loss)
        pace = self._paces.get(TRAIN)
        left = None if pace is None else pace.seconds_left(total)
        if left is not None and pace is not None and not self._speed_shown:
            self._speed_shown = True
            if left >= PLAIN_SECONDS:
                rate = rate_of(pace.images_per_second)
                self.say(
                    f"speed     {rate} images per second in training, about {duration(left)} to "
                    f"go; memory {quantity(memory, 'B')} so far"
                )

    def event(self, event: Mapping[str, Any]) -> None:
        """Prints a row of a training's log."""
        if event["event"] == "train":
            self._loss = f"loss {event['loss']:.4f}"
            if event.get("not_finite"):
                self._loss += f" ({event['not_finite']} not finite)"
        elif event["event"] in ("zero_shot", "val", "strength") and not self._quiet:
            line = validation_line(event)
            self.errors.print(self._broken(line, self.errors), markup=False)
        elif event["event"] == "time":
            self.say(length_line(event))
        if "warning" in event:
            self.warn(event["warning"])

    def results(self, summary: Mapping[str, Any]) -> None:
        """The closing tables: guesses without a model, zero-shot, tuned, and what it cost."""
        if summary.get("verdict"):
            self.say(summary["verdict"])
        self.console.print(headline_table(summary))
        for table in further_tables(summary):
            self._numbers(table)
        self.result(facts(summary))
        for key in ("checkpoint", "report"):
            if summary.get(key):
                note = strength_note(summary) if key == "checkpoint" else ""
                self.result(f"{key}: {summary[key]}{note}")
        self.say(numbers_link(summary))

    def matrix(self, summary: Mapping[str, Any]) -> None:
        """Prints how several models answer each prompt: IoU, with one column per model.

        Args:
            summary: See :func:`samtune.runs.prompt_matrix.evaluate_several`.
        """
        self._numbers(matrix_table(summary))
        if (instances := instance_matrix(summary)) is not None:
            self._numbers(instances)
        for n, row in enumerate(summary["matrix"], 1):
            self.result(f"{n}: {row['checkpoint'] or row['base']}, report: {row['report']}")
        self.say(numbers_link(summary["matrix"][0]))

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
        """Whether a terminal of few columns shows what is said."""
        known = self.console.is_terminal or "COLUMNS" in os.environ
        return known and self.console.width < WIDE

    def _numbers(self, table: Table) -> None:
        """A table as wide as it is, unless a terminal or ``COLUMNS`` bounds it."""
        console = self.console
        if not console.is_terminal and "COLUMNS" not in os.environ:
            console = Console(stderr=console.stderr, quiet=console.quiet, width=400)
        console.print(table)


def numbers_link(summary: Mapping[str, Any]) -> str:
    """The place that explains the metrics and their intervals.

    Args:
        summary: With the ``report``, whose part on the numbers is named.
    """
    return f"what the numbers mean: {summary['report']}#contract"


def _indent_of(line: str) -> int:
    """The indent of a text's further lines: below the text after a name in a column."""
    name, space, _ = line.partition("  ")
    rest = line[len(name) :]
    return len(line) - len(rest.lstrip()) if space and len(name) < 12 else 2
