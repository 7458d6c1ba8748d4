"""COCO's instance annotations: one JSON file per split, with images in folders beside it."""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from samtune.data.config import SPLITS, DataConfig
from samtune.data.layouts.base import Layout, Settings, SplitRecords, some, unique_names
from samtune.data.layouts.coco_files import categories_of, entries_of, id_of, tree_of
from samtune.data.layouts.drawn import ListedMask, class_settings, kind_of
from samtune.data.layouts.places import Places
from samtune.data.problems import DataError, complain, remark
from samtune.data.sources import SPLIT_NAMES, Record
from samtune.errors import InputError

ROBOFLOW = "_annotations.coco.json"
_WORDS = ("instances", "annotations", "annotation", "coco", "result", "default")


def _fits(root: Path) -> bool:
    return (root.suffix == ".json" and root.is_file()) or bool(_files(root))


def _find(root: Path, config: DataConfig) -> SplitRecords:
    files = _annotation_files(root)
    by_split: SplitRecords = {}
    categories = categories_of(files)
    for split, file in files.items():
        reading = _Reading(file, split, root, categories, config)
        try:
            by_split[split] = reading.records()
        except InputError as error:
            complain(error)
    return by_split


def _defaults(root: Path, given: Settings) -> Settings:
    names = dict.fromkeys(categories_of(_annotation_files(root)).values())
    return class_settings(list(names), given.get("masks", "auto"))


def _annotation_files(root: Path) -> dict[str | None, Path]:
    if root.suffix == ".json" and root.is_file():
        return {None: root}
    files = _files(root)
    if not files:
        raise InputError(
            f"{root}: no annotation file of COCO found (looked for annotations/instances_*.json, "
            f"train.json and the like, and train/{ROBOFLOW}); set data.root to the .json file"
        )
    return files


def _files(root: Path) -> dict[str | None, Path]:
    """Annotation files by split, at the three usual places."""
    if not root.is_dir():
        return {}
    folders = {p.name.lower(): p for p in sorted(root.iterdir()) if p.is_dir()}
    inside = {
        SPLIT_NAMES[name]: path / ROBOFLOW
        for name, path in folders.items()
        if name in SPLIT_NAMES and (path / ROBOFLOW).is_file()
    }
    if inside:
        return {split: inside[split] for split in SPLITS if split in inside}
    for folder in (folders.get("annotations"), root):
        files = sorted(folder.glob("*.json")) if folder else []
        files = [f for f in files if f.stem.lower().startswith("instances")] or files
        known = [(split, f) for f in files for split in [_split_of(f)] if split is not _NO]
        for split, file in known:
            other = next(f for s, f in known if s == split)
            if other != file:
                raise InputError(
                    f"{file}: beside {other.name}, which is also of the split {split or 'all'!r}; "
                    "keep one of the two, or set data.root to it"
                )
        if known:
            parts = dict(known)
            return {s: parts[s] for s in (*SPLITS, None) if s in parts}  # type: ignore[misc]
    return {}


_NO = "no annotation file"


def _split_of(file: Path) -> str | None:
    """The split in the name of an annotation file; ``None`` if the name has none."""
    words = [word for word in re.split("[^a-z]+", file.stem.lower()) if word]
    split = next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)
    return split if split or set(words) & set(_WORDS) else _NO


class _Reading:
    """The state of reading one annotation file into records."""

    def __init__(
        self,
        file: Path,
        split: str | None,
        root: Path,
        categories: dict[str, str],
        config: DataConfig,
    ) -> None:
        self.file, self.kind, crowds = file, kind_of(config.masks), config.crowds
        self.places = _places(file, split, root, config.outside)
        order = list(dict.fromkeys(categories.values()))
        self.classes = {key: order.index(name) for key, name in categories.items()}
        if len(order) < len(categories):
            what = f"{len(categories)} categories have {len(order)} names"
            remedy = "legal: those of one name are one class; rename one of them if they are not"
            remark(file, "category name twice", what, remedy)
        self.crowds_are_objects = crowds == "objects" or (crowds == "auto" and _is_of_cvat(file))

    def records(self) -> list[Record]:
        """The images with their objects."""
        images, owner = self._images()
        objects = self._objects(owner)
        places = self.places
        paths = {key: places.find(str(entry["file_name"])) for key, entry in images.items()}
        there = {key: path for key, path in paths.items() if path is not None}
        if not there:
            first = str(next(iter(images.values()))["file_name"])
            if outside := places.refusal(self.file, [first]):
                raise outside
            what = f"its image {first} was not found (looked in {some(places.folders, 6)})"
            remedy = "put the images into images/ beside the file"
            raise DataError(self.file, "missing image", what, remedy)
        self._refuse_missing(images, there)
        folder = Path(os.path.commonpath([path.parent for path in there.values()]))
        labels = dict(zip(there, unique_names(there.values(), folder), strict=True))
        records = [
            Record(path, self._mask(images[key], objects[key], path), labels[key])
            for key, path in there.items()
        ]
        return sorted(records, key=lambda record: record.name)

    def _images(self) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
        """Entries by id, one per file; and for each id the one that holds its image."""
        images: dict[str, dict[str, Any]] = {}
        by_name: dict[str, str] = {}
        owner: dict[str, str] = {}
        twice: list[tuple[str, str, str]] = []
        again = 0
        for entry in entries_of(self.file, "images", ("id", "file_name")):
            key, name = id_of(entry["id"]), str(entry["file_name"])
            if key in owner and str(images[owner[key]]["file_name"]) != name:
                twice.append((key, str(images[owner[key]]["file_name"]), name))
                continue
            again += name in by_name
            owner[key] = by_name.setdefault(name, key)
            images.setdefault(owner[key], entry)
        if twice:
            key, first, other = twice[0]
            more = f", and {len(twice) - 1} more ids are twice" if twice[1:] else ""
            what = f"the image id {key} is both {first} and {other}{more}"
            remedy = (
                "its annotations cannot be told apart: give the images of one of the two exports, "
                "and their annotations, new ids"
            )
            complain(DataError(self.file, "image id twice", what, remedy))
        if again:
            what = f"lists {again} images again; their objects are combined"
            remark(self.file, "image listed again", what, "legal; check that this is intended")
        if not images:
            raise DataError(self.file, "empty list", "lists no image", "export it again")
        return images, owner

    def _objects(self, owner: dict[str, str]) -> dict[str, list[list[Any]]]:
        """Classes, outlines, crowds and names of the objects of each image."""
        of_image: dict[str, list[list[Any]]] = {key: [] for key in owner.values()}
        earlier: dict[str, set[str]] = {key: set() for key in of_image}
        ids: Counter[str] = Counter()
        repeated = flat = crowds = 0
        largest = 0.0
        for entry in entries_of(self.file, "annotations", ("image_id", "category_id")):
            wrong = self._fault(entry, owner)
            if wrong:
                complain(wrong)
                continue
            key, outline = owner[id_of(entry["image_id"])], entry["segmentation"]
            category = self.classes[id_of(entry["category_id"])]
            same = json.dumps([category, outline])
            if same in earlier[key]:
                repeated += 1
                continue
            earlier[key].add(same)
            ids[id_of(entry.get("id", f"?{len(ids)}"))] += 1
            crowd = _is_set(entry.get("iscrowd"))
            crowds += crowd
            flat += isinstance(outline, list) and isinstance(outline[0], int | float)
            largest = largest if largest > 1 else max(largest, _largest(outline))
            name = f"annotation {entry.get('id', '?')}"
            of_image[key].append([category, outline, crowd and not self.crowds_are_objects, name])
        if 0 < largest <= 1:
            what = f"all corners of its polygons are from 0 to {largest:g}, but COCO's are pixels"
            remedy = "multiply them by the image's width and height"
            complain(DataError(self.file, "corners as fractions", what, remedy))
        self._remark_objects(repeated, flat, crowds, sum(n - 1 for n in ids.values()))
        return of_image

    def _remark_objects(self, repeated: int, flat: int, crowds: int, twice: int) -> None:
        if repeated:
            what = f"{repeated} annotations are repeated, and are used once"
            remark(self.file, "annotation twice", what, "legal; remove one of each two")
        if twice:
            what = f"{twice} annotations have the id of another"
            remark(self.file, "annotation id twice", what, "legal: all are taken")
        if flat:
            what = f"{flat} annotations are one polygon without the list around it"
            remark(self.file, "flat polygon", what, "legal; write segmentation: [[x, y, ...]]")
        if crowds and self.crowds_are_objects:
            what = f"{crowds} annotations have iscrowd: 1, and are used as objects"
            remedy = "legal; data.crowds=ignore leaves their pixels out as groups"
            remark(self.file, "crowds as objects", what, remedy)
        elif crowds:
            what = f"{crowds} annotations have iscrowd: 1, so their pixels are ignored as groups"
            remedy = "legal; data.crowds=objects uses each as one object"
            remark(self.file, "crowds ignored", what, remedy)

    def _fault(self, entry: dict[str, Any], owner: dict[str, str]) -> DataError | None:
        """The error of an annotation, or nothing."""
        where = f"annotation {entry.get('id', '?')}"
        if id_of(entry["image_id"]) not in owner:
            what = f"{where} belongs to the image {entry['image_id']}, which the file does not list"
            remedy = "add the image or remove the annotation"
            return DataError(self.file, "unknown image", what, remedy)
        if id_of(entry["category_id"]) not in self.classes:
            what = f"{where} has the unlisted category {entry['category_id']}"
            return DataError(self.file, "unknown category", what, "add it to categories")
        if not entry.get("segmentation"):
            what = f"{where} has no segmentation, only a box"
            remedy = "annotate masks, or remove the annotation"
            return DataError(self.file, "no outline", what, remedy)
        return None

    def _refuse_missing(self, images: dict[str, Any], there: dict[str, Path]) -> None:
        names = [str(e["file_name"]) for key, e in images.items() if key not in there]
        if outside := self.places.refusal(self.file, names):
            complain(outside)
        elif names:
            folder = next(iter(there.values())).parent
            lacks = some(Path(name).name for name in names)
            what = f"{len(names)} of its {len(images)} images are not in {folder} ({lacks})"
            remedy = "download them, or remove them from the file"
            files = [folder / Path(name).name for name in names]
            complain(DataError(self.file, "missing image", what, remedy, files))
        owner: dict[Path, str] = {}
        for key, path in there.items():
            other = owner.setdefault(path, key)
            if other != key:
                what = (
                    f"{images[other]['file_name']} and {images[key]['file_name']} are both {path}"
                )
                remedy = "keep the folders that their names say"
                complain(DataError(self.file, "one image for two", what, remedy))

    def _mask(self, entry: dict[str, Any], objects: list[list[Any]], path: Path) -> ListedMask:
        height, width = (_pixels(entry.get(key)) for key in ("height", "width"))
        unknown = path if not height or not width else None
        return ListedMask(self.file, self.kind, height, width, json.dumps(objects), unknown)


def _pixels(value: Any) -> int:
    """A length in pixels; 0 if the file does not give it."""
    try:
        return max(0, int(value))
    except (TypeError, ValueError):
        return 0


def _largest(outline: Any) -> float:
    """The largest coordinate of polygons; infinity if they are invalid."""
    try:
        return float(np.concatenate([np.ravel(part) for part in outline]).max())
    except (TypeError, ValueError):
        return math.inf


def _is_set(value: Any) -> bool:
    return str(value).strip().lower() in ("1", "1.0", "true")


def _is_of_cvat(file: Path) -> bool:
    """Whether CVAT wrote the file; CVAT records for each object whether others cover it."""
    for entry in tree_of(file)["annotations"]:
        attributes = entry.get("attributes") if isinstance(entry, dict) else None
        if isinstance(attributes, dict) and "occluded" in attributes:
            return True
    return False


def _places(file: Path, split: str | None, root: Path, outside: bool) -> Places:
    """The usual folders to which file names are relative."""
    base = file.parent.parent if file.parent.name.lower() == "annotations" else file.parent
    tops = [file.parent, base, *([root] if root.is_dir() else [])]
    tops += [folder / "images" for folder in (base, file.parent)]
    inner = [
        path
        for top in tops if top.is_dir()
        for path in sorted(top.iterdir())
        if path.is_dir() and (_split_of(path) == split or path.stem in file.stem)
    ]  # fmt: skip
    return Places([*inner, *tops], base / "images", outside)


LAYOUT = Layout(
    "coco",
    "COCO instances: annotations/instances_SPLIT.json, SPLIT.json or SPLIT/_annotations.coco.json",
    _fits,
    _find,
    _defaults,
)
