"""How one training of a comparison ended."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from samtune.compare.plan import Run


@dataclass(frozen=True)
class Failure:
    """A training that has no result."""

    message: str
    """One line."""
    refused: bool = False
    """Whether its input is wrong, so that it would fail again."""


Outcomes = Generator[tuple[Run, Failure | None], None, None]
"""Runs as they end, each with its failure or ``None``; closing it ends those that still run."""
