"""A memory cache of the results of a frozen encoder for each image.

It serves adapters that only read the encoder's streams (``Adapter.detached``): such streams only
depend on the pixels and the base, so each image has to be encoded only once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

Streams = dict[int, Tensor]
"""An encoder's results by number: -1 is the patch embedding, ``i`` is the output of block ``i``,
each ``(B, H, W, C)`` and only if something reads it; the number of blocks stands for the image
embedding ``(B, C, H, W)``."""


class FeatureCache:
    """Streams by a digest of the pixels, on the CPU, in the dtype in which they were computed.

    The first images stay. If more images than fit are read in random order, a cache of the latest
    images would drop most of those needed next. Validation images are needed less often, so they
    make room for training images.

    Args:
        budget: Bytes that all streams together may take.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.used = 0
        """Bytes that the streams take."""
        self._streams: dict[bytes, Streams] = {}
        self._yielding: dict[bytes, None] = {}
        """The keys of validation images, in the order in which they came."""
        self._left_out: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def left_out(self) -> int:
        """Number of images that did not fit."""
        return len(self._left_out)

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
        missing = [i for i, key in enumerate(keys) if key not in self._streams]
        if not missing:
            return _join([self._streams[key] for key in keys], pixels.device)
        whole = len(missing) == len(keys)
        encoded = encode(pixels if whole else pixels[missing])
        rows = {i: {n: t[at : at + 1] for n, t in encoded.items()} for at, i in enumerate(missing)}
        parts = [rows[i] if i in rows else self._streams[key] for i, key in enumerate(keys)]
        for i, row in rows.items():
            self._keep(keys[i], row, yielding)
        return encoded if whole else _join(parts, pixels.device)

    def _keep(self, key: bytes, streams: Streams, yielding: bool) -> None:
        size = _bytes(streams)
        if key in self._streams:  # twice in one batch
            return
        if not yielding and size <= self.budget:
            while self.used + size > self.budget and self._yielding:
                self._left_out.add(last := self._yielding.popitem()[0])
                self.used -= _bytes(self._streams.pop(last))
        if self.used + size > self.budget:
            self._left_out.add(key)
            return
        self._left_out.discard(key)
        if yielding:
            self._yielding[key] = None
        # a copy, because a row of a batch would keep the whole batch in memory
        self._streams[key] = {n: t.to("cpu", copy=True) for n, t in streams.items()}
        self.used += size


def _bytes(streams: Streams) -> int:
    return sum(t.nbytes for t in streams.values())


def _join(parts: list[Streams], device: torch.device) -> Streams:
    return {n: _batch([part[n] for part in parts], device) for n in parts[0]}


def _batch(rows: list[Tensor], device: torch.device) -> Tensor:
    """Rows ``(1, ...)`` as a batch with their memory layout, because kernels round by layout."""
    one = rows[0]
    size, stride = (len(rows), *one.shape[1:]), (one.numel(), *one.stride()[1:])
    batch = torch.empty_strided(size, stride, dtype=one.dtype, device=device)
    for place, row in zip(batch, rows, strict=True):
        place.copy_(row[0])
    return batch


def _keys(pixels: Tensor) -> list[bytes]:
    """A digest for each image: of its pixels, its size, and the arithmetic of the encoder."""
    kind = pixels.device.type
    cast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    how = f"{tuple(pixels.shape[1:])} {pixels.dtype} {cast}".encode()
    images = pixels.detach().cpu().contiguous().view(torch.uint8).numpy()
    keys = [hashlib.sha256(how) for _ in images]
    for key, image in zip(keys, images, strict=True):
        key.update(image)
    return [key.digest() for key in keys]
