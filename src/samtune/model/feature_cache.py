"""A cache of the results of a frozen encoder for each image, in memory and on disk.

It serves the blocks before the first one that an adapter changes (``Adapter.first_block``): their
streams only depend on the pixels and the base, so each image has to pass them only once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from samtune.model.feature_store import FeatureStore

Streams = dict[int, Tensor]
"""An encoder's results by number: -1 is the patch embedding, ``i`` is the output of block ``i``,
each ``(B, H, W, C)`` and only if something reads it; the number of blocks stands for the image
embedding ``(B, C, H, W)``."""


@dataclass(frozen=True)
class CachedImage:
    """The streams of one image, each ``(1, ...)``, as they are stored."""

    streams: Streams
    computed_in: Mapping[int, torch.dtype]
    """The dtype in which each was computed, and is given back."""

    @classmethod
    def of(cls, streams: Streams, half: bool) -> CachedImage:
        """Streams as they will be stored, still on their device.

        Args:
            streams: The streams of one image.
            half: Store single precision as half precision, if no value is too large for it.
        """
        stored = {n: _halved(t) if half else t for n, t in streams.items()}
        return cls(stored, {n: t.dtype for n, t in streams.items()})

    @property
    def nbytes(self) -> int:
        """Bytes that the streams take."""
        return sum(t.nbytes for t in self.streams.values())

    def in_memory(self) -> CachedImage:
        """A copy in the CPU's memory, which holds on to no batch and to no file."""
        copies = {n: t.to("cpu", copy=True) for n, t in self.streams.items()}
        return CachedImage(copies, self.computed_in)


class FeatureCache:
    """Streams by a digest of the pixels.

    In memory the first images stay. If more images than fit are read in random order, a cache of
    the latest images would drop most of those needed next. Validation images are needed less often,
    so they make room for training images.

    Args:
        budget: Bytes of the CPU's memory that all streams together may take.
        half: Store single precision as half precision. What is computed is then rounded in the
            same way before its first use, so that nothing depends on what was cached.
        store: Keeps streams on disk as well.
    """

    def __init__(self, budget: int, half: bool = False, store: FeatureStore | None = None) -> None:
        self.budget, self.half, self.store = budget, half, store
        self.used = 0
        """Bytes of memory that the streams take."""
        self._images: dict[bytes, CachedImage] = {}
        self._yielding: dict[bytes, None] = {}
        """The keys of validation images, in the order in which they came."""
        self._left_out: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._images)

    @property
    def left_out(self) -> int:
        """Number of images that did not fit."""
        return len(self._left_out)

    def beside(self, read: frozenset[int]) -> FeatureCache:
        """Another cache of the same size for other streams of the same base, on the same disk.

        Args:
            read: The numbers of those streams.
        """
        store = None if self.store is None else self.store.beside(read)
        return FeatureCache(self.budget, self.half, store)

    def streams(
        self, pixels: Tensor, encode: Callable[[Tensor], Streams], yielding: bool = False
    ) -> Streams:
        """The streams of a batch; only images that are not in the cache are encoded.

        Args:
            pixels: ``(B, 3, h, w)`` normalised.
            encode: Computes the streams of such a batch, without gradients.
            yielding: Whether this batch makes room for others that do not yield.

        Returns:
            Streams on the device of ``pixels``.
        """
        keys = _keys(pixels)
        for key in () if yielding else keys:
            self._yielding.pop(key, None)
        images = {key: image for key in keys if (image := self._find(key, yielding)) is not None}
        missing = [i for i, key in enumerate(keys) if key not in images]
        if not missing:
            return _join([images[key] for key in keys], pixels.device)
        whole = len(missing) == len(keys)
        encoded = encode(pixels if whole else pixels[missing])
        for at, i in enumerate(missing):
            row = {n: t[at : at + 1] for n, t in encoded.items()}
            images[keys[i]] = CachedImage.of(row, self.half)
            self._keep(keys[i], images[keys[i]], yielding)
        if whole and not self.half:
            return encoded
        return _join([images[key] for key in keys], pixels.device)

    def flush(self) -> None:
        """Writes what waits to be written to disk."""
        if self.store is not None:
            self.store.flush()

    def _find(self, key: bytes, yielding: bool) -> CachedImage | None:
        image = self._images.get(key)
        if image is None and self.store is not None:
            image = self.store.get(key.hex())
            if image is not None:
                self._hold(key, image, yielding)
        return image

    def _keep(self, key: bytes, image: CachedImage, yielding: bool) -> None:
        """Holds on to a computed image in memory, on disk, or both."""
        stored = self.store is not None and self.store.put(key.hex(), image)
        if self._hold(key, image, yielding) or stored:
            self._left_out.discard(key)
        else:
            self._left_out.add(key)

    def _hold(self, key: bytes, image: CachedImage, yielding: bool) -> bool:
        """Holds an image in memory, if there is room for it."""
        if key in self._images:  # twice in one batch
            return True
        size = image.nbytes
        if not yielding and size <= self.budget:
            while self.used + size > self.budget and self._yielding:
                self._drop(self._yielding.popitem()[0])
        if self.used + size > self.budget:
            return False
        if yielding:
            self._yielding[key] = None
        self._images[key] = image.in_memory()
        self.used += size
        return True

    def _drop(self, key: bytes) -> None:
        self.used -= self._images.pop(key).nbytes
        if self.store is None or not self.store.has(key.hex()):
            self._left_out.add(key)


def _halved(tensor: Tensor) -> Tensor:
    if tensor.dtype != torch.float32:
        return tensor
    half = tensor.to(torch.float16)
    return half if bool(half.isfinite().all()) else tensor


def _join(images: Sequence[CachedImage], device: torch.device) -> Streams:
    first = images[0]
    return {
        n: _batch([image.streams[n] for image in images], first.computed_in[n], device)
        for n in first.streams
    }


def _batch(rows: list[Tensor], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Rows ``(1, ...)`` as a batch with their memory layout, because kernels round by layout."""
    one = rows[0]
    size, stride = (len(rows), *one.shape[1:]), (one.numel(), *one.stride()[1:])
    batch = torch.empty_strided(size, stride, dtype=dtype, device=device)
    for place, row in zip(batch, rows, strict=True):
        place.copy_(row[0])
    return batch


def _keys(pixels: Tensor) -> list[bytes]:
    """A digest for each image: of its pixels, its size, and the arithmetic of the encoder."""
    kind = pixels.device.type
    cast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    how = f"{kind} {tuple(pixels.shape[1:])} {pixels.dtype} {cast}".encode()
    images = pixels.detach().cpu().contiguous().view(torch.uint8).numpy()
    keys = [hashlib.sha256(how) for _ in images]
    for key, image in zip(keys, images, strict=True):
        key.update(image)
    return [key.digest() for key in keys]
