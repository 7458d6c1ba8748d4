"""How one training of a comparison ended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from samtune.compare.plan import Run


@dataclass(frozen=True)
class Failure:
    """A training that has no result."""

    message: str
    """One line."""
    refused: bool = False
    """Whether its input is wrong, so that it would fail again."""


Outcomes = Iterator[tuple[Run, Failure | None]]
"""Runs as they end, each with its failure or ``None``."""
