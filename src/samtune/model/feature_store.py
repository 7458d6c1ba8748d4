"""Results of a frozen encoder on disk, for several processes and trainings at the same time.

A folder holds files of some images each, in safetensors, which are mapped into memory when they
are read. A file is written whole under a new name and never changes, so that readers need no lock:
each finds the files that others have written when it lacks an image. Every image has a checksum; a
damaged one is computed and written anew.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from samtune.errors import InputError
from samtune.files import checksum_of, replacing
from samtune.leftovers import remove_abandoned
from samtune.model.feature_cache import CachedImage
from samtune.options.sizes import bytes_on_disk
from samtune.sam.model import Sam

FORMAT = "1"
"""Version of the files; those of another one are not read."""
ENDING = ".safetensors"
FILE_BYTES = 2**26
"""Bytes of images after which a file is written: few files, and little waits in memory."""
IMAGES = "images"
"""The entry of a file's header that describes its images."""


def digest_of_base(sam: Sam) -> str:
    """A digest of everything but the pixels that decides what a base's encoder gives.

    The version of torch is in it, because kernels change how they round.
    """
    tensors = sam.image_encoder.state_dict()
    notes = {"base": repr(sam.spec), "torch": torch.__version__, "format": FORMAT}
    return checksum_of(tensors, notes)


class FeatureStore:
    """Streams of images on disk, by a digest of the pixels.

    Args:
        folder: For all bases and streams; each kind has a folder in it.
        budget: Bytes that all files in the folder may take together, to within one file per
            process.
        base: See :func:`digest_of_base`.
        read: The numbers of the streams.
        half: Whether single precision is stored as half precision.
    """

    def __init__(
        self, folder: Path, budget: int, base: str, read: frozenset[int], half: bool
    ) -> None:
        self.folder, self.budget, self.base, self.half = folder, budget, base, half
        kind = [base, ".".join(map(str, sorted(read))), *(["half"] if half else [])]
        self.place = folder / "-".join(kind)
        self.failure = ""
        """The reason why nothing more is written; empty if nothing is wrong."""
        self.damaged = 0
        """Number of images that could not be used."""
        self._waiting: dict[str, CachedImage] = {}
        self._bytes_waiting = 0
        self._known: set[str] = set()
        """Names of the files that were looked through."""
        self._places: dict[str, list[Path]] = {}
        """The files that have an image."""
        self._files: dict[Path, Any] = {}
        self._sound_entries: set[tuple[Path, str]] = set()
        remove_abandoned(self.place)
        self.bytes_on_disk = bytes_on_disk(folder, ENDING)
        """Bytes of all files in the folder when somebody last looked."""

    def beside(self, read: frozenset[int]) -> FeatureStore:
        """The store of other streams of the same base, in the same folder."""
        return FeatureStore(self.folder, self.budget, self.base, read, self.half)

    def has(self, key: str) -> bool:
        """Whether an image is known to be stored."""
        return key in self._waiting or bool(self._places.get(key))

    def get(self, key: str) -> CachedImage | None:
        """The image of a key; ``None`` if there is none, or none without damage."""
        if not self.has(key):
            self._look_through()
        if key in self._waiting:
            return self._waiting[key]
        places = self._places.get(key, [])
        while places:
            if (image := self._read(places[-1], key)) is not None:
                return image
            places.pop()
            self.damaged += 1
        return None

    def put(self, key: str, image: CachedImage) -> bool:
        """Has an image written, soon; returns whether there is room for it."""
        if self.has(key):
            return True
        if self.failure or self.bytes_on_disk + self._bytes_waiting + image.nbytes > self.budget:
            return False
        self._waiting[key] = image.in_memory()
        self._bytes_waiting += image.nbytes
        if self._bytes_waiting >= FILE_BYTES:
            self.flush()
        return not self.failure

    def flush(self) -> None:
        """Writes the images that wait; if that fails, the store is only read from then on."""
        self._look_through()  # others may have written them meanwhile
        images = {key: one for key, one in self._waiting.items() if not self._places.get(key)}
        self._waiting, self._bytes_waiting = {}, 0
        if images:
            try:
                _write(self.place / f"{uuid.uuid4().hex}{ENDING}", images)
            except InputError as error:
                self.failure = str(error)
        self.bytes_on_disk = bytes_on_disk(self.folder, ENDING)

    def _look_through(self) -> None:
        """Notes the images of files that are new."""
        for path in _files_in(self.place):
            if path.name not in self._known:
                self._known.add(path.name)
                for key in _contents(path):
                    self._places.setdefault(key, []).append(path)

    def _read(self, path: Path, key: str) -> CachedImage | None:
        from safetensors import SafetensorError, safe_open

        try:
            if path not in self._files:
                self._files[path] = safe_open(path, "pt")
            file = self._files[path]
            about = _contents(path, file)[key]
            stored = {n: file.get_tensor(f"{key}.{n}") for n in about["orders"]}
        except (OSError, ValueError, KeyError, SafetensorError):
            return None
        if (path, key) not in self._sound_entries:
            if checksum_of(stored, {}) != about["checksum"]:
                return None
            self._sound_entries.add((path, key))
        return CachedImage(
            {int(n): _unpacked(t, about["orders"][n]) for n, t in stored.items()},
            {int(n): getattr(torch, name) for n, name in about["computed_in"].items()},
        )


def _write(path: Path, images: Mapping[str, CachedImage]) -> None:
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    about: dict[str, Any] = {}
    for key, image in images.items():
        orders = {str(n): _order(t) for n, t in image.streams.items()}
        packed = {str(n): t.permute(_order(t)).contiguous() for n, t in image.streams.items()}
        tensors |= {f"{key}.{n}": t for n, t in packed.items()}
        computed_in = {str(n): str(kind).split(".")[1] for n, kind in image.computed_in.items()}
        checksum = checksum_of(packed, {})
        about[key] = {"orders": orders, "computed_in": computed_in, "checksum": checksum}
    with replacing(path, lasting=False) as partial:
        save_file(tensors, partial, metadata={IMAGES: json.dumps(about)})


def _order(tensor: Tensor) -> list[int]:
    """The dimensions in the order of the memory, which files do not keep."""
    strides = tensor.stride()
    return sorted(range(tensor.dim()), key=lambda d: -strides[d])


def _unpacked(tensor: Tensor, order: list[int]) -> Tensor:
    return tensor.permute([order.index(d) for d in range(len(order))])


def _contents(path: Path, file: Any = None) -> dict[str, Any]:
    """The description of a file's images by their keys; empty if it cannot be read."""
    from safetensors import SafetensorError, safe_open

    try:
        if file is not None:
            return json.loads(file.metadata()[IMAGES])
        with safe_open(path, "pt") as opened:
            return json.loads(opened.metadata()[IMAGES])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return {}


def _files_in(place: Path) -> Iterator[Path]:
    with suppress(OSError):
        yield from sorted(p for p in place.iterdir() if p.suffix == ENDING)
