"""Rows of measurements with their targets, as a table."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class Row:
    """One number, its target, and how it was spread."""

    name: str
    value: float
    unit: str = ""
    target: float | None = None
    at_most: bool = False
    """Whether less is better; else more."""
    spread: str = ""
    exact: bool = False
    """Whether it is the same on every machine."""

    @property
    def is_met(self) -> bool | None:
        """Whether the target is met; ``None`` without one."""
        if self.target is None:
            return None
        return self.value <= self.target if self.at_most else self.value >= self.target

    @property
    def cells(self) -> tuple[str, ...]:
        """Its cells in Markdown."""
        sign = "<=" if self.at_most else ">="
        target = "" if self.target is None else f"{sign} {self.target:g}"
        verdict = {None: "", True: "met", False: "missed"}[self.is_met]
        value = f"{self.value:.3g} {self.unit}".strip()
        return self.name, value, self.spread, target, verdict


COLUMNS = ("measured", "value", "spread", "target", "")


@dataclass
class Table:
    """Rows in the order in which they were measured."""

    echo: bool = False
    """Whether each is printed at once."""
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def note(self, *lines: str) -> None:
        """Adds lines above the table."""
        self.notes += lines
        if self.echo:
            print(*lines, sep="\n", flush=True)

    def add(self, *rows: Row) -> None:
        """Adds rows."""
        self.rows += rows
        for row in rows if self.echo else ():
            print(f"| {' | '.join(row.cells)} |", flush=True)

    @property
    def missed(self) -> list[str]:
        """Names of rows that miss their target on every machine."""
        return [row.name for row in self.rows if row.exact and row.is_met is False]

    def page(self, title: str, command: str) -> str:
        """The whole in Markdown."""
        lines = [f"# {title}", "", f"    {command}", "", *(f"{note}  " for note in self.notes), ""]
        lines += [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
        lines += [f"| {' | '.join(row.cells)} |" for row in self.rows]
        return "\n".join(lines) + "\n"


def machine(device: str) -> tuple[str, ...]:
    """Lines about the machine."""
    name = platform.processor() or platform.machine()
    if device.startswith("cuda") and torch.cuda.is_available():
        name = torch.cuda.get_device_name()
    capability = torch.backends.cpu.get_cpu_capability()
    return (f"{device}: {name} ({capability}), torch {torch.__version__}",)
