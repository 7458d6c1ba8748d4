"""The description of a published data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samtune.data.problems import DataError

if TYPE_CHECKING:
    from samtune.data.config import DataConfig
    from samtune.data.sources import Record


@dataclass(frozen=True)
class NamedSet:
    """A published data set in the layout in which its authors distribute it."""

    name: str
    """Its value of ``data.name``, in lower snake case."""
    title: str
    """Its name as its paper writes it."""
    task: str
    """The segmented objects, in a few words."""
    paper: str
    """Authors, year, and where it appeared."""
    url: str
    """The address of its page."""
    layout: tuple[str, ...]
    """Paths below the root that are read, one per line, with remarks in brackets behind them; shown
    if something is missing."""
    splits: Mapping[str, int]
    """Number of images per official split; ``all`` if its authors make none."""
    find: Callable[[Path, DataConfig], dict[str | None, list[Record]]]
    """The records by official split.

    Raises:
        InputError: The download is wrong or partial; the message says what is missing.
    """
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Settings of ``data`` that belong to the set: mask rule, classes, names, ignored value.
    Settings of a recipe and of the user override them."""
    shots: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """The names of the images in published few-shot experiments, by number of shots."""


DATASETS: dict[str, NamedSet] = {}
"""The published data sets by name."""
_EXAMPLES = 6


def register(entry: NamedSet) -> None:
    """Registers a data set under its name."""
    if entry.name in DATASETS:
        raise ValueError(f"two data sets are named {entry.name}")
    DATASETS[entry.name] = entry


def incomplete(
    name: str, root: Path, missing: Iterable[str], files: Sequence[Path] = ()
) -> DataError:
    """The error for a wrong or partial download: what is missing, and how a complete one looks.

    Args:
        name: The data set's.
        root: Its folder.
        missing: The files that it lacks.
        files: Files without a partner or missing files, if known.
    """
    entry, lacks = DATASETS[name], list(missing)
    rest = len(lacks) - _EXAMPLES
    examples = ", ".join(lacks[:_EXAMPLES]) + (f" and {rest} more" if rest > 0 else "")
    return DataError(
        root,
        "missing or alone" if files else "incomplete download",
        f"not a whole copy of {entry.title}: missing {examples}",
        ("complete them or remove files without a partner; " if files else "")
        + f"expected below it: {' or '.join(entry.layout)}; get it from {entry.url}",
        files,
    )


def deviations(name: str, by_split: Mapping[str | None, list[Record]]) -> list[str]:
    """Splits of another size than published, one line each with the remedy.

    Subsets are legal but reported, because a result on a subset cannot be compared with the
    published one.
    """
    entry = DATASETS[name]
    sizes: dict[str, int] = {str(s): len(records) for s, records in by_split.items() if s}
    if "all" in entry.splits:
        sizes = {"all": sum(len(records) for records in by_split.values())}
    return [
        f"{name}: {sizes[split]} images in {split}, where {entry.title} has {count}; if no subset "
        "was meant, unpack or download it again"
        for split, count in entry.splits.items()
        if split in sizes and sizes[split] != count
    ]
