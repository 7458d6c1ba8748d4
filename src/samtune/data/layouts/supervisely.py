"""Supervisely's projects: meta.json, and folders of images with one JSON file per image."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from samtune.data.config import DataConfig
from samtune.data.layouts.base import Layout, Settings, SplitRecords
from samtune.data.layouts.drawn import class_settings, polygons_of
from samtune.data.layouts.entries import (
    Area,
    Entry,
    form_of,
    json_head,
    json_of,
    labels_of,
    picture_mask,
    records_of,
    within,
)
from samtune.data.layouts.places import Places
from samtune.data.problems import DataError
from samtune.data.sources import SPLIT_NAMES

_NO_AREAS = ("line", "polyline", "point", "graph", "cuboid", "cuboid_3d", "any")


def _datasets(root: Path) -> list[Path]:
    """The folders of a project that contain ``ann`` and ``img``, including nested ones."""
    if not root.is_dir():
        return []
    found = [path.parent for path in [root / "ann", *root.rglob("ann")] if path.is_dir()]
    return sorted(dict.fromkeys(p for p in found if (p / "img").is_dir()))


def _meta(root: Path) -> Path | None:
    places = (root / "meta.json", root.parent / "meta.json")
    return next((p for p in places if p.is_file() and '"classes"' in json_head(p)), None)


def _fits(root: Path) -> bool:
    return root.is_dir() and _meta(root) is not None and bool(_datasets(root))


@lru_cache(maxsize=8192)
def _entry(file: Path, modified: int, split: str | None) -> Entry:
    with form_of(file, "Supervisely"):
        tree = json_of(file)
        size = tree.get("size") or {}
        sides = (int(size.get("height") or 0), int(size.get("width") or 0))
        entry = Entry(file, file.stem, sides if all(sides) else None, split=split)
        for i, thing in enumerate(tree.get("objects") or ()):
            _add(entry, thing, i)
        return entry


def _add(entry: Entry, thing: dict[str, Any], i: int) -> None:
    kind, label = str(thing.get("geometryType")), str(thing.get("classTitle"))
    name = f"object {thing.get('id', i + 1)}"
    if kind in _NO_AREAS:
        entry.left_out[kind] += 1
    elif kind == "rectangle":
        entry.refuse_box(name)
    else:
        try:
            entry.areas.append(Area(label, _outline(entry, thing, kind), name, i))
        except Exception as error:  # damaged data raise almost any type
            reason = " ".join(str(error).split())[:80]
            entry.refuse(name, "wrong shape", f"of the kind {kind} cannot be drawn ({reason})",
                         "draw it again or remove it")  # fmt: skip


def _outline(entry: Entry, thing: dict[str, Any], kind: str) -> Any:
    if entry.size is None:
        raise ValueError("the file has no size")
    if kind in ("bitmap", "alpha_mask"):
        part = thing.get(kind) or thing["bitmap"]
        x, y = part["origin"]
        return within(picture_mask(part["data"]), round(x), round(y), entry.size)
    if kind != "polygon":
        raise ValueError("such shapes are not known")
    import cv2

    # corners are pixels here: they belong to the object, and holes lose theirs
    mask = np.zeros(entry.size, np.uint8)
    points = thing["points"]
    for value, rings in ((1, [points["exterior"]]), (0, points.get("interior") or ())):
        for ring in rings:
            (corners,) = polygons_of([ring], entry.size, entry.file)
            around = np.round(np.reshape(corners, (-1, 2))).astype(np.int32)
            cv2.fillPoly(mask, [around], value)
    return within(mask > 0, 0, 0, entry.size)


def _entries(root: Path) -> dict[Path, list[Entry]]:
    """The images by the folder of their dataset."""
    by_folder: dict[Path, list[Entry]] = {}
    for folder in _datasets(root):
        split = SPLIT_NAMES.get(folder.name.lower())
        files = sorted((folder / "ann").glob("*.json"))
        by_folder[folder] = [_entry(file, file.stat().st_mtime_ns, split) for file in files]
    return by_folder


def _names(root: Path, by_folder: dict[Path, list[Entry]]) -> list[str]:
    file = _meta(root)
    known: list[str] = []
    if file is not None:
        with form_of(file, "Supervisely"):
            lines = [*_NO_AREAS[:-1], "rectangle"]
            classes = json_of(file).get("classes", ())
            known = [str(c["title"]) for c in classes if c.get("shape") not in lines]
    return labels_of((e for entries in by_folder.values() for e in entries), known)


def _find(root: Path, config: DataConfig) -> SplitRecords:
    by_folder = _entries(root)
    if not any(by_folder.values()):
        what = "holds no folder with ann and img"
        raise DataError(root, "no annotation file", what, "set data.root to the project")
    names = _names(root, by_folder)
    by_split: SplitRecords = {}
    for folder, entries in by_folder.items():
        for entry in entries:
            entry.image = _image_of(folder, entry)
        places = Places([folder / "img"], folder / "img", config.outside)
        parts = records_of(entries, places, config, names)
        for split, records in parts.items():
            by_split.setdefault(split, []).extend(records)
    return by_split


def _image_of(folder: Path, entry: Entry) -> str:
    """The image of ``a.jpg.json`` is ``a.jpg``; older projects use ``a.json``."""
    stem = entry.file.stem
    if re.search(r"\.\w{3,4}$", stem) and (folder / "img" / stem).is_file():
        return stem
    same = sorted((folder / "img").glob(f"{stem}.*"))
    return same[0].name if len(same) == 1 else stem


def _defaults(root: Path, given: Settings) -> Settings:
    return class_settings(_names(root, _entries(root)), given.get("masks", "auto"))


LAYOUT = Layout(
    "supervisely",
    "a project of Supervisely: meta.json, DATASET/img, DATASET/ann/IMAGE.json",
    _fits,
    _find,
    _defaults,
)
