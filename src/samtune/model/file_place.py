"""The place of a file that a model is written to."""

from __future__ import annotations

import os
from pathlib import Path

from samtune.errors import InputError
from samtune.files import as_path, free_path
from samtune.model.header import is_checkpoint

PICKLED = frozenset({".pt", ".pth", ".ckpt", ".bin"})
"""Endings of files that other programs unpickle."""


def checkpoint_place(path: str | Path) -> Path:
    """The path of a checkpoint that may be written there.

    Raises:
        InputError: It is a folder, a file that is no checkpoint, or ends as a pickle does.
    """
    place = as_path(path)
    if place.is_dir() or str(path).endswith(("/", os.sep)):
        raise InputError(
            f"{path}: is a folder; give the file to write, as in {place / 'model.safetensors'}"
        )
    if place.suffix.lower() in PICKLED:
        raise InputError(
            f"{path}: a checkpoint is a .safetensors file, not {place.suffix}; give it that "
            f"ending, as in {place.with_suffix('.safetensors')}"
        )
    if place.is_file() and not is_checkpoint(place):
        raise InputError(
            f"{path}: is a file but not a samtune checkpoint, perhaps a base's weights; choose "
            f"another path, as in {free_path(place)}"
        )
    return place
