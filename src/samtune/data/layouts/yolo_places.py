"""Finds the folders, lists and images that a data.yaml names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from samtune.data.bounds import is_outside, refusal
from samtune.data.problems import DataError


class YamlPlaces:
    """Finds the files for the entries of a data.yaml and of the lists that it names.

    Roboflow writes ../train/images for the folder beside the file; others write a path of their
    machine, of which the longest existing end is used.

    Args:
        file: The data.yaml.
        tree: Its content.
        outside: Whether what lies outside of its folder may be read.
    """

    def __init__(self, file: Path, tree: dict[str, Any], outside: bool) -> None:
        self.file, self.folder, self.outside = file, file.parent, outside
        base = file.parent / _slashed(str(tree.get("path") or ""))
        self._tops = (base, file.parent)

    def find(self, entry: str, *near: Path) -> Path | None:
        """The file or folder of an entry; ``None`` if none exists that may be read.

        Args:
            entry: A path as it is written.
            near: Folders that it may be relative to, before all others.
        """
        for place in self._literal(entry, near):
            if self.outside or not is_outside(place, self.folder):
                return place
        parts = [part for part in _slashed(entry).split("/") if part not in ("", ".", "..")]
        ends = (Path(*parts[i:]) for i in range(len(parts)))
        tops = [top for top in self._tops if self.outside or not is_outside(top, self.folder)]
        return next((top / end for end in ends for top in tops if (top / end).exists()), None)

    def refusal(self, file: Path, entries: Iterable[str], *near: Path) -> DataError | None:
        """The error if entries that are not found lead to places outside of the folder.

        Args:
            file: The file that has the entries.
            entries: See :meth:`find`, also for what follows.
            near: See there.
        """
        places = (place for entry in entries for place in self._literal(entry, near))
        return refusal(file, places, self.folder)

    def _literal(self, entry: str, near: Iterable[Path]) -> Iterator[Path]:
        places = (top / _slashed(entry) for top in (*near, *self._tops))
        return (place for place in places if place.exists())


def _slashed(path: str) -> str:
    return path.replace("\\", "/")
