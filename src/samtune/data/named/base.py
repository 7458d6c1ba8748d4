"""What is known of a published data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from samtune.data.config import DataConfig
    from samtune.data.sources import Record


@dataclass(frozen=True)
class NamedSet:
    """A published data set in the layout in which its authors distribute it."""

    name: str
    """What ``data.name`` calls it: lower snake case."""
    title: str
    """As its paper writes it."""
    task: str
    """What is segmented, in a few words."""
    paper: str
    """Authors, year, and where it appeared."""
    url: str
    """Its page."""
    layout: tuple[str, ...]
    """Paths below the root that are read, one a line; shown when something is missing."""
    find: Callable[[Path, DataConfig], dict[str | None, list[Record]]]
    """The records by official split.

    Raises:
        InputError: A wrong or partial download; it says what is missing.
    """
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Settings of ``data`` that belong to the set: mask rule, classes, names, ignored value. They
    stand below a recipe's and the user's."""


DATASETS: dict[str, NamedSet] = {}
"""By name."""
