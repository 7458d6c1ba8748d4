"""Formats of predictions: their contract, and their registry."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from samtune.data import Record
from samtune.errors import InputError, OutputError, check_packages, nearest
from samtune.geometry import InputPolicy
from samtune.inference.everything.instances import Instances
from samtune.inference.outlines import TOLERANCE, Outlines, regions_of
from samtune.registry import Registry
from samtune.report.classes import Classes

PNG = "png"
"""The format that is written image by image, and by default; all others follow at the end."""
PNG_ABOUT = "NAME.png: 255 where any mask is, or the class of each pixel"
OBJECT = "object"
"""The class of everything, if a model knows none."""


class Thing(NamedTuple):
    """One object of an image, or one region of a class."""

    mask: NDArray[np.bool_]
    """``(h, w)``."""
    category: int
    """Its place among :attr:`Task.categories`."""
    score: float


@dataclass(frozen=True)
class Predicted:
    """The answer to the prompts of one image, as it was kept."""

    record: Record
    label: str
    """The name of the image in files."""
    size: tuple[int, int]
    """Height and width."""
    entries: list[dict[str, Any]]
    """The masks as ``predictions.json`` has them."""
    is_by_prompt: bool
    """Whether each entry answers a prompt, and so is one object whatever its regions."""
    raster: Path | None = None
    """The mask, if it was written tile by tile; there are no entries then."""
    is_numbered: bool = False
    """Whether maps of one image number its masks."""

    def things(self, categories: Sequence[int | None]) -> Iterator[Thing]:
        """The objects that have any pixel; of what was not asked for one by one, the regions.

        Args:
            categories: The class of each category, see :class:`Task`.
        """
        for entry in self.entries:
            value = entry.get("category_id")
            if value not in categories:  # of the background
                continue
            mask, category = mask_of(entry), categories.index(value)
            if not mask.any():
                continue
            for part in [mask] if self.is_by_prompt else regions_of(mask):
                yield Thing(part, category, entry["score"])

    def numbers(self) -> NDArray[np.integer]:
        """``(h, w)``: the number of the mask of each pixel, from 1, if they are numbered.

        Else it is :meth:`labels`.
        """
        if not self.is_numbered:
            return self.labels()
        kind = np.uint16 if len(self.entries) <= np.iinfo(np.uint16).max else np.uint32
        return Instances.of_entries(self.entries, self.size).label_map().astype(kind)

    def labels(self) -> NDArray[np.integer]:
        """``(h, w)``: 1 where any mask is, or the class of each pixel."""
        classes = [entry["category_id"] for entry in self.entries if "category_id" in entry]
        labels = np.zeros(self.size, np.uint8 if max(classes, default=0) < 256 else np.uint16)
        for entry in reversed(self.entries):  # where classes overlap, the first counts
            labels[mask_of(entry)] = entry.get("category_id", 1)
        return labels


def mask_of(entry: dict[str, Any]) -> NDArray[np.bool_]:
    """The mask ``(h, w)`` of an entry."""
    from pycocotools import mask as coco

    rle = entry["segmentation"]
    return coco.decode({**rle, "counts": rle["counts"].encode("ascii")}).astype(bool)


@dataclass(frozen=True)
class Task:
    """The values that all images of a prediction have in common."""

    source: str
    """The source, for messages."""
    policy: InputPolicy
    """How images are read."""
    classes: Classes | None = None
    """The names of the classes, for a model that answers with classes."""
    count: int = 0
    """How many classes it has."""
    tolerance: float = TOLERANCE
    """The tolerance of outlines, in pixels."""

    @cached_property
    def outlines(self) -> Outlines:
        """The polygons of objects, which all formats share."""
        return Outlines(self.tolerance)

    @cached_property
    def categories(self) -> list[int | None]:
        """The classes but the background in their order; ``None`` alone if there are none."""
        if self.classes is None:
            return [None]
        return [value for value in range(self.count) if value != self.classes.background]

    @cached_property
    def names(self) -> list[str]:
        """The names of the categories; those that occur twice have their number behind them."""
        if self.classes is None:
            return [OBJECT]
        values = [value for value in self.categories if value is not None]
        return [*self.classes.distinct(values).values()]


Trouble = tuple[Predicted, InputError]
"""An image that a format cannot hold, and why."""


class Writer:
    """One format of predictions. A subclass is one module of ``samtune.inference.writers``.

    Args:
        task: The predictions to write, and the place for them.
    """

    name: ClassVar[str]
    """Set by the registry."""
    about: ClassVar[str]
    """The tools that read it, and its files, in a few words."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Packages that it needs."""
    extra: ClassVar[str] = ""
    """The extra of samtune that installs them."""
    streams: ClassVar[bool] = False
    """Whether it takes a raster whose mask was written tile by tile, see :mod:`.rasters`."""

    def __init__(self, task: Task) -> None:
        self.task = task

    @classmethod
    def check_installed(cls) -> None:
        """Refuses to go on without a package that the format needs.

        Raises:
            InputError: With the packages that are missing.
        """
        check_packages(f"--as {cls.name}", cls.needs, cls.extra)

    def check(self, records: Sequence[Record]) -> None:
        """Refuses images that the format cannot hold, before anything is read.

        Args:
            records: All images.

        Raises:
            InputError: With the first of them, and what to do instead.
        """

    def write(self, results: Iterable[Predicted], folder: Path) -> Iterator[Trouble]:
        """Writes all images.

        Args:
            results: The result of each image that is done, in order.
            folder: Empty; it takes its place when all is written.

        Yields:
            What it cannot hold; the others are written all the same.
        """
        for result in results:
            try:
                self.write_one(result, folder)
            except OutputError:
                raise
            except InputError as error:
                yield result, error

    def write_one(self, result: Predicted, folder: Path) -> None:
        """Writes one image.

        Raises:
            InputError: The format cannot hold it.
        """
        raise NotImplementedError(f"{self.name} defines neither write nor write_one")

    def things(self, result: Predicted) -> Iterator[Thing]:
        """The objects of an image, see :meth:`Predicted.things`."""
        return result.things(self.task.categories)


WRITERS: Registry[Writer] = Registry("format", "--as", "samtune.inference.writers")
"""All formats but PNG, by name."""


def chosen_formats(words: Sequence[str]) -> list[str]:
    """The formats that words name, joined by commas or one each.

    Raises:
        InputError: An unknown name, none, or a package that is not installed.
    """
    names = [name.strip() for word in words for name in word.split(",") if name.strip()]
    known = [PNG, *WRITERS]
    if not names:
        raise InputError(
            f"--as {','.join(words)}: names no format; give some of {', '.join(known)}"
        )
    for name in names:
        if name not in known:
            raise InputError(
                f"--as {name}: must be one of {', '.join(known)}{nearest(name, known)}"
            )
        if name != PNG:
            WRITERS[name].check_installed()
    return list(dict.fromkeys(names))
