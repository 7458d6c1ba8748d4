"""Masks that are given as outlines or run lengths of objects, and drawn when they are read."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from samtune.data.problems import DataError
from samtune.data.stored import Stored

Kind = Literal["instance", "classes", "binary"]
IGNORED = -1
"""Value of the pixels of a crowd that no single object covers."""


class Shape(NamedTuple):
    """One object."""

    category: int
    """Its class, from 0."""
    segmentation: Any
    """As COCO has it: a list of polygons ``[x0, y0, x1, y1, ...]`` in pixels, or run lengths."""
    crowd: bool = False
    """A group that is not told apart; its pixels are left out."""
    name: str = ""
    """What tells it apart in the file, for messages."""


@dataclass(frozen=True)
class DrawnMask(Stored):
    """A label map of objects that may overlap: smaller ones lie over larger ones.

    Of two of the same area the later one lies on top. Crowds lie below all objects.
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
        order = np.argsort(-areas, kind="stable").tolist()
        for i in [i for i in order if shapes[i].crowd]:
            labels[masks[i]] = IGNORED
        for i in [i for i in order if not shapes[i].crowd]:
            category = shapes[i].category
            labels[masks[i]] = {"instance": i, "classes": category, "binary": 0}[self.kind] + 1
        return labels

    def _masks(self, shapes: list[Shape], size: tuple[int, int]) -> list[NDArray[np.bool_]]:
        """The mask of each object; of several that are wrong, the first names the number."""
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


def kind_of(masks: str) -> Kind:
    """What to draw for ``data.masks``: ``auto`` means objects."""
    return "instance" if masks == "auto" else masks  # type: ignore[return-value]


def class_settings(names: list[str], masks: str) -> dict[str, Any]:
    """Settings of ``data`` for named classes of which ``masks`` wants a map or objects."""
    if masks == "binary":
        return {"masks": masks, "ignore": IGNORED}
    if masks == "classes":
        names = ["background", *names]
        kind: dict[str, Any] = {"masks": masks, "background": 0}
    else:
        kind = {"masks": "instance"}
    return {**kind, "classes": len(names), "class_names": tuple(names), "ignore": IGNORED}


def with_count(wrong: Sequence[DataError], what: str) -> DataError:
    """The first of several errors of one file, which says how many more there are."""
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
        segmentation: As :class:`Shape` has it.
        size: Height and width.
        path: The file, for messages.
        name: What tells the object apart there.

    Raises:
        InputError: Neither of these, or run lengths that do not fill the size.
    """
    from pycocotools import mask as coco

    h, w = size
    if isinstance(segmentation, list):
        _check_polygons(segmentation, path, name)
        outline = coco.merge(coco.frPyObjects(segmentation, h, w))
        return _filled(_counts(outline["counts"].decode("ascii")), size, path, name)
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        what = "a segmentation is neither polygons nor run lengths with size and counts"
        raise _wrong(path, name, "no outline", what, "export it again as COCO instances")
    if list(segmentation["size"]) != [h, w]:
        what = (
            f"run lengths of size {segmentation['size']} for an image of {[h, w]} (height, width)"
        )
        raise _wrong(path, name, "wrong run lengths", what, "export the annotation again")
    counts = segmentation["counts"]
    return _filled(_counts(counts) if isinstance(counts, str) else counts, size, path, name)


def _wrong(path: Path | str, name: str, kind: str, what: str, remedy: str) -> DataError:
    return DataError(path, kind, f"{name}: {what}" if name else what, remedy)


def _counts(text: str) -> list[int]:
    """Run lengths of COCO's text, written as pycocotools' ``maskApi.c`` says.

    pycocotools decodes text that is cut short without a word, so it is read here.
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


def _check_polygons(polygons: list[Any], path: Path | str, name: str) -> None:
    if not polygons:
        remedy = "annotate masks, or make them from the boxes with samtune predict"
        raise _wrong(path, name, "no outline", "an object has a box but no outline", remedy)
    for polygon in polygons:
        numbers = isinstance(polygon, list) and all(isinstance(v, int | float) for v in polygon)
        if not numbers or len(polygon) < 6 or len(polygon) % 2:
            count = f"{len(polygon)} numbers" if numbers else repr(polygon)[:40]
            what = f"a polygon of {count}; each needs x and y of at least three corners"
            raise _wrong(path, name, "wrong polygon", what, "draw it again or remove it")
