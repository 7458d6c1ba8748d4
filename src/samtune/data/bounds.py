"""Limits the files that lists and annotations of a data set may name to its folder.

The lists of a data set come from others. So that none of them reads what lies elsewhere on the
machine, paths that leave the folder are refused without ``data.outside=true``. What somebody has
linked into the folder is followed: such a link is made on the machine itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from samtune.data.problems import DataError, complain
from samtune.files import lies_in

REMEDY = "put it there, also by a link, or read it from where it is with data.outside=true"


def is_outside(path: Path, *folders: Path) -> bool:
    """Whether a path that a file of a data set names leaves its folders.

    A path without ``..`` below a folder stays in it, whatever is linked there; any other counts by
    where it really leads.

    Args:
        path: Absolute, or relative to the working folder.
        folders: The data set's.
    """
    here = Path.cwd()
    for folder in folders:
        whole, top = here / path, here / folder
        if whole.is_relative_to(top) and ".." not in whole.relative_to(top).parts:
            return False
    return not any(lies_in(path, folder) for folder in folders)


def refusal(file: Path, paths: Iterable[Path], *folders: Path) -> DataError | None:
    """The error for a file of a data set that names files outside of its folder.

    Args:
        file: The file that names them.
        paths: All that it names.
        folders: The data set's.
    """
    beyond = [path for path in dict.fromkeys(paths) if is_outside(path, *folders)]
    if not beyond:
        return None
    more = f" and {len(beyond) - 1} more, which lie" if beyond[1:] else ", which lies"
    what = f"names {beyond[0]}{more} outside of the data set's folder"
    return DataError(file, "outside of the folder", what, REMEDY, beyond)


def refuse_outside(file: Path, paths: Iterable[Path], folder: Path, allowed: bool) -> list[Path]:
    """The paths that a file of a data set may name; the others are complained of.

    Args:
        file: The file that names them.
        paths: All that it names.
        folder: The data set's.
        allowed: Whether they may lie anywhere, as ``data.outside`` says.

    Raises:
        InputError: One lies outside of the folder.
    """
    paths = list(paths)
    error = None if allowed else refusal(file, paths, folder)
    if error is None:
        return paths
    complain(error)
    return [path for path in paths if not is_outside(path, folder)]
