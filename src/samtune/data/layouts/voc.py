"""Pascal VOC: JPEGImages, SegmentationClass or SegmentationObject, ImageSets/Segmentation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samtune.data.colours import VOC, ColourTable, objects_of, table_in, table_of
from samtune.data.config import SPLITS, DataConfig
from samtune.data.layouts.base import Layout, Settings, SplitRecords, some
from samtune.data.problems import DataError, complain
from samtune.data.reading import has_palette, read_channels, read_mask
from samtune.data.sources import Record, by_stem, existing_folder, image_files, lines_of
from samtune.data.stored import Stored
from samtune.errors import InputError

CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip
"""The classes of Everingham et al. 2010, in the order of the palette."""
VOID = 255
_IMAGES, _OF_CLASS, _OF_OBJECT = "JPEGImages", "SegmentationClass", "SegmentationObject"


@dataclass(frozen=True)
class VocObjects(Stored):
    """One picture of SegmentationObject, with the class of each object from SegmentationClass."""

    of_class: Path
    table: ColourTable | None = None
    """The meaning of SegmentationClass's colours."""

    def read(self) -> NDArray[np.integer]:
        """Palette indices, or for colours the numbers from 1 on: 0 background, 255 void."""
        colours = read_channels(self.path)
        if colours.shape[2] > 2 and not has_palette(self.path):
            return objects_of(colours, self.path, VOID)
        return read_mask(self.path)

    def object_classes(self) -> tuple[int, ...]:
        """The most frequent class under each object, from 0 for the first one."""
        objects, classes = self.read(), read_mask(self.of_class, self.table)
        if objects.shape != classes.shape:
            raise InputError(
                f"{self.path}: differs in size from {self.of_class}; export both again"
            )
        empty = 0 if self.table is None or not self.table.background else self.table.background
        most = [
            int(np.bincount(classes[objects == value], minlength=1).argmax())
            for value in range(1, int(objects.max()) + 1)
        ]
        return tuple(max(0, number - (number > empty)) for number in most)


def _fits(root: Path) -> bool:
    return _folder(root) is not None


def _folder(root: Path) -> Path | None:
    """The folder itself, or the only VOC20xx in it."""
    if not root.is_dir():
        return None
    tops = [root, *sorted(root.glob("VOC20*")), *sorted(root.glob("VOCdevkit/VOC20*"))]
    found = [top for top in tops if (top / _IMAGES).is_dir() and (top / _OF_CLASS).is_dir()]
    if len(found) > 1 and found[0] != root:
        raise InputError(
            f"{root}: holds several years ({some(f.name for f in found)}); set data.root to one"
        )
    return found[0] if found else None


def _find(root: Path, config: DataConfig) -> SplitRecords:
    folder = _folder(existing_folder(root))
    if folder is None:
        raise InputError(
            f"{root}: has no folders {_IMAGES} and {_OF_CLASS}; set data.root to VOC's"
        )
    images = by_stem(image_files(folder / _IMAGES))
    objects = config.masks == "instance"
    masks = by_stem(image_files(_mask_folder(folder, _OF_OBJECT if objects else _OF_CLASS)))
    classes = by_stem(image_files(folder / _OF_CLASS)) if objects else masks
    table = table_of(config)
    places = ((_IMAGES, images), (masks_of(objects), masks), (_OF_CLASS, classes))
    by_split: SplitRecords = {}
    for split, (source, names) in _lists(folder, sorted(masks)).items():
        records = []
        for name in names:
            lacks = [where for where, table in places if name not in table]
            for where in dict.fromkeys(lacks):
                what = f"names {name!r}, of which {folder / where} has no file"
                remedy = "add it or remove the line"
                complain(DataError(source, "listed but missing", what, remedy))
            if lacks:
                continue
            mask = VocObjects(masks[name], classes[name], table) if objects else masks[name]
            records.append(Record(images[name], mask, name))
        by_split[split] = records
    return by_split


def masks_of(objects: bool) -> str:
    """The folder that holds the masks."""
    return _OF_OBJECT if objects else _OF_CLASS


def _mask_folder(folder: Path, name: str) -> Path:
    if not (folder / name).is_dir():
        raise InputError(
            f"{folder}: has no folder {name}; add it, or set data.masks=classes for class maps"
        )
    return folder / name


def _lists(folder: Path, every: list[str]) -> dict[str | None, tuple[Path, list[str]]]:
    """Names by split, with the file that lists them; without lists all that have a mask."""
    sets = folder / "ImageSets" / "Segmentation"
    files: dict[str | None, Path] = {s: sets / f"{s}.txt" for s in SPLITS}
    files = {split: file for split, file in files.items() if file.is_file()}
    if not files and (sets / "trainval.txt").is_file():
        files = {None: sets / "trainval.txt"}
    if not files and (sets / "default.txt").is_file():
        files = {None: sets / "default.txt"}
    if not files:
        return {None: (folder / _OF_CLASS, every)}
    lists = {}
    for split, file in files.items():
        names = sorted(set(lines_of(file, "surrogateescape")))
        if not names:
            remedy = "give one name per line or remove the file"
            complain(DataError(file, "empty list", "lists no image", remedy))
        lists[split] = (file, names)
    return lists


def _defaults(root: Path, settings: Settings) -> Settings:
    folder = _folder(root)
    if folder is None:
        return {}
    names = _class_names(folder)
    masks = settings.get("masks", "classes")
    defaults: dict[str, Any] = {"masks": masks, "ignore": VOID}
    known = folder / "labelmap.txt"
    if "colors" not in settings:
        defaults["colors"] = str(known) if known.is_file() else VOC
    table = _table(folder)
    empty = 0 if table is None or table.background is None else table.background
    if masks == "instance":
        names = (*names[:empty], *names[empty + 1 :])
        return {**defaults, "classes": len(names), "class_names": names}
    if masks != "classes":
        return defaults
    named = settings.get("classes", len(names)) == len(names)
    defaults |= {"background": empty, "classes": len(names)}
    return {**defaults, "class_names": names} if named else defaults


def _class_names(folder: Path) -> tuple[str, ...]:
    """VOC's own names, or those of ``labelmap.txt``, which annotation tools write."""
    table = _table(folder)
    return CLASSES if table is None else table.names


def _table(folder: Path) -> ColourTable | None:
    file = folder / "labelmap.txt"
    return table_in(file) if file.is_file() else None


LAYOUT = Layout(
    "voc",
    "Pascal VOC: JPEGImages, SegmentationClass or SegmentationObject, ImageSets/Segmentation",
    _fits,
    _find,
    _defaults,
)
