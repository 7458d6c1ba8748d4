"""The instances of an image: masks as run lengths, with scores, boxes and more about each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from samtune.errors import InputError
from samtune.inference.everything.run_lengths import (
    Box,
    area_of,
    box_of,
    lengths,
    packed,
    unpacked,
)
from samtune.model.finetuned import FineTuned
from samtune.options import Settings
from samtune.precision import Precision

OUTPUT_MODES = ("binary_mask", "uncompressed_rle", "coco_rle")
"""The forms of a mask in :meth:`Instances.records`, by the official generator's names."""


@dataclass(frozen=True)
class Instances:
    """``N`` instances of one image of ``h w`` pixels; their masks may overlap.

    They are made by :meth:`of_masks` and :meth:`of_label_map`. ``len(instances)`` is ``N``.
    """

    size: tuple[int, int]
    """``(h, w)`` of the image."""
    counts: tuple[str, ...]
    """The mask of each as COCO's compressed run lengths over the whole image."""
    scores: NDArray[np.float32]
    """``(N,)``: how good each mask is, 0 to 1; of a model with prompts the IoU that it expects."""
    boxes: NDArray[np.int64]
    """``(N, 4)`` xyxy around each mask; the last column and row are not part of it."""
    areas: NDArray[np.int64]
    """``(N,)``: pixels of each mask."""
    stability: NDArray[np.float32] | None = None
    """``(N,)``: the IoU of the mask at a higher and at a lower threshold, if it was measured."""
    points: NDArray[np.float32] | None = None
    """``(N, 2)`` xy: the point that each answers, if it answers one."""
    classes: NDArray[np.int64] | None = None
    """``(N,)``: the class of each, if the model knows classes."""
    windows: NDArray[np.int64] | None = None
    """``(N, 4)`` xyxy: the part of the image that the model saw for each, if not all of it."""

    def __len__(self) -> int:
        return len(self.counts)

    @classmethod
    def of_masks(
        cls,
        masks: Iterable[NDArray[np.bool_]],
        size: tuple[int, int],
        scores: ArrayLike | None = None,
        *,
        classes: ArrayLike | None = None,
        points: ArrayLike | None = None,
    ) -> Instances:
        """Instances from masks; those without a pixel are left out.

        Args:
            masks: Each ``(h, w)`` bool; they are read one by one.
            size: ``(h, w)`` of the image.
            scores: The score of each mask; by default 1.
            classes: The class of each mask.
            points: ``(N, 2)`` xy of each mask.
        """
        counts = tuple(packed(mask, size=size) for mask in masks)
        return cls.of_counts(counts, size, scores, classes=classes, points=points)

    @classmethod
    def of_counts(
        cls,
        counts: Sequence[str],
        size: tuple[int, int],
        scores: ArrayLike | None = None,
        **others: ArrayLike | None,
    ) -> Instances:
        """Instances from run lengths; those without a pixel are left out.

        Args:
            counts: The counts, as in the field.
            size: ``(h, w)`` of the image.
            scores: The score of each mask; by default 1.
            **others: Further fields.

        Raises:
            ValueError: A field has another length than ``counts``.
        """
        kinds = {"classes": np.int64, "windows": np.int64}
        columns = {
            name: np.asarray(value, kinds.get(name, np.float32))
            for name, value in others.items()
            if value is not None
        }
        columns["scores"] = np.ones(len(counts)) if scores is None else np.asarray(scores)
        for name, value in columns.items():
            if len(value) != len(counts):
                raise ValueError(f"{name} of {len(value)} for {len(counts)} masks: give one each")
        boxes = np.array([box_of(each, size) for each in counts], np.int64).reshape(-1, 4)
        areas = np.array([area_of(each) for each in counts], np.int64)
        columns["scores"] = columns["scores"].astype(np.float32)
        every = cls(size, tuple(counts), boxes=boxes, areas=areas, **columns)  # type: ignore[arg-type]
        return every if areas.all() else every.only(areas > 0)

    @classmethod
    def of_label_map(
        cls,
        labels: NDArray[np.integer],
        scores: ArrayLike | None = None,
        *,
        classes: ArrayLike | None = None,
    ) -> Instances:
        """Instances from a map ``(h, w)`` of their numbers: 0 for none of them.

        Args:
            labels: The numbers may have gaps.
            scores: The score of each number that occurs, by rising number; by default 1.
            classes: Likewise.
        """
        size = (labels.shape[0], labels.shape[1])
        numbers, flat = np.unique(labels, return_inverse=True)
        places, index = np.zeros((2, len(numbers), 2), np.int64), flat.reshape(size)
        for axis, lines in enumerate((index.T, index)):  # of columns and of rows
            last = np.arange(len(lines))[:, None].repeat(lines.shape[1], 1)
            places[0, :, axis] = len(lines)
            np.minimum.at(places[0, :, axis], lines.ravel(), last.ravel())
            np.maximum.at(places[1, :, axis], lines.ravel(), last.ravel() + 1)
        counts = []
        for row in np.flatnonzero(numbers != 0):
            (x0, y0), (x1, y1) = places[:, row]
            counts.append(packed(index[y0:y1, x0:x1] == row, (int(x0), int(y0)), size))
        return cls.of_counts(counts, size, scores, classes=classes)

    @classmethod
    def none(cls, size: tuple[int, int]) -> Instances:
        """No instance, of an image of ``(h, w)`` pixels."""
        return cls.of_counts((), size)

    @classmethod
    def of_entries(cls, entries: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> Instances:
        """Instances from what :meth:`entries` gave, of an image of ``(h, w)`` pixels."""
        counts = [entry["segmentation"]["counts"] for entry in entries]
        has_classes = bool(entries) and all("category_id" in entry for entry in entries)
        known = [int(entry["category_id"]) for entry in entries] if has_classes else None
        return cls.of_counts(counts, size, [entry["score"] for entry in entries], classes=known)

    def only(self, rows: NDArray[np.integer] | NDArray[np.bool_] | Sequence[int]) -> Instances:
        """Some of the instances, by index or ``(N,)`` bool."""
        index = np.arange(len(self))[np.asarray(rows, dtype=None if len(rows) else np.int64)]
        per_row = {
            field.name: value[index]
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), np.ndarray)
        }
        return replace(self, counts=tuple(self.counts[i] for i in index), **per_row)

    @classmethod
    def cat(cls, parts: Sequence[Instances]) -> Instances:
        """Joins instances of one image; a field that one of the parts lacks is left out.

        Raises:
            ValueError: There is no part, or the images differ in size.
        """
        if len({part.size for part in parts}) != 1:
            raise ValueError(f"{len(parts)} parts must be of one image")
        values: dict[str, Any] = {}
        for name in (field.name for field in fields(cls) if field.name not in ("size", "counts")):
            arrays = [getattr(part, name) for part in parts]
            there = all(array is not None for array in arrays)
            values[name] = np.concatenate(arrays) if there else None
        return cls(parts[0].size, tuple(c for part in parts for c in part.counts), **values)

    def by_score(self) -> Instances:
        """A copy in the order of falling scores."""
        return self.only(np.argsort(-self.scores, kind="stable"))

    def mask(self, i: int) -> NDArray[np.bool_]:
        """The mask ``(h, w)`` of instance ``i``."""
        return unpacked(self.counts[i], self.size)

    def box(self, i: int) -> Box:
        """The box of instance ``i`` as whole numbers."""
        x0, y0, x1, y1 = self.boxes[i].tolist()
        return x0, y0, x1, y1

    def part(self, i: int) -> NDArray[np.bool_]:
        """The mask of instance ``i`` within its box alone."""
        return unpacked(self.counts[i], self.size, self.box(i))

    def masks(self) -> Iterator[NDArray[np.bool_]]:
        """The masks ``(h, w)``, one after another."""
        return (self.mask(i) for i in range(len(self)))

    def label_map(self) -> NDArray[np.int32]:
        """A map ``(h, w)`` of instances: ``i + 1`` for instance ``i``, 0 for none.

        Where masks overlap, the smallest is seen; of masks of one size that of the highest score.
        So a part is seen on the whole, and no large mask hides many small ones.
        """
        labels = np.zeros(self.size, np.int32)
        for i in np.lexsort((self.scores, -self.areas)):
            x0, y0, x1, y1 = self.box(i)
            labels[y0:y1, x0:x1][self.part(i)] = i + 1
        return labels

    def entries(self, image: str) -> list[dict[str, Any]]:
        """The instances as ``predictions.json`` has them.

        Args:
            image: The name of the image in files.
        """
        rows = []
        for i, counts in enumerate(self.counts):
            x0, y0, x1, y1 = self.box(i)
            row: dict[str, Any] = {
                "image": image,
                "segmentation": {"size": list(self.size), "counts": counts},
                "bbox": [float(v) for v in (x0, y0, x1 - x0, y1 - y0)],
                "area": int(self.areas[i]),
                "score": round(float(self.scores[i]), 6),
            }
            if self.stability is not None:
                row["stability"] = round(float(self.stability[i]), 6)
            if self.points is not None:
                row["point"] = [round(v, 2) for v in self.points[i].tolist()]
            if self.classes is not None:
                row["category_id"] = int(self.classes[i])
            rows.append(row)
        return rows

    def records(self, output_mode: str = "binary_mask") -> list[dict[str, Any]]:
        """The instances as the official generator returns them, with its keys.

        Its boxes ``bbox`` and ``crop_box`` are ``x, y, width, height``; the width and height of
        ``bbox`` lead to the last column and row, so they are one less than the number of pixels.

        Args:
            output_mode: One of :data:`OUTPUT_MODES`, the form of ``segmentation``.

        Raises:
            InputError: Another mode.
        """
        check_output_mode(output_mode)
        h, w = self.size
        windows = np.array([[0, 0, w, h]] * len(self)) if self.windows is None else self.windows
        rows = []
        for i in range(len(self)):
            x0, y0, x1, y1 = self.box(i)
            left, top, right, bottom = windows[i].tolist()
            rows.append({
                "segmentation": self._segmentation(i, output_mode),
                "area": int(self.areas[i]),
                "bbox": [x0, y0, x1 - 1 - x0, y1 - 1 - y0],
                "predicted_iou": float(self.scores[i]),
                "point_coords": [] if self.points is None else [self.points[i].tolist()],
                "stability_score": None if self.stability is None else float(self.stability[i]),
                "crop_box": [left, top, right - left, bottom - top],
            })  # fmt: skip
        return rows

    def _segmentation(self, i: int, output_mode: str) -> Any:
        if output_mode == "binary_mask":
            return self.mask(i)
        coded = output_mode == "coco_rle"
        return {
            "size": list(self.size),
            "counts": self.counts[i] if coded else lengths(self.counts[i]).tolist(),
        }


class InstanceGenerator(Protocol):
    """A function of an image that finds its instances with a model."""

    model: FineTuned
    precision: Precision

    @property
    def config(self) -> Settings:
        """The settings in force."""
        ...

    def __call__(self, image: NDArray[np.uint8], /) -> Instances:
        """The instances of an image ``(h, w, 3)`` RGB."""
        ...


def check_output_mode(output_mode: str) -> None:
    """Refuses a form of masks that :meth:`Instances.records` does not know.

    Raises:
        InputError: With the modes that there are.
    """
    if output_mode not in OUTPUT_MODES:
        raise InputError(
            f"output_mode={output_mode}: must be one of {', '.join(OUTPUT_MODES)}; masks as "
            "Instances come from generate"
        )
