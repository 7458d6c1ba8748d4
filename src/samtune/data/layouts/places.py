"""Finds the images that an annotation file names, also if it was written on another machine."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

from samtune.data.bounds import refusal
from samtune.data.problems import DataError
from samtune.data.reading import SUFFIXES

_UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")
"""The prefix that Label Studio adds to the names of uploaded files."""


class Places:
    """Finds image files by names from annotation files.

    Args:
        folders: The folders to search, the more likely first.
        top: If the folders do not have a file, it is searched below this one by the end of its
            path.
        outside: Take a name first as it is written, also if it leads elsewhere.
        beside: The names in the folders beside the data set, where only names count and no
            paths.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        top: Path,
        outside: bool = False,
        beside: Sequence[Path] = (),
    ) -> None:
        self.folders = tuple(dict.fromkeys(folders))
        self.top, self.outside, self.beside = top, outside, frozenset(beside)

    def find(self, name: str) -> Path | None:
        """The file with a name or path; ``None`` if there is none or several match."""
        if self.outside and (literal := self._literal(name)) is not None:
            return literal
        for form in _forms(name):
            for folder in self.folders:
                known = "/" not in form or folder not in self.beside
                if known and (folder / form).is_file():
                    return folder / form
        for form in _forms(name):
            named = self._below.get(Path(form).name, [])
            deepest = [path for path in named if path.parts[-len(Path(form).parts) :] ==
                       Path(form).parts]  # fmt: skip
            if len(deepest) == 1:
                return deepest[0]
        return None

    def refusal(self, file: Path, names: Iterable[str]) -> DataError | None:
        """The error if names that are not found lead to files outside of all folders.

        Args:
            file: The file that has the names.
            names: The names of images.
        """
        paths = [path for path in map(self._literal, names) if path is not None]
        return refusal(file, paths, self.top, *(f for f in self.folders if f not in self.beside))

    def _literal(self, name: str) -> Path | None:
        """The file at a path, taken literally."""
        path = _slashed(name)
        place = next((f / path for f in self.folders if (f / path).is_file()), None)
        return place.resolve() if place is not None and ".." in place.parts else place

    @cached_property
    def _below(self) -> dict[str, list[Path]]:
        """All image files below the top by their names."""
        found: dict[str, list[Path]] = {}
        for path in sorted(self.top.rglob("*")) if self.top.is_dir() else ():
            if path.suffix.lower() in SUFFIXES:
                found.setdefault(path.name, []).append(path)
        return found


def _forms(name: str) -> Iterator[str]:
    """A path with slashes and unquoted, without its first folders, without the id of an upload."""
    slashed = _slashed(name)
    for whole in dict.fromkeys((slashed, unquote(slashed))):
        parts = [part for part in whole.split("/") if part not in ("", ".", "..")]
        if not Path(whole).is_absolute() and ".." not in whole:
            yield whole
        for i in range(len(parts)):
            yield "/".join(parts[i:])
        if parts and (plain := _UPLOADED.sub("", parts[-1])) != parts[-1]:
            yield plain


def _slashed(name: str) -> str:
    """A path with slashes; for an address of Label Studio's local files the path within it."""
    slashed = name.replace("\\", "/")
    return slashed.partition("?d=")[2].partition("&")[0] if "?d=" in slashed else slashed
