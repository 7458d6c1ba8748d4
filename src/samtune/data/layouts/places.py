"""Where an image lies that an annotation file names, also if it was written on another machine."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

from samtune.data.reading import SUFFIXES

_UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")
"""What Label Studio puts before the name of an uploaded file."""


class Places:
    """Finds image files by the names that others wrote.

    Args:
        folders: Where to look, the likelier first.
        top: Below it a file is looked for by the end of its path, if it is in none of the folders.
    """

    def __init__(self, folders: Sequence[Path], top: Path) -> None:
        self.folders = tuple(dict.fromkeys(folders))
        self.top = top

    def find(self, name: str) -> Path | None:
        """The file of that name or path; ``None`` without one, or if several may be meant."""
        for form in _forms(name):
            for folder in self.folders:
                if (folder / form).is_file():
                    return folder / form
        for form in _forms(name):
            named = self._below.get(Path(form).name, [])
            deepest = [path for path in named if path.parts[-len(Path(form).parts) :] ==
                       Path(form).parts]  # fmt: skip
            if len(deepest) == 1:
                return deepest[0]
        return None

    @cached_property
    def _below(self) -> dict[str, list[Path]]:
        """All image files below the top by their names."""
        found: dict[str, list[Path]] = {}
        for path in sorted(self.top.rglob("*")) if self.top.is_dir() else ():
            if path.suffix.lower() in SUFFIXES:
                found.setdefault(path.name, []).append(path)
        return found


def _forms(name: str) -> Iterator[str]:
    """A path with slashes, unquoted, without its first folders, without the id of an upload."""
    slashed = name.replace("\\", "/")
    if "?d=" in slashed:  # Label Studio's local files
        slashed = slashed.partition("?d=")[2].partition("&")[0]
    for whole in dict.fromkeys((slashed, unquote(slashed))):
        parts = [part for part in whole.split("/") if part not in ("", ".", "..")]
        if not whole.startswith("/") and ".." not in whole:
            yield whole
        for i in range(len(parts)):
            yield "/".join(parts[i:])
        if parts and (plain := _UPLOADED.sub("", parts[-1])) != parts[-1]:
            yield plain
