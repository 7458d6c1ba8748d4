"""Converts a mask file's values to objects, by rules that refuse unclear values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from samtune.data.colours import table_of
from samtune.data.config import DataConfig
from samtune.data.intensity import policy_of
from samtune.data.problems import DataError
from samtune.data.reading import is_lossy, read_image, read_mask
from samtune.data.sources import Record
from samtune.data.stored import Stored, path_of
from samtune.data.turning import upright
from samtune.errors import InputError
from samtune.geometry import InputPolicy

_FEW = 8
"""Number of objects up to which one pass over the map per object is faster than one over all
pixels."""
_SPARSE = 1 << 20
"""Ids above this are counted by sorting, others by a table, which is faster."""


@dataclass(frozen=True)
class Labels:
    """The objects of one image. They do not overlap, so one map holds them all."""

    map: NDArray[np.integer]
    """``(h, w)``: 0 for no object, ``k + 1`` for object ``k``."""
    classes: NDArray[np.int64]
    """``(K,)``: the class of each object; 0 if there is only one class."""
    valid: NDArray[np.bool_] | None = None
    """``(h, w)``: false at ignored pixels; ``None`` if no pixel is ignored."""
    small: NDArray[np.bool_] | None = None
    """``(h, w)``: true at objects below ``min_area``, as in the file; ``None`` if there are none,
    and after augmentation."""

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def foreground(self) -> NDArray[np.bool_]:
        """``(h, w)``: all foreground, including objects below ``min_area``."""
        return self.map > 0 if self.small is None else (self.map > 0) | self.small

    @property
    def nbytes(self) -> int:
        """Memory of the maps."""
        maps = (self.map, self.valid, self.small)
        return sum(each.nbytes for each in maps if each is not None)


@dataclass(frozen=True)
class Sample:
    """One image with its objects, in the original frame."""

    image: NDArray[np.uint8]
    """``(h, w, 3)`` RGB."""
    labels: Labels
    name: str

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        return self.image.nbytes + self.labels.nbytes


def read_sample(record: Record, config: DataConfig, policy: InputPolicy | None = None) -> Sample:
    """Reads one pair of files.

    Args:
        record: The files.
        config: How masks are read.
        policy: How the image is read, from the model's input policy; by default as ``config`` says.

    Raises:
        InputError: A file is broken, sizes differ, or mask values violate the rules.
    """
    image = read_image(record.image, policy_of(config) if policy is None else policy)
    labels = read_labels(record, config, (image.shape[0], image.shape[1]))
    return Sample(image, labels, record.name)


def read_labels(record: Record, config: DataConfig, size: tuple[int, int]) -> Labels:
    """Reads the mask of an image of ``size`` (height, width).

    Raises:
        InputError: The file is broken, its size differs, or values violate the rules.
    """
    values, source = read_values(record, config)
    values = upright(record, values, size, config)
    check_size(record, values, size)
    return label_objects(values, config, source)


def read_values(record: Record, config: DataConfig) -> tuple[NDArray[np.integer], Path | Stored]:
    """The values of a record's mask as stored, and their source.

    Raises:
        InputError: The mask is missing or broken, or its colours are unknown.
    """
    if record.mask is None:
        raise DataError(
            record.file, "unmatched image", "has no mask file", "add one of the same stem"
        )
    return read_mask(record.mask, table_of(config)), record.mask


def check_size(record: Record, values: NDArray[np.integer], size: tuple[int, int]) -> None:
    """Refuses a mask of another height and width than its image.

    Raises:
        InputError: The sizes differ; the message names both.
    """
    if values.shape == size:
        return
    (h, w), (y, x) = size, values.shape
    raise DataError(
        path_of(record.mask or record.image),
        "size mismatch",
        f"the mask is {x}x{y} pixels but {record.file.name} is {w}x{h}",
        "both must have the same size, so export the mask again or remove the pair",
    )


def label_objects(values: NDArray[np.integer], config: DataConfig, source: Path | Stored) -> Labels:
    """The objects of a map of mask values.

    - ``binary``: every value except 0, or above ``threshold``, is foreground. If all values are
      within 15 of 0 or 255, as in a 0/255 mask damaged by JPEG, the threshold is 127; in a lossless
      file only if some lie in 240..254, because 255 beside small values is mostly a class map's
      ignored value. ``invert`` exchanges foreground and background.
    - ``auto``: accepts only clearly binary masks: 0/1, 0/255, 0/65535 or JPEG-damaged 0/255.
    - ``instance``: every value except 0 is an object, with the class that ``source`` gives it.
    - ``classes``: value ``c`` is class ``c``.

    Pixels of the value ``ignore`` are ignored and belong to no object. Objects of fewer than
    ``min_area`` pixels become background.

    Raises:
        InputError: Values violate the rules; the message names the file, the values and the remedy.
    """
    valid, path, lossy = None, path_of(source), is_lossy(source)
    if config.ignore is not None:
        valid = values != config.ignore
        values = np.where(valid, values, 0)
    if config.masks in ("auto", "binary"):
        labels, classes = _binary(values, valid, config, path, lossy)
    else:
        if lossy and config.colors is None:
            raise DataError(
                path,
                "lossy mask",
                f"JPEG changes values, so it cannot hold masks={config.masks}",
                "export the masks as PNG or TIFF",
            )
        if config.masks == "instance":
            known = source.object_classes() if isinstance(source, Stored) else None
            labels, classes = _instances(values, config, path, known)
        else:
            labels, classes = _classes(values, valid, config, path)
    kept, classes = _large_enough(labels, classes, config.min_area)
    everywhere = valid is None or bool(valid.all())
    small = (labels > 0) & (kept == 0) if kept is not labels else None
    some = small is not None and bool(small.any())
    return Labels(kept, classes, None if everywhere else valid, small if some else None)


def areas(labels: NDArray[np.integer], count: int) -> NDArray[np.int64]:
    """Pixel counts ``(count,)`` of the objects of a label map."""
    if count <= _FEW:
        return np.array([np.count_nonzero(labels == k + 1) for k in range(count)], np.int64)
    return np.bincount(labels.ravel(), minlength=count + 1)[1 : count + 1]


def extents(labels: NDArray[np.integer], count: int) -> NDArray[np.int64]:
    """Boxes ``(count, 4)`` xyxy around the objects, right and lower edges exclusive.

    An object without a pixel gets a box of negative size.
    """
    h, w = labels.shape
    if count <= _FEW:
        return np.array([_extent(labels == k + 1) for k in range(count)], np.int64).reshape(-1, 4)
    ys, xs = np.nonzero(labels)
    which = labels[ys, xs].astype(np.int64) - 1
    boxes = np.tile(np.array([w, h, 0, 0], np.int64), (count, 1))
    np.minimum.at(boxes[:, 0], which, xs)
    np.minimum.at(boxes[:, 1], which, ys)
    np.maximum.at(boxes[:, 2], which, xs + 1)
    np.maximum.at(boxes[:, 3], which, ys + 1)
    return boxes


def _extent(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return (*mask.shape[::-1], 0, 0)
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _binary(
    values: NDArray[np.integer],
    valid: NDArray[np.bool_] | None,
    config: DataConfig,
    path: Path,
    lossy: bool,
) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
    threshold = clear_threshold(values, lossy)
    if config.threshold is not None:
        threshold = config.threshold
    elif threshold is None and config.masks == "auto":
        soft = (
            "data.threshold=127 thresholds their soft edges in the middle; or "
            if _has_soft_edges(values)
            else ""
        )
        raise DataError(
            path,
            "unexpected mask values",
            f"mask values {_list(np.unique(values))} are not 0/1 or 0/255",
            f"{soft}set data.masks=instance for one value per object, data.masks=classes "
            "data.classes=K for one mask per class, data.ignore=V for a value to ignore, or "
            "data.masks=binary if every value except 0 is foreground",
        )
    foreground = values > (threshold or 0)
    if config.invert:
        foreground = ~foreground if valid is None else ~foreground & valid
    if config.objects == "instance":
        raise InputError(
            f"{path}: data.objects=instance needs a value for each object; set "
            "data.masks=instance, or data.objects=component for connected parts"
        )
    if config.objects == "component":
        return components(foreground, config.connectivity)
    any_object = int(foreground.any())
    return foreground.astype(np.uint8), np.zeros(any_object, np.int64)


def _has_soft_edges(values: NDArray[np.integer]) -> bool:
    """Whether a mask is 0 and 255 with shades between them at its edges, as by anti-aliasing."""
    counts = np.bincount(values.ravel()) if values.dtype == np.uint8 else np.zeros(256, int)
    between = counts[1:255]
    return (
        len(counts) == 256
        and 0 < between.sum() < counts[0] + counts[255]
        and bool(between[126] < counts[255] and (between > 0).sum() > 1)
    )


def clear_threshold(values: NDArray[np.integer], lossy: bool) -> int | None:
    """The threshold of a clearly binary mask; ``None`` for any other mask."""
    low, high = int(values.min()), int(values.max())
    if low < 0:
        return None
    if high <= 1:
        return 0
    if high in (255, 65535) and bool(((values == 0) | (values == high)).all()):
        return 0
    if not 240 <= high <= 255 or bool(((values > 15) & (values < 240)).any()):
        return None
    return 127 if lossy or bool(((values >= 240) & (values < 255)).any()) else None


def _instances(
    values: NDArray[np.integer], config: DataConfig, path: Path, known: Sequence[int] | None
) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
    if int(values.min()) < 0:
        raise DataError(
            path,
            "negative instance",
            f"instance map with the negative value {int(values.min())}",
            "use 0 for background and positive values for objects, or name it with data.ignore",
        )
    if known is not None and len(set(known)) > 1 and config.objects in ("component", "mask"):
        raise InputError(
            f"{path}: data.objects={config.objects} would join objects of several classes; set "
            "data.masks=classes for whole classes, or data.masks=binary for all foreground"
        )
    if config.objects == "component":
        return components(values > 0, config.connectivity)
    if config.objects == "mask":
        return (values > 0).astype(np.uint8), np.zeros(int(values.any()), np.int64)
    labels, ids = _numbered(values)
    if known is not None:
        return labels, np.asarray(known, np.int64)[ids - 1]
    return labels, np.zeros(len(ids), np.int64)


def _classes(
    values: NDArray[np.integer],
    valid: NDArray[np.bool_] | None,
    config: DataConfig,
    path: Path,
) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
    if config.classes is None or config.classes < 1:
        raise InputError(f"{path}: data.masks=classes needs the class count; set data.classes=K")
    if config.objects == "instance":
        raise InputError(
            f"{path}: data.objects=instance needs an instance map, not a class map; set "
            "data.objects=component for connected parts or data.objects=mask"
        )
    wrong = values[(values < 0) | (values >= config.classes)]
    if wrong.size:
        raise DataError(
            path,
            "class out of range",
            f"class values {_list(np.unique(wrong))} are not in 0..{config.classes - 1}",
            "set data.classes higher, or data.ignore to a value without meaning; masks of only 0 "
            "and 255 have one foreground: data.masks=binary",
        )
    labels, ids = _numbered(values.astype(np.int32) + 1, valid)
    if config.background is not None:
        labels, ids = _keep(labels, ids, ids != config.background + 1)
    classes = ids - 1
    return _parts(labels, classes, config) if config.objects == "component" else (labels, classes)


def cut_apart(labels: Labels, config: DataConfig) -> Labels:
    """Labels in which each connected component is a separate object, if components are objects.

    An object that a crop cuts apart counts as two, and all objects are renumbered.
    """
    if config.objects != "component":
        return labels
    parted, classes = _parts(labels.map, labels.classes, config)
    return replace(labels, map=parted, classes=classes)


def _parts(
    labels: NDArray[np.integer], classes: NDArray[np.int64], config: DataConfig
) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
    """The connected components of each class, with their classes."""
    class_of = np.concatenate([np.array([-1], np.int64), classes])[labels]
    kinds = np.unique(classes)
    parts = [components(class_of == each, config.connectivity) for each in kinds]
    counts = [len(each) for _, each in parts]
    result = np.zeros(labels.shape, np.min_scalar_type(sum(counts)))
    for k, (part, _) in enumerate(parts):
        result = np.where(
            part > 0, part.astype(result.dtype) + result.dtype.type(sum(counts[:k])), result
        )
    return result, np.repeat(kinds, counts)


def components(
    foreground: NDArray[np.bool_], connectivity: int
) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
    """Numbers the connected components of a mask ``(h, w)`` from 1; their classes are all 0."""
    import cv2

    count, labels = cv2.connectedComponents(foreground.astype(np.uint8), connectivity=connectivity)
    return labels.astype(np.min_scalar_type(count)), np.zeros(count - 1, np.int64)


def _numbered(
    values: NDArray[np.integer], valid: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
    """Renumbers the values except 0 to 1..K in their order; also returns the K values."""
    if valid is not None:
        values = np.where(valid, values, 0)
    if int(values.max()) > _SPARSE:
        ids = np.unique(values)
        ids = ids[ids > 0]
        labels = np.where(values > 0, np.searchsorted(ids, values) + 1, 0)
        return labels.astype(np.min_scalar_type(len(ids))), ids.astype(np.int64)
    ids = np.flatnonzero(np.bincount(values.ravel()))
    ids = ids[ids > 0]
    table = np.zeros(int(values.max()) + 1, np.min_scalar_type(len(ids)))
    table[ids] = np.arange(1, len(ids) + 1)
    return table[values], ids


def _large_enough(
    labels: NDArray[np.integer], classes: NDArray[np.int64], min_area: int
) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
    if min_area <= 1:
        return labels, classes
    return _keep(labels, classes, areas(labels, len(classes)) >= min_area)


def _keep(
    labels: NDArray[np.integer], values: NDArray[np.int64], keep: NDArray[np.bool_]
) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
    table = np.zeros(len(keep) + 1, labels.dtype)
    table[1:][keep] = np.arange(1, int(keep.sum()) + 1)
    return table[labels], values[keep]


def _list(values: Sequence[int] | NDArray[np.integer], most: int = 8) -> str:
    numbers = [str(int(v)) for v in values[:most]]
    rest = len(values) - len(numbers)
    return "{" + ", ".join(numbers) + (f", ... {rest} more" if rest > 0 else "") + "}"
