"""Images and masks within the files of published sets: arrays, volumes, coded labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samtune.data.arrays import Archive, mapped
from samtune.data.problems import DataError
from samtune.data.reading import LOSSY, image_size, read_image, read_mask
from samtune.data.stored import Stored
from samtune.errors import InputError

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Coloured(Stored):
    """A mask that is a picture with one colour per class."""

    values: tuple[tuple[Colour, int], ...]
    """The value for each colour (red, green, blue)."""

    def read(self) -> NDArray[np.uint8]:
        """``(h, w)`` values.

        Raises:
            InputError: The picture has a colour that stands for no class.
        """
        picture = read_image(self.path).astype(np.int32)
        codes, where = np.unique(picture @ np.array([1 << 16, 1 << 8, 1]), return_inverse=True)
        known = {(r << 16) + (g << 8) + b: value for (r, g, b), value in self.values}
        strange = [f"({c >> 16}, {c >> 8 & 255}, {c & 255})" for c in codes if int(c) not in known]
        if strange:
            raise DataError(
                self.path,
                "unknown colour",
                f"the colour {strange[0]} stands for no class, nor do {len(strange) - 1} others",
                "take the label files as published: scaling or JPEG mixes their colours",
            )
        table = np.array([known[int(code)] for code in codes], np.uint8)
        return table[where.reshape(picture.shape[:2])]

    def size(self) -> tuple[int, int]:
        """Height and width."""
        return image_size(self.path)


@dataclass(frozen=True)
class Channel(Stored):
    """A mask in one channel of a picture: 0 red, 1 green, 2 blue."""

    channel: int = 0

    def read(self) -> NDArray[np.uint8]:
        """``(h, w)`` values of the channel."""
        return read_image(self.path)[..., self.channel]

    def size(self) -> tuple[int, int]:
        """Height and width."""
        return image_size(self.path)

    @property
    def lossy(self) -> bool:
        """Whether the picture is a JPEG."""
        return self.path.suffix.lower() in LOSSY


@dataclass(frozen=True)
class Renumbered(Stored):
    """A mask picture whose values are replaced by others."""

    values: tuple[tuple[int, int], ...]
    """Pairs of stored value and replacement."""
    other: int
    """The replacement for all remaining values."""

    def read(self) -> NDArray[np.uint8]:
        """``(h, w)`` values after the replacement."""
        stored = read_mask(self.path)
        out = np.full(stored.shape, self.other, np.uint8)
        for old, new in self.values:
            out[stored == old] = new
        return out

    def size(self) -> tuple[int, int]:
        """Height and width."""
        return image_size(self.path)


@dataclass(frozen=True)
class ArrayItem(Stored):
    """One image of an ``.npy`` file of many, ``(n, h, w)`` or ``(n, h, w, channels)``."""

    index: int

    def read(self) -> NDArray:
        """``(h, w)`` or ``(h, w, channels)``; only this item is read from disk."""
        return np.array(open_array(self.path)[self.index])

    def size(self) -> tuple[int, int]:
        """Height and width."""
        _, height, width, *_ = open_array(self.path).shape
        return height, width


@dataclass(frozen=True)
class ArchiveItem(Stored):
    """An array of an ``.npz`` file."""

    key: str
    unit: bool = False
    """Whether the values 0 to 1 mean black to white."""

    def read(self) -> NDArray:
        """``(h, w)`` as stored, or ``unit`` values as 8 bits."""
        with Archive(self.path) as archive:
            return _bytes(archive[self.key]) if self.unit else archive[self.key]


@dataclass(frozen=True)
class VolumeSlice(Stored):
    """A slice along the first axis of a volume in an HDF5 file."""

    key: str
    index: int
    unit: bool = False
    """Whether the values 0 to 1 mean black to white."""

    def read(self) -> NDArray:
        """``(h, w)`` as stored, or ``unit`` values as 8 bits; only this slice is read."""
        with open_volume(self.path) as file:
            values = np.asarray(file[self.key][self.index])
        return _bytes(values) if self.unit else values

    def size(self) -> tuple[int, int]:
        """Height and width."""
        with open_volume(self.path) as file:
            _, height, width = file[self.key].shape
        return height, width


@dataclass(frozen=True)
class StackPage(Stored):
    """A page of a TIFF stack."""

    index: int

    def read(self) -> NDArray:
        """``(h, w)`` as stored."""
        import tifffile

        return tifffile.imread(self.path, key=self.index)


def open_array(path: Path) -> NDArray:
    """An ``.npy`` file of images, mapped into memory: ``(n, h, w)`` or ``(n, h, w, channels)``.

    Raises:
        InputError: It is not an array, has another shape, or holds floats, whose range is unknown.
    """
    try:
        array = mapped(path)
    except (OSError, ValueError, EOFError) as error:
        remedy = "download it again"
        raise DataError(path, "unreadable array", f"not an .npy array ({error})", remedy) from error
    if array.ndim not in (3, 4) or not np.issubdtype(array.dtype, np.integer):
        raise DataError(
            path,
            "unexpected array",
            f"holds {array.dtype} of shape {array.shape}",
            "store whole numbers of shape (images, height, width) or (..., 3)",
        )
    return array


def open_volume(path: Path) -> Any:
    """An HDF5 file, to be used in a ``with`` statement.

    Raises:
        InputError: h5py is not installed.
        OSError: The file cannot be read.
    """
    try:
        import h5py
    except ImportError as error:
        raise InputError(
            f"{path}: reading HDF5 volumes needs h5py; pip install 'samtune[hdf5]'"
        ) from error
    return h5py.File(path, "r")


def _bytes(values: NDArray) -> NDArray[np.uint8]:
    return np.clip(np.rint(values * 255.0), 0, 255).astype(np.uint8)
