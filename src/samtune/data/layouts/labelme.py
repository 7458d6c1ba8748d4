"""LabelMe's and X-AnyLabeling's JSON files, one per image."""

from __future__ import annotations

import base64
import io
import math
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from samtune.data.bounds import is_outside
from samtune.data.config import DataConfig
from samtune.data.layouts.base import Layout, Settings, SplitRecords
from samtune.data.layouts.drawn import class_settings, mask_of, runs_of
from samtune.data.layouts.entries import (
    Area,
    Entry,
    ellipse,
    form_of,
    json_head,
    json_of,
    labels_of,
    picture_mask,
    records_of,
    within,
)
from samtune.data.layouts.places import Places
from samtune.data.problems import DataError, complain
from samtune.data.quiet import opened_picture
from samtune.data.reading import pillow_pixels
from samtune.data.sources import SPLIT_NAMES, lines_of
from samtune.data.stored import Stored
from samtune.errors import InputError

_IGNORE, _BACKGROUND = "__ignore__", "_background_"
"""Labels that LabelMe's own export leaves out."""
_RECTANGLES = ("rectangle", "rotation", "oriented_rectangle")
"""Names of rectangles: upright with two or four corners; rotated with four, in X-AnyLabeling and
LabelMe."""
_NO_AREAS = ("line", "linestrip", "point", "points", "cuboid")


@dataclass(frozen=True)
class Embedded(Stored):
    """The image within a JSON file, if there is no image file beside it."""

    def read(self) -> NDArray:
        """``(h, w, channels)`` as stored."""
        content = base64.b64decode(json_of(self.path)["imageData"])
        with opened_picture(io.BytesIO(content)) as opened:
            return pillow_pixels(opened, colours=True)


def _files(root: Path) -> list[Path]:
    """The JSON files of a folder and its subfolders, two levels deep."""
    if root.is_file():
        return [root] if _is_labelme(root) else []
    if not root.is_dir():
        return []
    files = [p for pattern in ("*.json", "*/*.json", "*/*/*.json") for p in root.glob(pattern)]
    return sorted(p for p in files if not p.name.startswith(".") and _is_labelme(p))


def _is_labelme(file: Path) -> bool:
    return re.search(r'^\{.*"shapes"\s*:\s*\[', json_head(file), re.DOTALL) is not None


def _fits(root: Path) -> bool:
    if not root.is_dir():
        return False
    for pattern in ("*.json", "*/*.json", "*/*/*.json"):
        first = next((p for p in sorted(root.glob(pattern)) if not p.name.startswith(".")), None)
        if first is not None and _is_labelme(first):
            return True
    return False


@lru_cache(maxsize=8192)
def _entry(file: Path, modified: int, split: str | None) -> Entry:
    with form_of(file, "LabelMe"):
        return _entry_of(json_of(file), file, split)


def _entry_of(tree: dict[str, Any], file: Path, split: str | None) -> Entry:
    size = (int(tree.get("imageHeight") or 0), int(tree.get("imageWidth") or 0))
    picture = Embedded(file) if tree.get("imageData") else None
    entry = Entry(file, _image_of(tree, file), size if all(size) else None, split=split)
    entry.picture = picture
    groups: dict[tuple[str, Any], int] = {}
    boxes = 0
    for i, shape in enumerate(tree["shapes"]):
        name = f"shape {i + 1}"
        if not isinstance(shape, dict) or not {"label", "points"} <= shape.keys():
            entry.refuse(name, "incomplete entry", "lacks label or points", "draw it again")
            continue
        kind, label = shape.get("shape_type") or "polygon", str(shape["label"])
        boxes += kind in _RECTANGLES
        if label == _BACKGROUND:
            continue
        if kind in _NO_AREAS:
            entry.left_out[kind] += 1
            continue
        area = _area(entry, shape, kind, name, i)
        if area is None:
            continue
        group = shape.get("group_id")
        key = (label, None if group is None else str(group))
        if key[1] is not None and key in groups:  # parts of one object
            entry.areas[groups[key]] = _union(entry, entry.areas[groups[key]], area)
            continue
        groups[key] = len(entry.areas)
        entry.areas.append(area)
    if boxes:
        what = f"{boxes} shapes are rectangles; their whole inside is used as the object"
        entry.notes.append(("rectangles", what, "legal; draw polygons if they are only boxes"))
    return entry


def _image_of(tree: dict[str, Any], file: Path) -> str:
    """The image's path; another one if the files were renamed together."""
    said = str(tree.get("imagePath") or "").replace("\\", "/")
    return said if said.rpartition("/")[2] else file.stem


def _area(entry: Entry, shape: dict[str, Any], kind: str, name: str, level: int) -> Area | None:
    label = str(shape["label"])
    try:
        points = [(float(x), float(y)) for x, y in shape["points"]]
        outline = _outline(entry, shape, kind, points)
    except Exception as error:  # damage raises nearly any type
        reason = " ".join(str(error).split())[:80]
        entry.refuse(name, "wrong shape", f"of the kind {kind} cannot be drawn ({reason})",
                     "draw it again or remove it")  # fmt: skip
        return None
    return Area(label, outline, name, level, label == _IGNORE)


def _outline(
    entry: Entry, shape: dict[str, Any], kind: str, points: list[tuple[float, float]]
) -> Any:
    if kind == "mask":
        if entry.size is None:
            raise ValueError("imageHeight and imageWidth are missing")
        (x, y), *_ = points
        return within(picture_mask(shape["mask"]), round(x), round(y), entry.size)
    if kind == "circle":
        (x, y), (ex, ey) = points
        radius = math.hypot(ex - x, ey - y)
        return [ellipse(x, y, radius, radius)]
    if kind == "rectangle" and len(points) == 2:
        (x0, y0), (x1, y1) = points
        return [[x0, y0, x1, y0, x1, y1, x0, y1]]
    if kind not in ("polygon", "quadrilateral", "brush", *_RECTANGLES):
        raise ValueError("such shapes are not known")
    if len(points) < 3:
        raise ValueError(f"{len(points)} points, and a polygon has three or more")
    return [[v for point in points for v in point]]


def _union(entry: Entry, first: Area, other: Area) -> Area:
    """Two shapes of one group as one object."""
    parts = (first.segmentation, other.segmentation)
    if all(isinstance(part, list) for part in parts):
        return first._replace(segmentation=[*parts[0], *parts[1]])
    if entry.size is None:
        return first
    masks = [mask_of(part, entry.size, entry.file, first.name) for part in parts]
    return first._replace(segmentation=runs_of(masks[0] | masks[1]))


def _find(root: Path, config: DataConfig) -> SplitRecords:
    entries, broken = [], []
    base = root if root.is_dir() else root.parent
    for file in _files(root):
        try:
            entries.append(_of(base, file))
        except InputError as error:
            broken.append(error)
    for fault in broken:
        complain(fault)
    if not entries:
        raise DataError(root, "no annotation file", "holds no JSON file of LabelMe",
                        "set data.root to the folder of the JSON files")  # fmt: skip
    names = _names(root, entries)
    by_split: SplitRecords = {}
    for folder in sorted({entry.file.parent for entry in entries}):
        above = folder.parent
        sides = [folder, above / "images", above / "img", above / "JPEGImages", above]
        split_of = folder.name if folder.name.lower() in SPLIT_NAMES else "."
        sides += [above.parent / "images" / split_of, base / "images"]
        mine = [entry for entry in entries if entry.file.parent == folder]
        places = Places(sides, base, config.outside, [f for f in sides if is_outside(f, base)])
        for entry in mine:
            _renamed(entry, places)
        for split, records in records_of(mine, places, config, names).items():
            by_split.setdefault(split, []).extend(records)
    return by_split


def _renamed(entry: Entry, places: Places) -> None:
    """Uses the image with the JSON file's own name if the named one does not exist."""
    if places.find(entry.image) is None:
        for suffix in (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"):
            for name in (entry.file.stem + suffix, entry.file.stem + suffix.upper()):
                if (found := places.find(name)) is not None:
                    entry.image = found.name
                    return


def _of(root: Path, file: Path) -> Entry:
    inner = file.parent.relative_to(root).parts
    split = next((SPLIT_NAMES[p.lower()] for p in inner if p.lower() in SPLIT_NAMES), None)
    return _entry(file, file.stat().st_mtime_ns, split)


def _names(root: Path, entries: list[Entry]) -> list[str]:
    """The classes in ``labels.txt``, which LabelMe reads, or those that occur."""
    file = (root if root.is_dir() else root.parent) / "labels.txt"
    known = lines_of(file, "replace") if file.is_file() else []
    return labels_of(entries, (n for n in known if n not in (_IGNORE, _BACKGROUND)))


def _defaults(root: Path, settings: Settings) -> Settings:
    entries = []
    for file in _files(root):
        try:
            entries.append(_of(root if root.is_dir() else root.parent, file))
        except InputError:  # reported when the records are searched
            continue
    return class_settings(_names(root, entries), settings.get("masks", "auto"))


LAYOUT = Layout(
    "labelme",
    "LabelMe and X-AnyLabeling: one JSON file with shapes per image",
    _fits,
    _find,
    _defaults,
)
