"""CVAT's own XML files: "CVAT for images" and "CVAT for video"."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np

from samtune.data.config import DataConfig
from samtune.data.layouts.base import Layout, Settings, SplitRecords
from samtune.data.layouts.drawn import class_settings
from samtune.data.layouts.entries import (
    Area,
    Entry,
    ellipse,
    form_of,
    labels_of,
    records_of,
    within,
)
from samtune.data.layouts.places import Places
from samtune.data.problems import DataError
from samtune.data.reading import SUFFIXES
from samtune.data.sources import SPLIT_NAMES
from samtune.texts import read_bytes

_NO_AREAS = ("polyline", "points", "cuboid", "skeleton")
_SHAPES = ("polygon", "mask", "ellipse", "box", *_NO_AREAS)
_AREA_TYPES = ("any", "polygon", "mask", "ellipse", "")


def _file(root: Path) -> Path | None:
    if root.is_file():
        return root if root.suffix.lower() == ".xml" and _is_cvat(root) else None
    places = [root / "annotations.xml", *sorted(root.glob("*.xml"))] if root.is_dir() else []
    return next((p for p in places if p.is_file() and _is_cvat(p)), None)


def _is_cvat(file: Path) -> bool:
    with file.open(encoding="utf-8-sig", errors="replace") as opened:
        head = opened.read(4096)
    return re.search(r"<annotations>\s*(<version>|<meta>)", head) is not None


@lru_cache(maxsize=4)
def _loaded(file: Path, modified: int) -> tuple[list[str], list[Entry]]:
    """The labels that an area can have, and the images."""
    try:
        tree = ElementTree.fromstring(read_bytes(file))
    except (ElementTree.ParseError, OSError) as error:
        what = f"not readable as XML ({error})"
        raise DataError(file, "unreadable list", what, "export it again") from error
    with form_of(file, "CVAT"):
        return _read_tree(file, tree)


def _read_tree(file: Path, tree: Element) -> tuple[list[str], list[Entry]]:
    labels = [
        label.findtext("name", "")
        for label in tree.iterfind("meta//labels/label")
        if label.findtext("type", "any") in _AREA_TYPES and not label.findtext("parent")
    ]
    entries = [_entry(file, image) for image in tree.iterfind("image")]
    return list(dict.fromkeys(labels)), entries or _of_video(file, tree)


def _entry(file: Path, image: Element) -> Entry:
    size = (int(float(image.get("height", 0))), int(float(image.get("width", 0))))
    split = SPLIT_NAMES.get(image.get("subset", "").lower())
    entry = Entry(file, image.get("name", ""), size if all(size) else None, split=split)
    for i, shape in enumerate(each for each in image if each.tag in _SHAPES):
        _add(entry, shape, shape.get("label", ""), f"{entry.image}, {shape.tag} {i + 1}")
    return entry


def _of_video(file: Path, tree: Element) -> list[Entry]:
    """The frames of a video that exist as images, with the shapes of all tracks."""
    size = tree.find("meta//original_size")
    h, w = (int(size.findtext(k, "0")) if size is not None else 0 for k in ("height", "width"))
    by_frame: dict[int, Entry] = {}
    for path in sorted((file.parent / "images").rglob("*")):
        number = re.search(r"(\d+)$", path.stem)
        if number and path.suffix.lower() in SUFFIXES:
            named = str(path.relative_to(file.parent / "images"))
            by_frame[int(number[1])] = Entry(file, named, (h, w) if h and w else None)
    for track in tree.iterfind("track"):
        for shape in (each for each in track if each.tag in _SHAPES and each.get("outside") != "1"):
            frame = int(shape.get("frame", -1))
            if frame in by_frame:
                where = f"track {track.get('id')}, frame {frame}"
                _add(by_frame[frame], shape, track.get("label", ""), where)
    return list(by_frame.values())


def _add(entry: Entry, shape: Element, label: str, name: str) -> None:
    if shape.tag in _NO_AREAS:
        entry.left_out[shape.tag] += 1
        return
    if shape.tag == "box":
        entry.refuse_box(name)
        return
    level = int(shape.get("z_order") or 0)
    try:
        outline = _outline(shape, entry.size)
    except Exception as error:  # damaged data raise almost any type
        reason = " ".join(str(error).split())[:80]
        entry.refuse(name, "wrong shape", f"cannot be read ({reason})", "draw it again")
        return
    entry.areas.append(Area(label, outline, name, level))


def _outline(shape: Element, size: tuple[int, int] | None) -> object:
    if shape.tag == "ellipse":
        cx, cy, rx, ry = (float(shape.get(key, "nan")) for key in ("cx", "cy", "rx", "ry"))
        return [ellipse(cx, cy, rx, ry, float(shape.get("rotation") or 0))]
    if shape.tag == "mask":
        if size is None:
            raise ValueError("the image has no width and height")
        left, top, w, h = (int(float(shape.get(k, ""))) for k in ("left", "top", "width", "height"))
        counts = [int(count) for count in shape.get("rle", "").split(",")]
        if sum(counts) != w * h:
            raise ValueError(f"run lengths add up to {sum(counts)}, not to {w}x{h} pixels")
        inside = np.arange(len(counts)) % 2 == 1  # by rows, starting with background
        return within(np.repeat(inside, counts).reshape(h, w), left, top, size)
    corners = [float(v) for pair in shape.get("points", "").split(";") for v in pair.split(",")]
    if len(corners) < 6:
        raise ValueError(f"{len(corners) // 2} points, and a polygon has three or more")
    return [corners]


def _read(root: Path) -> tuple[Path, list[str], list[Entry]]:
    file = _file(root)
    if file is None:
        what = "holds no annotations.xml of CVAT"
        raise DataError(root, "no annotation file", what, "set data.root to the file")
    names, entries = _loaded(file, file.stat().st_mtime_ns)
    return file, labels_of(entries, names), entries


def _find(root: Path, config: DataConfig) -> SplitRecords:
    file, names, entries = _read(root)
    if not entries:
        what = "lists no image; of a video, its frames must lie in images/"
        raise DataError(file, "empty list", what, "export it with its images")
    folder = file.parent
    inner = sorted(p for p in (folder / "images").glob("*") if p.is_dir())
    places = Places([folder / "images", folder, *inner], folder, config.outside)
    return records_of(entries, places, config, names)


def _defaults(root: Path, given: Settings) -> Settings:
    return class_settings(_read(root)[1], given.get("masks", "auto"))


LAYOUT = Layout(
    "cvat",
    "CVAT for images or video: annotations.xml, images/",
    lambda root: _file(root) is not None,
    _find,
    _defaults,
)
