"""One look at every file before training starts, so that nothing is found broken half way."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from samtune.data.config import DataConfig
from samtune.data.labels import read_labels
from samtune.data.reading import image_size
from samtune.data.sources import Record
from samtune.errors import InputError


@dataclass(frozen=True)
class Summary:
    """What a data set holds."""

    images: int
    objects: int
    empty: int
    """Images without any object; they are legal."""
    class_objects: dict[int, int]
    """Objects of each class that occurs."""
    most_objects: int
    """Objects of the image that has most."""
    smallest: tuple[int, int]
    """Least height and least width of the images."""
    largest: tuple[int, int]
    """Greatest height and greatest width."""
    ignored: float
    """Part of all pixels whose label is to be ignored."""


@dataclass(frozen=True)
class _Look:
    size: tuple[int, int]
    classes: tuple[int, ...]
    ignored: int


def scan(records: Sequence[Record], data: DataConfig) -> Summary:
    """Checks all files: readable, sizes equal, mask values legal; and counts.

    Masks are read; of images the header and the end, where the format has both.

    Raises:
        InputError: For the first record, in their order, that cannot be used, or if there is none.
    """
    if not records:
        raise InputError(f"{data.root}: the data set is empty; add image and mask pairs")
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        jobs = [pool.submit(_look, record, data) for record in records]
        try:
            looks = [job.result() for job in jobs]
        except InputError:
            pool.shutdown(cancel_futures=True)
            raise
    sizes = np.array([look.size for look in looks])
    counts = [len(look.classes) for look in looks]
    least, most = sizes.min(0), sizes.max(0)
    return Summary(
        images=len(looks),
        objects=sum(counts),
        empty=counts.count(0),
        class_objects=dict(sorted(Counter(c for look in looks for c in look.classes).items())),
        most_objects=max(counts),
        smallest=(int(least[0]), int(least[1])),
        largest=(int(most[0]), int(most[1])),
        ignored=sum(look.ignored for look in looks) / int(sizes.prod(1).sum()),
    )


def _look(record: Record, data: DataConfig) -> _Look:
    size = image_size(record.image)
    labels = read_labels(record, data, size)
    ignored = 0 if labels.valid is None else int((~labels.valid).sum())
    return _Look(size, tuple(int(c) for c in labels.classes), ignored)
