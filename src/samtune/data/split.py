"""A split of a data set: labelled images in an order, without a word about any model."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from samtune.data.config import DataConfig
from samtune.data.labels import read_sample
from samtune.data.record import Record
from samtune.errors import InputError
from samtune.options import speaks_python

TINTS = ((230, 90, 40), (40, 130, 220), (60, 170, 90), (200, 60, 160), (220, 180, 40))
"""RGB colours of the objects in a picture, one after the other."""
_NAMES_IN_LINE = 8


@dataclass(frozen=True, repr=False, eq=False)
class LabelledImage:
    """One image with its objects, in the image's own frame. ``image, mask = it`` takes it apart."""

    image: NDArray[np.uint8]
    """``(h, w, 3)`` RGB."""
    mask: NDArray[np.integer]
    """``(h, w)``: 0 for no object, ``k + 1`` for object ``k``."""
    classes: NDArray[np.int64]
    """``(K,)``: the class of each object, 0 if there is only one."""
    name: str
    valid: NDArray[np.bool_] | None = None
    """``(h, w)``: false where the label is to be ignored; ``None`` if it counts everywhere."""

    @property
    def masks(self) -> NDArray[np.bool_]:
        """``(K, h, w)``: the objects one by one."""
        numbers = np.arange(1, len(self.classes) + 1, dtype=self.mask.dtype)
        return self.mask[None] == numbers[:, None, None]

    def __iter__(self) -> Iterator[NDArray]:
        yield self.image
        yield self.mask

    def __repr__(self) -> str:
        h, w = self.mask.shape
        count = len(self.classes)
        objects = f"{count} object{'' if count == 1 else 's'}"
        return f"LabelledImage({self.name!r}, {w}x{h} pixels, {objects})"

    def _repr_png_(self) -> bytes:
        """The image with its objects tinted, as notebooks show it."""
        tints = np.array([(0, 0, 0), *TINTS], np.float32)
        which = np.where(self.mask > 0, (self.mask.astype(np.int64) - 1) % len(TINTS) + 1, 0)
        blend = np.where(
            self.mask[..., None] > 0, 0.5 * self.image + 0.5 * tints[which], self.image
        )
        file = io.BytesIO()
        Image.fromarray(blend.astype(np.uint8)).save(file, "PNG")
        return file.getvalue()


@dataclass(frozen=True, repr=False)
class Split(Sequence[LabelledImage]):
    """A sequence of labelled images, known by their records and the settings that read them.

    ``split[3]`` reads one image with its mask; ``split[:16]`` and ``split[[0, 5]]`` are splits of
    these images, and nothing is read. :func:`samtune.prepare` makes of it what a model is trained
    or measured on.
    """

    records: tuple[Record, ...]
    """The images with their masks; see :class:`samtune.data.record.Record`."""
    config: DataConfig
    """How they are read, and how training images change."""
    name: str = field(default="", compare=False)
    """``train``, ``val`` or ``test``; empty if it is none of them."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the images: their files' stems, or what stands for them."""
        return tuple(record.name for record in self.records)

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, index: int) -> LabelledImage: ...

    @overload
    def __getitem__(self, index: slice | Sequence[int] | NDArray) -> Split: ...

    @speaks_python()
    def __getitem__(self, index: int | slice | Sequence[int] | NDArray) -> LabelledImage | Split:
        """One image, or the split of several; see the class.

        Raises:
            IndexError: There is no such image.
            InputError: A broken file, or mask values against the rules.
        """
        if isinstance(index, slice):
            return replace(self, records=self.records[index])
        if isinstance(index, int | np.integer):
            if not -len(self) <= index < len(self):
                raise IndexError(f"{index}: {self.name or 'the split'} has {len(self)} images")
            sample = read_sample(self.records[index], self.config)
            labels = sample.labels
            return LabelledImage(
                sample.image, labels.map, labels.classes, sample.name, labels.valid
            )
        if isinstance(index, str):
            raise InputError(f"{index}: images have numbers; split.names.index({index!r}) is that")
        rows = np.arange(len(self))[np.asarray(index, None if len(index) else int)]
        return replace(self, records=tuple(self.records[i] for i in rows))

    def __add__(self, other: Split) -> Split:
        """The images of both, each once.

        Raises:
            InputError: They are read in different ways.
        """
        if not isinstance(other, Split):
            return NotImplemented
        if other.config != self.config:
            raise InputError(
                "two splits whose images are read by different settings cannot be joined; open "
                "both with the same settings"
            )
        return Split(tuple(dict.fromkeys((*self.records, *other.records))), self.config)

    def __repr__(self) -> str:
        names = ", ".join(self.names[:_NAMES_IN_LINE]) + (
            ", ..." if len(self) > _NAMES_IN_LINE else ""
        )
        count = f"{len(self)} image{'' if len(self) == 1 else 's'}"
        return f"Split({self.name or 'of a data set'}, {count}{': ' if names else ''}{names})"
