"""Folders that are written whole or not at all, and replace only what a prediction wrote."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from samtune.errors import InputError
from samtune.files import lies_in, replacing_folder, write_whole
from samtune.texts import read_json

SIGNATURE = ".samtune.json"
"""The file of such a folder that says what was written into it."""


def is_ours(folder: Path) -> bool:
    """Whether a prediction wrote a folder, and nobody has changed anything in it since."""
    try:
        tree = read_json(folder / SIGNATURE)
    except (OSError, ValueError):
        return False
    return isinstance(tree, dict) and tree.get("predicted") == _states(folder)


def refuse_foreign(folder: Path, other: Path, sources: Iterable[Path]) -> None:
    """Refuses a folder that no prediction wrote, or in which lies what is read.

    Args:
        folder: To be replaced.
        other: A place for a remedy.
        sources: The images to read.

    Raises:
        InputError: It is there.
    """
    if not os.path.lexists(folder):
        return
    is_read = any(lies_in(each, folder) for each in sources)
    if is_read or not is_ours(folder):
        why = "this command reads" if is_read else "no samtune predict wrote, or someone changed"
        raise InputError(
            f"--out={folder.parent}: holds {folder.name}, which {why}; choose another folder, as "
            f"in --out={other}"
        )


@contextmanager
def signed_folder(folder: Path, remedy: str) -> Iterator[Path]:
    """Gives a block an empty folder, signs it afterwards, and moves it to its place.

    Args:
        folder: The folder to write or to replace.
        remedy: See :func:`samtune.files.replacing`.

    Raises:
        InputError: It could not be written.
    """
    with replacing_folder(folder, remedy) as partial:
        yield partial
        write_whole(partial / SIGNATURE, json.dumps({"predicted": _states(partial)}), remedy)


def _states(folder: Path) -> dict[str, list[int]]:
    """The size and the time of each file below a folder, its signature left out."""
    states = {}
    for file in sorted(folder.rglob("*")):
        if file.is_dir() or file.name == SIGNATURE:
            continue
        state = file.lstat()
        states[file.relative_to(folder).as_posix()] = [state.st_size, state.st_mtime_ns]
    return states
