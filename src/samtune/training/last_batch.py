"""The treatment of images that do not fill the last batch of an epoch."""

from __future__ import annotations

import math

from samtune.registry import Registry


class LastBatch:
    """How one process's images of an epoch become batches: here all batches that there are."""

    @staticmethod
    def batches(images: int, size: int) -> int:
        """How many batches of ``size`` so many images make."""
        return math.ceil(images / size)

    @staticmethod
    def images_dealt(images: int, size: int) -> int:
        """How many images the process gets, in batches of ``size``."""
        return images


LAST_BATCHES: Registry[LastBatch] = Registry("last batch", "train.last_batch", "samtune.published")
"""The values of ``train.last_batch``."""


@LAST_BATCHES.register("fill")
class FilledBatch(LastBatch):
    """The last batch is filled up with images that the epoch has shown."""

    @staticmethod
    def images_dealt(images: int, size: int) -> int:
        """The number of images in all full batches."""
        return math.ceil(images / size) * size


@LAST_BATCHES.register("short")
class ShortBatch(LastBatch):
    """The last batch has fewer images."""


@LAST_BATCHES.register("drop")
class DroppedBatch(LastBatch):
    """The last batch is left out, unless it is the only one."""

    @staticmethod
    def batches(images: int, size: int) -> int:
        """The full batches; one at least."""
        return max(1, images // size)
