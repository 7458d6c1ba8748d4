"""The images to predict on: of one file, or of a folder and those below."""

from __future__ import annotations

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


@dataclass(frozen=True)
class Pictures:
    """What a path holds."""

    records: list[Record]
    """The images, without masks; the names of those in folders below have these before them, with
    slashes."""
    masks: list[Path]
    """The files that are left out because they are plainly masks of these images."""


def find_images(path: str | Path, policy: InputPolicy | None = None) -> list[Record]:
    """The images to predict on, see :func:`pictures_in`.

    Raises:
        InputError: The path does not exist or holds no image.
    """
    return pictures_in(path, policy).records


def pictures_in(path: str | Path, policy: InputPolicy | None = None) -> Pictures:
    """The images of one file, or of a folder and those below, and the masks among them.

    A volume or DICOM series is as many images as it has slices. A file is a mask if it belongs to
    one of the images by its name or folder, see :func:`.trees.roles_of`.

    Args:
        path: A file or folder.
        policy: Along which axis volumes are cut, and whether arrays have bands.

    Raises:
        InputError: The path does not exist or holds no image.
    """
    start = as_path(path)
    axis, whole = (0, False) if policy is None else (policy.slice_axis, policy.bands is not None)
    if start.is_file() or (start.is_dir() and is_volume(start)):
        return Pictures(sliced([Record(start, None, stem_of(start))], axis, whole), [])
    files = data_files_below(existing_folder(start))
    if not files:
        raise InputError(
            f"{start}: holds no image file (looked for {', '.join(sorted(SUFFIXES))}); "
            "give a folder with images, or one file"
        )
    roles = roles_of(files, start)
    paired = assign(roles.images, roles.masks).masks.values()
    masks = {mask for files_of_one in paired for mask in files_of_one}
    records = [
        Record(file, None, (file.parent.relative_to(start) / stem_of(file)).as_posix())
        for file in files
        if file not in masks
    ]
    return Pictures(sliced(records, axis, whole), sorted(masks))
