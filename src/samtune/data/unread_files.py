"""Files among those of a data set that are not read, so that nobody believes they are used."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from samtune.data.reading import SUFFIXES
from samtune.data.sources import Record
from samtune.data.stored import files_of
from samtune.data.volumes import is_volume

_TEXTS = frozenset({".csv", ".json", ".md", ".tsv", ".txt", ".xml", ".yaml", ".yml"})
"""Endings of lists and annotations, which may be anywhere."""


def unread_files(
    records: Iterable[Record], root: Path, known: Collection[str] = ()
) -> Iterator[tuple[Path, str]]:
    """Files and folders that no record reads, with the kind of each.

    It searches the folders of images and of mask pictures, and their parents below ``root``.

    Args:
        records: The records that are read.
        root: The data set's folder.
        known: Files to leave out because they are reported already.
    """
    used: set[Path] = set()
    folders: set[Path] = set()
    for record in records:
        mine = [*files_of(record.image), *files_of(record.mask)]
        used |= set(mine)
        folders |= {path.parent for path in mine if _is_data(path)}
    upper = {above for folder in folders for above in folder.parents if root in above.parents}
    within = {above for path in used for above in path.parents}
    for folder in sorted(folders | upper):
        for path in sorted(folder.iterdir()):
            if path in used or path in within or path.name.startswith(".") or str(path) in known:
                continue
            kind = _kind(path)
            if kind:
                yield path, kind


def _kind(path: Path) -> str | None:
    if _is_data(path):
        return "unused file"
    if path.is_dir():
        return "unused folder" if any(_is_data(inner) for inner in path.rglob("*")) else None
    return None if path.suffix.lower() in _TEXTS else "unknown ending"


def _is_data(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES or is_volume(path)
