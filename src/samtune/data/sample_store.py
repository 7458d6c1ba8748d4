"""Decoded samples on disk, for several processes and trainings at the same time.

Each sample has a file of its own in safetensors, which is written whole and never changes. Its name
is a digest of everything that decides what is in it: the state of the files on disk, how they are
read, and, of an image that is in a frame already, the input policy. So nothing is ever found that
reading would not give. Every file has a checksum; a damaged one is written anew.
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samtune.data.colours import table_of
from samtune.data.config import DataConfig
from samtune.data.labels import Labels
from samtune.data.record import Record
from samtune.data.stored import Stored, files_of
from samtune.errors import InputError
from samtune.files import as_path, check_room, lies_in, replacing
from samtune.geometry import InputPolicy
from samtune.leftovers import remove_abandoned
from samtune.options.sizes import bytes_on_disk

FOLDER = "decoded"
"""The folder of decoded samples within a run's or a comparison's."""
FORMAT = "1"
"""Version of the files; those of another one are not read."""
ENDING = ".safetensors"
ABOUT = "about"
"""The entry of a file's header that describes its arrays."""
LOOK_AFTER = 2**26
"""Bytes that a process writes until it looks again at what all have written."""
HEADER = 2**11
"""Room for the header of a file in bytes."""
READERS = ("samtune", "pillow", "opencv-python-headless", "opencv-python", "tifffile", "numpy")
"""The packages whose versions decide what a file is read as."""
NOT_OF_READING = frozenset({
    "root", "name", "split", "shots", "shot_seed", "val_fraction", "test_fraction", "split_seed",
    "augment", "redraw", "views", "crop", "rotate", "corners", "cache", "disk_cache",
    "augment_on", "cache_folder", "workers",
})  # fmt: skip
"""Settings of the data that do not decide how a file is read."""
_BLOCK = 2**12


@dataclass(frozen=True)
class StoredSample:
    """A sample as it is stored: its image, and its objects in the original frame."""

    image: Tensor
    """``(h, w, 3)`` uint8 as read, or ``(3, H, W)`` uint8 or float32 in the model's frame."""
    labels: Labels

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        return self.image.nbytes + self.labels.nbytes


class SampleStore:
    """Samples on disk, by the files of their records.

    Args:
        folder: Their folder; it is created.
        budget: Bytes that all files in it may take together, to within 64 MiB per process.
        data: How files are read.

    Raises:
        InputError: The folder cannot be written, or its disk has less room than the budget.
    """

    def __init__(self, folder: Path, budget: int, data: DataConfig) -> None:
        self.folder, self.budget = folder, budget
        self.is_full = False
        """Whether nothing more is written: there is no room, or writing failed."""
        self._bytes, self._bytes_since = bytes_on_disk(folder, ENDING), 0
        _check_disk(folder, budget, data.disk_cache, self._bytes)
        reading = [f"{row.name}={getattr(data, row.name)!r}" for row in fields(data)
                   if row.name not in NOT_OF_READING]  # fmt: skip
        self._reading = "\n".join([FORMAT, *_versions(), *reading, repr(table_of(data))])
        for each in folder.glob("??"):
            remove_abandoned(each)

    def key(self, record: Record, policy: InputPolicy, fitted: bool) -> str | None:
        """The digest of a sample; ``None`` if no files decide what it is.

        Args:
            record: The files.
            policy: How the image is read and enters the frame.
            fitted: Whether the image is stored in the frame.
        """
        sources = [each for each in (record.image, record.mask) if each is not None]
        if not all(not isinstance(each, Stored) or each.lies_in_files for each in sources):
            return None
        if not fitted:  # the frame does not matter
            policy = replace(
                InputPolicy((1, 1)), bands=policy.bands, intensity=policy.intensity,
                limits=policy.limits, slice_axis=policy.slice_axis,
            )  # fmt: skip
        words = [self._reading, repr(policy), f"fitted={fitted}", *map(repr, sources)]
        for path in dict.fromkeys(chain.from_iterable(map(files_of, sources))):
            state = _state(path)
            if state is None:
                return None
            words.append(f"{path} {state}")
        text = "\n".join(words).encode(errors="surrogateescape")
        return blake2b(text, digest_size=16).hexdigest()

    def has(self, key: str) -> bool:
        """Whether there is a file of a sample, damaged or not."""
        return self._place(key).is_file()

    def get(self, key: str) -> StoredSample | None:
        """The sample of a digest; ``None`` if there is none, or none without damage."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self._place(key), "pt") as file:
                about = json.loads(file.metadata()[ABOUT])
                arrays = {name: file.get_tensor(name) for name in file.keys()}
            sound = about["checksum"] == _checksum(arrays)
            return _unpacked(arrays, about) if sound else None
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            return None

    def put(self, key: str, sample: StoredSample) -> None:
        """Writes a sample, if there is room for it."""
        from safetensors.torch import save_file

        arrays, about = _packed(sample)
        size = HEADER + sum(array.nbytes for array in arrays.values())
        if self._bytes_since > LOOK_AFTER:  # others write too
            self._bytes, self._bytes_since = bytes_on_disk(self.folder, ENDING), 0
        if self.is_full or self._bytes + size > self.budget:
            return
        about["checksum"] = _checksum(arrays)
        try:
            with replacing(self._place(key), lasting=False) as partial:
                save_file(arrays, partial, metadata={ABOUT: json.dumps(about)})
        except InputError:  # the disk is full, or the folder has gone
            self.is_full = True
        self._bytes, self._bytes_since = self._bytes + size, self._bytes_since + size

    def _place(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}{ENDING}"


def store_of(data: DataConfig, folder: Path | None = None) -> SampleStore | None:
    """The store that the settings name; ``None`` if they name none.

    Args:
        data: The settings.
        folder: The folder of the store, if the settings name none.

    Raises:
        InputError: See :class:`SampleStore`; or the folder lies in that of the data.
    """
    place = folder if data.cache_folder is None else as_path(data.cache_folder)
    if not data.bytes_on_disk or place is None:
        return None
    root = None if data.root is None else as_path(data.root)
    if root is not None and root.is_dir() and lies_in(place, root):
        raise InputError(
            f"data.cache_folder={place}: lies in data.root={root}, whose files are only read; "
            "choose a folder outside"
        )
    return SampleStore(place, data.bytes_on_disk, data)


def _check_disk(folder: Path, budget: int, setting: int | str, there: int) -> None:
    """Refuses a folder that cannot be written, or whose disk is too small for the budget.

    Args:
        folder: The folder.
        budget: Bytes for all files in it.
        setting: The setting that gives them, for the message.
        there: Bytes that its files take already.
    """
    check_room(folder, "set data.cache_folder to another folder")
    place = next(each for each in (folder, *folder.parents) if each.is_dir())
    room = shutil.disk_usage(place).free + there
    if budget > room:
        raise InputError(
            f"data.disk_cache={setting}: the disk of {folder} has room for {room / 1e9:.3g} GB; "
            f"set data.disk_cache={int(0.9 * room / 1e6)}MB, or data.cache_folder to another disk"
        )


def _versions() -> list[str]:
    rows = []
    for name in READERS:
        with suppress(PackageNotFoundError):
            rows.append(f"{name} {version(name)}")
    return rows


def _state(path: Path) -> str | None:
    """The values that change whenever a file does; ``None`` if it is no file."""
    try:
        stat = path.stat()
    except OSError:
        return None
    if not path.is_file():  # the files in a folder change without it
        return None
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"


def _packed(sample: StoredSample) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Arrays that can be written, maps of two values as bits, and how to read them."""
    labels, about = sample.labels, dict[str, Any]()
    arrays = {"image": sample.image.contiguous(), "classes": torch.from_numpy(labels.classes)}
    for name in ("map", "valid", "small"):
        values = getattr(labels, name)
        if values is None:
            continue
        bits = len(values) == 0 or bool(values.max() <= 1)
        about[name] = {"shape": values.shape, "dtype": values.dtype.str, "bits": bits}
        plain = np.packbits(values) if bits else np.ascontiguousarray(values)
        arrays[name] = torch.from_numpy(plain.reshape(-1).view(np.uint8))
    return arrays, about


def _unpacked(arrays: dict[str, Tensor], about: dict[str, Any]) -> StoredSample:
    maps: dict[str, NDArray[Any] | None] = {"map": None, "valid": None, "small": None}
    for name in maps.keys() & about.keys():
        how, values = about[name], arrays[name].numpy()
        shape, dtype = tuple(how["shape"]), np.dtype(how["dtype"])
        if how["bits"]:
            count = int(np.prod(shape))
            values = np.unpackbits(values, count=count).astype(dtype, copy=False)
        maps[name] = values.view(dtype).reshape(shape)
    if maps["map"] is None:
        raise ValueError("no map")
    labels = Labels(maps["map"], arrays["classes"].numpy(), maps["valid"], maps["small"])
    return StoredSample(arrays["image"], labels)


def _checksum(arrays: dict[str, Tensor]) -> str:
    """A digest of arrays that finds damage, by sums of blocks: as fast as memory is read."""
    total = blake2b(digest_size=16)
    for name in sorted(arrays):
        array = arrays[name]
        total.update(f"{name} {array.dtype} {tuple(array.shape)}".encode())
        values = array.contiguous().reshape(-1).view(torch.uint8).numpy()
        whole = len(values) // _BLOCK * _BLOCK
        blocks = values[:whole].view(np.uint64).reshape(-1, _BLOCK // 8)
        total.update(blocks.sum(1, dtype=np.uint64).tobytes())
        total.update(np.bitwise_xor.reduce(blocks, 1).tobytes())
        total.update(values[whole:].tobytes())
    return total.hexdigest()
