"""The images to predict on: one file, or the files of a folder and its subfolders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from samtune.data.pairing import assign
from samtune.data.reading import SUFFIXES
from samtune.data.record import Record
from samtune.data.sources import sliced
from samtune.data.trees import roles_of
from samtune.data.volumes import is_volume, stem_of
from samtune.data.walking import data_files_below, existing_folder
from samtune.errors import InputError
from samtune.files import as_path
from samtune.geometry import InputPolicy

Paths = str | Path | Sequence[str | Path]
"""A file or a folder, or several."""


@dataclass(frozen=True)
class Pictures:
    """The images and masks at a path."""

    records: list[Record]
    """The images, without masks; names of images in subfolders include the folders, with slashes.
    """
    masks: list[Path]
    """The files that are left out because they are clearly masks of these images."""


def find_images(path: Paths, policy: InputPolicy | None = None) -> list[Record]:
    """The images to predict on, see :func:`pictures_in`.

    Raises:
        InputError: A path does not exist or holds no image.
    """
    return pictures_in(path, policy).records


def pictures_in(path: Paths, policy: InputPolicy | None = None) -> Pictures:
    """The images at one file, or in a folder and its subfolders, and the masks among them.

    A volume or DICOM series gives one image per slice. A file in a folder is a mask if it belongs
    to one of the images by its name or folder, see :func:`.trees.roles_of`. Images of several paths
    are named by where they lie below the folder that they have in common.

    Args:
        path: A file or folder, or several.
        policy: The axis along which volumes are cut, and whether arrays have bands.

    Raises:
        InputError: A path does not exist or holds no image.
    """
    starts = [as_path(each) for each in ([path] if isinstance(path, str | Path) else path)]
    axis, whole = (0, False) if policy is None else (policy.slice_axis, policy.bands is not None)
    files, masks = list[Path](), set[Path]()
    for start in starts:
        some, others = _files_of(start)
        files, masks = [*files, *some], masks | set(others)
    root = _root_of(starts)
    records = [
        Record(file, None, (_below(file, root) / stem_of(file)).as_posix())
        for file in dict.fromkeys(files)
    ]
    return Pictures(sliced(records, axis, whole), sorted(masks))


def _root_of(starts: Sequence[Path]) -> Path:
    """The folder below which images are named: that itself, or what several have in common."""
    alone = starts[0]
    if len(starts) == 1 and alone.is_dir() and not is_volume(alone):
        return alone
    folders = {os.path.abspath(start.parent) for start in starts}
    return alone.parent if len(folders) == 1 else Path(os.path.commonpath(folders))


def _below(file: Path, root: Path) -> Path:
    """The folder of a file below another one."""
    folder = file.parent
    if not folder.is_relative_to(root):
        folder = Path(os.path.abspath(folder))
    return folder.relative_to(root)


def _files_of(start: Path) -> tuple[list[Path], list[Path]]:
    """The images of a path, and the masks beside them, which a single file has none of."""
    if start.is_file() or (start.is_dir() and is_volume(start)):
        return [start], []
    files = data_files_below(existing_folder(start))
    if not files:
        raise InputError(
            f"{start}: holds no image file (looked for {', '.join(sorted(SUFFIXES))}); "
            "give a folder with images, or one file"
        )
    roles = roles_of(files, start)
    paired = assign(roles.images, roles.masks).masks.values()
    masks = {mask for files_of_one in paired for mask in files_of_one}
    return [file for file in files if file not in masks], sorted(masks)
