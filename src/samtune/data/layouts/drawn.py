"""Masks stored as outlines or run lengths of objects, and drawn when they are read."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from samtune.data.problems import DataError, remark_invisible
from samtune.data.reading import image_size
from samtune.data.stored import Stored

Kind = Literal["instance", "classes", "binary"]
_FAR = 100
"""Distance in image sides from which a corner is a mistake, not an object at the edge."""
IGNORED = -1
"""Value of the pixels of a crowd that no single object covers."""


class Shape(NamedTuple):
    """One object."""

    category: int
    """Its class, from 0."""
    segmentation: Any
    """COCO's form: a list of polygons ``[x0, y0, x1, y1, ...]`` in pixels, or run lengths."""
    crowd: bool = False
    """Whether it is a group of objects that are not separated; its pixels are ignored."""
    name: str = ""
    """Its name within the file, for messages."""
    level: int = 0
    """Objects of a higher level cover those of a lower one, whatever their size."""


@dataclass(frozen=True)
class DrawnMask(Stored):
    """A label map of objects that may overlap: within a level, smaller ones cover larger ones.

    Of two objects with the same area, the later one covers the other. Crowds lie below all objects.
    Objects without a pixel in the map get a remark.
    """

    kind: Kind
    """``instance``: object ``k`` is ``k + 1``; ``classes``: class ``c`` is ``c + 1``; ``binary``:
    any object is 1. No object is 0, a crowd :data:`IGNORED`."""

    @abstractmethod
    def shapes(self) -> list[Shape]:
        """The objects in the order of the file."""

    def read(self) -> NDArray[np.int32]:
        """``(h, w)``, see the class."""
        size = self.size()
        labels = np.zeros(size, np.int32)
        shapes = self.shapes()
        masks = self._masks(shapes, size)
        areas = np.array([mask.sum() for mask in masks], np.int64)
        order = sorted(range(len(shapes)), key=lambda i: (shapes[i].level, -areas[i]))
        on_top = np.zeros(size, np.int32)
        for i in [i for i in order if shapes[i].crowd]:
            labels[masks[i]] = IGNORED
        for i in [i for i in order if not shapes[i].crowd]:
            category = shapes[i].category
            labels[masks[i]] = {"instance": i, "classes": category, "binary": 0}[self.kind] + 1
            on_top[masks[i]] = i + 1
        crowds = {i for i, shape in enumerate(shapes) if shape.crowd}
        remark_invisible(self.path, areas, on_top, [shape.name for shape in shapes], crowds)
        return labels

    def _masks(self, shapes: list[Shape], size: tuple[int, int]) -> list[NDArray[np.bool_]]:
        """The mask of each object; if several are wrong, the first error gives their number."""
        masks, wrong = [], []
        for shape in shapes:
            try:
                masks.append(mask_of(shape.segmentation, size, self.path, shape.name))
            except DataError as error:
                wrong.append(error)
        if wrong:
            raise with_count(wrong, "objects")
        return masks

    def object_classes(self) -> tuple[int, ...] | None:
        """The class of each object of an instance map."""
        return tuple(s.category for s in self.shapes()) if self.kind == "instance" else None


@dataclass(frozen=True)
class ListedMask(DrawnMask):
    """The objects of one image, kept as JSON text."""

    height: int
    width: int
    objects: str
    """A list of the fields of :class:`Shape` per object."""
    image: Path | Stored | None = None
    """The image, if the file does not give its size."""

    def size(self) -> tuple[int, int]:
        """The size from the annotation file; images of another size are refused later."""
        return image_size(self.image) if self.image else (self.height, self.width)

    def shapes(self) -> list[Shape]:
        """The objects in the order of the file."""
        return [Shape(*each) for each in json.loads(self.objects)]


def kind_of(masks: str) -> Kind:
    """The kind of map to draw for ``data.masks``; ``auto`` means objects."""
    return "instance" if masks == "auto" else masks  # type: ignore[return-value]


def class_settings(names: list[str], masks: str) -> dict[str, Any]:
    """Settings of ``data`` for named classes, for a class map or objects as ``masks`` requests."""
    if masks == "binary":
        return {"masks": masks, "ignore": IGNORED}
    if masks == "classes":
        names = ["background", *names]
        kind: dict[str, Any] = {"masks": masks, "background": 0}
    else:
        kind = {"masks": "instance"}
    return {**kind, "classes": len(names), "class_names": tuple(names), "ignore": IGNORED}


def with_count(wrong: Sequence[DataError], what: str) -> DataError:
    """The first of several errors of one file, with the number of the others."""
    first, more = wrong[0], len(wrong) - 1
    if not more:
        return first
    found = f"{first.what}, and {more} more {what} of the image are wrong"
    return DataError(first.file, first.kind, found, first.remedy)


def mask_of(
    segmentation: Any, size: tuple[int, int], path: Path | str, name: str = ""
) -> NDArray[np.bool_]:
    """Draws polygons or run lengths, compressed or not, into a mask ``(h, w)``.

    Args:
        segmentation: In the form of :class:`Shape`.
        size: Height and width.
        path: The file, for messages.
        name: The object's name in it.

    Raises:
        InputError: It has neither form, or run lengths do not fill the size.
    """
    from pycocotools import mask as coco

    h, w = size
    if isinstance(segmentation, list):
        outline = polygons_of(segmentation, size, path, name)
        runs = coco.merge(coco.frPyObjects(outline, h, w))
        return _filled(_counts(runs["counts"].decode("ascii")), size, path, name)
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        what = "a segmentation is neither polygons nor run lengths with size and counts"
        raise _wrong(path, name, "no outline", what, "export it again as COCO instances")
    if list(segmentation["size"] or ()) != [h, w]:
        what = (
            f"run lengths of size {segmentation['size']} for an image of {[h, w]} (height, width)"
        )
        raise _wrong(path, name, "wrong run lengths", what, "export the annotation again")
    counts = segmentation["counts"]
    return _filled(_counts(counts) if isinstance(counts, str) else counts, size, path, name)


def _wrong(path: Path | str, name: str, kind: str, what: str, remedy: str) -> DataError:
    return DataError(path, kind, f"{name}: {what}" if name else what, remedy)


def runs_of(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """The uncompressed run lengths of a mask ``(h, w)``."""
    flat = np.concatenate([[False], mask.T.ravel()])
    cuts = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate([[0], cuts, [mask.size]])).tolist()
    return {"size": list(mask.shape), "counts": counts}


def _counts(text: str) -> list[int]:
    """Run lengths from COCO's text, encoded as in pycocotools' ``maskApi.c``.

    They are decoded here because pycocotools accepts truncated text silently.
    """
    counts: list[int] = []
    value = shift = 0
    for byte in text.encode("ascii"):
        part = byte - 48
        value |= (part & 0x1F) << shift
        shift += 5
        if part & 0x20:
            continue
        if part & 0x10:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return counts


def _filled(
    counts: list[int], size: tuple[int, int], path: Path | str, name: str
) -> NDArray[np.bool_]:
    h, w = size
    runs = np.asarray(counts, np.int64)
    if runs.sum() != h * w or runs.min() < 0:
        what = f"run lengths add up to {runs.sum()}, but an image of {[h, w]} has {h * w} pixels"
        raise _wrong(path, name, "wrong run lengths", what, "export the annotation again")
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(w, h).T


def polygons_of(
    segmentation: list[Any], size: tuple[int, int], path: Path | str, name: str = ""
) -> list[list[float]]:
    """Polygons ``[x0, y0, x1, y1, ...]`` in pixels, also from other ways of writing them.

    One polygon may lack the list around it, and corners may be pairs.

    Args:
        segmentation: The polygons as in the file.
        size: Height and width of the image.
        path: The file, for messages.
        name: The object's name in it.

    Raises:
        InputError: There is no polygon, it has too few corners, or corners are not numbers within
            reach of the image.
    """
    if not segmentation:
        remedy = "annotate masks, or make them from the boxes with samtune predict"
        raise _wrong(path, name, "no outline", "an object has a box but no outline", remedy)
    if all(_is_number(v) for v in segmentation) or (
        len(segmentation) > 2 and all(_is_pair(v) for v in segmentation)
    ):
        segmentation = [segmentation]
    polygons = []
    for polygon in segmentation:
        flat = polygon
        if isinstance(polygon, list) and polygon and all(_is_pair(pair) for pair in polygon):
            flat = [value for pair in polygon for value in pair]
        numbers = isinstance(flat, list) and all(_is_number(v) for v in flat)
        if not numbers or len(flat) < 6 or len(flat) % 2:
            count = f"{len(flat)} numbers" if numbers else repr(polygon)[:40]
            what = f"a polygon of {count}; each needs x and y of at least three corners"
            raise _wrong(path, name, "wrong polygon", what, "draw it again or remove it")
        far = [v for v in flat if not abs(v) <= _FAR * max(size)]
        if far:
            what = f"a polygon with the corner {far[0]}, but the image is {size[1]}x{size[0]}"
            raise _wrong(path, name, "wrong polygon", what, "draw it again or remove it")
        polygons.append([float(v) for v in flat])
    return polygons


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_is_number(v) for v in value)
