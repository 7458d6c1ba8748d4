"""The files of folders that are read as images, masks, arrays or volumes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from samtune.data.problems import DataError
from samtune.data.reading import SUFFIXES
from samtune.data.volumes import is_volume
from samtune.files import CHECK_PATH, as_path, why_no_folder

SPLIT_NAMES = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


def existing_folder(path: str | Path) -> Path:
    """The path as a folder that exists.

    Raises:
        InputError: The folder does not exist.
    """
    folder = as_path(path)
    if what := why_no_folder(folder):
        raise DataError(folder, "no such folder", what, CHECK_PATH)
    return folder


def image_files(folder: Path) -> list[Path]:
    """The image files directly in a folder, sorted, hidden ones left out."""
    return sorted(
        p for p in folder.iterdir()
        if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file()
    )  # fmt: skip


def data_files(folder: Path) -> list[Path]:
    """Image files, arrays, volumes and folders that are DICOM series, sorted."""
    volumes = [
        path for path in folder.iterdir()
        if not path.name.startswith(".") and path.name.lower() not in SPLIT_NAMES
        and is_volume(path)
    ]  # fmt: skip
    return sorted([*image_files(folder), *volumes])


def data_files_below(folder: Path) -> list[Path]:
    """The files of :func:`data_files` in a folder and all its subfolders, sorted.

    Hidden folders are left out, and so are folders that a link reaches a second time.
    """
    return sorted(_below(folder, set()))


def _below(folder: Path, visited: set[Path]) -> Iterator[Path]:
    real = folder.resolve()
    if real in visited:
        return
    visited.add(real)
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if is_volume(path) or (path.suffix.lower() in SUFFIXES and path.is_file()):
            yield path
        elif path.is_dir():
            yield from _below(path, visited)
