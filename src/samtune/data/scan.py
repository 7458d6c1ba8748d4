"""A check of every file before training starts, so that no broken file stops it half way.

Training and ``samtune data check`` use the same function, so both accept the same files.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samtune.data.config import DataConfig
from samtune.data.intensity import policy_of
from samtune.data.labels import (
    Labels,
    areas,
    check_size,
    components,
    label_objects,
    read_values,
)
from samtune.data.problems import DataError, Finding, remarks
from samtune.data.reading import image_size, read_image
from samtune.data.sources import Record
from samtune.data.turning import remark_turn, upright
from samtune.errors import InputError
from samtune.interrupts.boundaries import end_if_stopped

TINY = 16
"""Objects with fewer pixels get a remark."""
MOST_VALUES = 256
"""The values of a mask are kept only if there are at most this many."""
SPECK = 0.1
"""Fraction of a mask's largest region below which a region is too small to count as an object."""


@dataclass(frozen=True)
class Summary:
    """The contents of a data set."""

    images: int
    objects: int
    empty: int
    """Number of images without any object, which are legal."""
    class_objects: dict[int, int]
    """Objects of each class that occurs."""
    most_objects: int
    """Largest number of objects in one image."""
    smallest: tuple[int, int]
    """Least height and least width of the images."""
    largest: tuple[int, int]
    """Greatest height and greatest width."""
    ignored: float
    """Fraction of all pixels whose label is ignored."""


@dataclass(frozen=True)
class Look:
    """The contents of one pair of files, and all of its problems."""

    record: Record
    size: tuple[int, int] = (0, 0)
    """Height and width of the image in pixels."""
    class_objects: Mapping[int, int] = field(default_factory=dict)
    """Objects of each class that occurs."""
    ignored: int = 0
    """Number of pixels whose label is ignored."""
    problems: tuple[InputError, ...] = ()
    """The reasons why training cannot use the pair."""
    class_pixels: Mapping[int, int] = field(default_factory=dict)
    """Pixels of each class that occurs; like all fields below, only set by a thorough look."""
    tiny: int = 0
    """Number of objects with less than :data:`TINY` pixels."""
    least_area: int = 0
    """Pixels of the smallest object."""
    values: Mapping[int, int] = field(default_factory=dict)
    """Mask value -> its pixels, as stored; empty if there are more than :data:`MOST_VALUES`."""
    value_count: int = 0
    """Number of different values of the mask."""
    content: str = ""
    """A hash of the image's pixels and size; empty if it cannot be read."""
    mask_content: str = ""
    """A hash of the mask's values."""
    regions: int = 0
    """Number of connected regions of a one-object mask, without specks."""
    remarks: tuple[Finding, ...] = ()
    """The remarks of the file readers."""

    @property
    def objects(self) -> int:
        """Number of objects."""
        return sum(self.class_objects.values())


class Histogram(Mapping[int, int]):
    """How often each value occurs, in less memory than a dictionary, since each image has one.

    Args:
        values: An array of whole numbers of any shape.
    """

    def __init__(self, values: NDArray[np.integer]) -> None:
        if values.dtype in (np.uint8, np.uint16):
            counts = np.bincount(values.ravel())
            self._values = np.flatnonzero(counts)
            self._counts = counts[self._values]
        else:
            self._values, self._counts = np.unique(values, return_counts=True)
        if len(self) and -(2**31) <= self._values[0] and self._values[-1] < 2**31:
            self._values = self._values.astype(np.int32)

    def __getitem__(self, value: int) -> int:
        place = int(np.searchsorted(self._values, value))
        if place == len(self) or self._values[place] != value:
            raise KeyError(value)
        return int(self._counts[place])

    def __iter__(self) -> Iterator[int]:
        return iter(self._values.tolist())

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(dict(self))


def look(record: Record, data: DataConfig, thorough: bool = False) -> Look:
    """Reads a mask, and of the image the header and the end if the format has both.

    Args:
        record: The files; problems are returned, not raised.
        data: How masks are read.
        thorough: Decode the image too, and measure the objects.
    """
    with remarks() as notes:  # in the thread that reads
        met = _look(record, data, thorough)
    return replace(met, remarks=tuple(dict.fromkeys(notes)))


def _look(record: Record, data: DataConfig, thorough: bool) -> Look:
    problems: list[InputError] = []
    size, content = None, ""
    try:
        if thorough:
            image = read_image(record.image, policy_of(data))
            size, content = (image.shape[0], image.shape[1]), _digest(image)
        else:
            size = image_size(record.image)
    except InputError as error:
        problems.append(error)
    try:
        values, source = read_values(record, data)
    except InputError as error:
        return Look(record, size or (0, 0), problems=(*problems, error), content=content)
    stored = Histogram(values) if thorough else {}
    count = len(stored)
    class_objects, class_pixels, least, tiny, ignored, regions = {}, {}, 0, 0, 0, 0
    try:
        if size is not None:
            values = upright(record, values, size, data)
            check_size(record, values, size)
    except InputError as error:
        problems.append(error)
    try:
        labels = label_objects(values, data, source)
        class_objects = dict(sorted(Counter(labels.classes.tolist()).items()))
        ignored = 0 if labels.valid is None else int((~labels.valid).sum())
        if thorough:
            pixels = areas(labels.map, len(labels))
            tiny, least = int((pixels < TINY).sum()), int(pixels.min(initial=np.iinfo("i8").max))
            class_pixels = _pixels_by_class(labels, pixels, stored, data)
        if thorough and len(labels) == 1 and data.masks in ("auto", "binary"):
            regions = _regions(labels, data)
        if thorough and size is not None:
            remark_turn(record, values, size, data)
    except InputError as error:
        problems.append(error)
    return Look(
        record,
        size or (0, 0),
        class_objects,
        ignored,
        tuple(problems),
        class_pixels,
        tiny,
        least,
        stored if count <= MOST_VALUES else {},
        count,
        content,
        _digest(values) if thorough else "",
        regions,
    )


def _pixels_by_class(
    labels: Labels, pixels: NDArray[np.int64], stored: Mapping[int, int], data: DataConfig
) -> dict[int, int]:
    """Pixels of each class: of class maps by their values, otherwise by the objects' areas."""
    if data.masks == "classes":
        return {value: n for value, n in stored.items() if value != data.ignore}
    kinds, places = np.unique(labels.classes, return_inverse=True)
    sums = np.bincount(places, pixels, minlength=len(kinds)).astype(np.int64)
    return dict(zip(kinds.tolist(), sums.tolist(), strict=True))


def _regions(labels: Labels, data: DataConfig) -> int:
    """The objects into which ``data.objects=component`` would split one object, without specks."""
    numbers, classes = components(labels.map > 0, data.connectivity)
    sizes = areas(numbers, len(classes))
    return int((sizes > SPECK * sizes.max(initial=0)).sum())


def looks(
    records: Sequence[Record], data: DataConfig, thorough: bool = False
) -> Generator[Look, None, None]:
    """Looks at all records with several threads, and yields the results in order."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        jobs = deque(pool.submit(look, record, data, thorough) for record in records)
        try:
            while jobs:
                end_if_stopped()
                yield jobs.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def scan(records: Sequence[Record], data: DataConfig) -> Summary:
    """Checks all files (readable, sizes equal, mask values legal), and counts their contents.

    Masks are read completely; of images only the header and the end, if the format has both.

    Raises:
        InputError: A record cannot be used (the first one is named), or there is none.
    """
    if not records:
        raise InputError(f"{data.root}: the data set is empty; add image and mask pairs")
    return summary_of(usable(records, data))


def usable(records: Sequence[Record], data: DataConfig, thorough: bool = False) -> list[Look]:
    """Looks at all records and refuses unusable ones.

    Raises:
        InputError: Training cannot use a record; the first one is named.
    """
    all_looks = []
    with closing(looks(records, data, thorough)) as each_look:  # an error cancels the pending looks
        for each in each_look:
            if each.problems:
                raise each.problems[0]
            all_looks.append(each)
    return all_looks


def summary_of(all_looks: Sequence[Look]) -> Summary:
    """The contents of all pairs together; there must be at least one."""
    sizes = np.array([each.size for each in all_looks])
    counts = [each.objects for each in all_looks]
    of_classes = Counter[int]()
    for each in all_looks:
        of_classes.update(each.class_objects)
    least, most = sizes.min(0), sizes.max(0)
    return Summary(
        images=len(all_looks),
        objects=sum(counts),
        empty=counts.count(0),
        class_objects=dict(sorted(of_classes.items())),
        most_objects=max(counts),
        smallest=(int(least[0]), int(least[1])),
        largest=(int(most[0]), int(most[1])),
        ignored=sum(each.ignored for each in all_looks) / int(sizes.prod(1).sum()),
    )


def empty_split(name: str, data: DataConfig) -> InputError:
    """The error for a split without a pair."""
    remedy = "add pairs, or let one split be made of all"
    return DataError(data.place, "empty split", f"the {name} split is empty", remedy)


def no_objects(images: int, data: DataConfig) -> InputError:
    """The error for training masks without any object."""
    what = f"none of the {images} training masks has an object"
    return DataError(data.place, "no objects", what, "check the files and the setting data.masks")


def _digest(image: NDArray[Any]) -> str:
    return blake2b(image.tobytes(), salt=str(image.shape[1]).encode()[:16]).hexdigest()
