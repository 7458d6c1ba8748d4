"""Label Studio's exports as JSON (tasks with their annotations) or JSON-MIN."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samtune.data.config import DataConfig
from samtune.data.layouts.base import Layout, Settings, SplitRecords
from samtune.data.layouts.drawn import class_settings, runs_of
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
from samtune.data.problems import DataError
from samtune.data.reading import SUFFIXES

_MARKS = re.compile(r'"(completed_by|annotation_id|original_width|polygonlabels|brushlabels)"')
_KINDS = ("polygon", "brush", "bitmask", "ellipse", "rectangle", "keypoint", "vector")
_NO_AREAS = ("keypoint", "vector")


def _files(root: Path) -> list[Path]:
    """The exports at a root; several are different exports of one project."""
    if root.is_file():
        return [root] if _is_export(root) else []
    listed = sorted(root.glob("*.json")) if root.is_dir() else []
    return [file for file in listed if _is_export(file)]


def _is_export(file: Path) -> bool:
    head = json_head(file) if file.suffix.lower() == ".json" else ""
    return head.startswith("[") and _MARKS.search(head) is not None


def _fits(root: Path) -> bool:
    return bool(_files(root))


def _file(root: Path) -> Path:
    files = _files(root)
    if len(files) != 1:
        what = "holds several exports of Label Studio" if files else "holds no export as JSON"
        raise DataError(root, "no single export", what, "set data.root to the .json file")
    return files[0]


@lru_cache(maxsize=4)
def _loaded(file: Path, modified: int) -> tuple[Entry, ...]:
    with form_of(file, "Label Studio"):
        tasks = [task for task in json_of(file) if isinstance(task, dict)]
        return tuple(entry for task in tasks if (entry := _entry(file, task)) is not None)


def _entries(file: Path) -> tuple[Entry, ...]:
    return _loaded(file, file.stat().st_mtime_ns)


def _entry(file: Path, task: dict[str, Any]) -> Entry | None:
    """The image of a task, with the one annotation that counts; none if it has no annotation."""
    inner = task.get("data")
    data = inner if isinstance(inner, dict) else task
    image = _image_of(data)
    if image is None:
        return None
    entry = Entry(file, image, None)
    if "annotations" in task:
        made = [a for a in task["annotations"] if not a.get("was_cancelled") and "result" in a]
        if not made:
            return None
        best = [a for a in made if a.get("ground_truth")] or made[-1:]
        if len(made) > 1:
            what = f"task {task.get('id', '?')} has {len(made)} annotations; one of them is used"
            remedy = "legal: it is the ground truth, or else the last; delete the others"
            entry.notes.append(("several annotations", what, remedy))
        results = best[0]["result"]
    else:
        results = _of_minimal(task)
    labels = {r.get("id"): r["value"]["labels"][0] for r in results
              if isinstance(r.get("value"), dict) and r["value"].get("labels")}  # fmt: skip
    for i, result in enumerate(results):
        if isinstance(result.get("value"), dict):
            _add(entry, result, labels, f"task {task.get('id', '?')}, region {i + 1}")
    return entry


def _image_of(data: dict[str, Any]) -> str | None:
    """The first value that looks like the location of an image."""
    named = [data[key] for key in ("image", "img", "image_url") if key in data]
    for value in (*named, *data.values()):
        if isinstance(value, str) and Path(value.partition("?X-")[0]).suffix.lower() in SUFFIXES:
            return value.partition("?X-")[0]  # signed addresses
    return None


def _of_minimal(task: dict[str, Any]) -> list[dict[str, Any]]:
    """The regions of JSON-MIN, converted to the form of JSON."""
    lists = (value for value in task.values() if isinstance(value, list))
    regions = (r for value in lists for r in value if isinstance(r, dict))
    return [{**region, "value": region, "type": ""} for region in regions]


def _add(entry: Entry, result: dict[str, Any], labels: dict[Any, str], name: str) -> None:
    value = result["value"]
    kind = next((k for k in _KINDS if f"{k}labels" in value or result.get("type") == k), None)
    if kind is None:
        if any(key in value for key in ("points", "rle", "imageDataURL", "radiusX")):
            kind = _kind_of(value)
        elif {"x", "y", "width", "height"} <= value.keys():
            kind = "rectangle"
        else:  # choices, texts and the like belong to the whole image
            return
    named = value.get(f"{kind}labels") or value.get("labels")
    label = str(named[0]) if named else labels.get(result.get("id"), "object")
    if kind in _NO_AREAS:
        entry.left_out[kind] += 1
        return
    if kind == "rectangle":
        entry.refuse_box(name)
        return
    if int(result.get("image_rotation") or 0) % 360:
        entry.refuse(name, "image rotated", "is drawn on a rotated image",
                     "turn it back in Label Studio, or remove it")  # fmt: skip
        return
    try:
        width, height = int(result["original_width"]), int(result["original_height"])
        entry.size = entry.size or (height, width)
        entry.areas.append(Area(label, _outline(kind, value, (height, width)), name))
    except Exception as error:  # damage raises nearly any type
        reason = " ".join(str(error).split())[:80]
        entry.refuse(name, "wrong region", f"of the kind {kind} cannot be read ({reason})",
                     "draw it again or remove it")  # fmt: skip


def _kind_of(value: dict[str, Any]) -> str:
    keys = {"rle": "brush", "imageDataURL": "bitmask", "radiusX": "ellipse"}
    return next((kind for key, kind in keys.items() if key in value), "polygon")


def _outline(kind: str, value: dict[str, Any], size: tuple[int, int]) -> Any:
    h, w = size
    if kind == "brush":
        return runs_of(brushed(value["rle"], size))
    if kind == "bitmask":
        return within(picture_mask(value["imageDataURL"]), 0, 0, size)
    if kind == "ellipse":
        x, rx = (value[key] * w / 100 for key in ("x", "radiusX"))
        y, ry = (value[key] * h / 100 for key in ("y", "radiusY"))
        return [ellipse(x, y, rx, ry, value.get("rotation") or 0)]
    points = value["points"]
    if len(points) < 3:
        raise ValueError(f"{len(points)} points, and a polygon has three or more")
    return [[part for x, y in points for part in (x * w / 100, y * h / 100)]]


def brushed(code: list[int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Decodes a brush's mask ``(h, w)`` from Label Studio's encoding of a picture with alpha.

    The bits are: 32 for the number of values, 5 for the bits per value, 4 each for four lengths;
    then blocks with one bit for repetition or list, 2 for the index of the length, the count, and
    one value or as many as the count. The last of every four values is alpha.

    Raises:
        ValueError: The code ends too early, or has another size.
    """
    bits = np.unpackbits(np.asarray(code, np.uint8))
    take = _reader(bits)
    total, depth = take(32), take(5) + 1
    lengths = [take(4) + 1 for _ in range(4)]
    if total != size[0] * size[1] * 4:
        raise ValueError(f"a brush of {total} values for an image of {size[1]}x{size[0]} pixels")
    values = np.zeros(total, np.uint32)
    at = 0
    while at < total:
        repeats = take(1)
        count = take(lengths[take(2)]) + 1
        if repeats:
            values[at : at + count] = take(depth)
        else:
            for i in range(at, min(at + count, total)):
                values[i] = take(depth)
        at += count
    return values.reshape(*size, 4)[..., 3] > 0


def _reader(bits: NDArray[np.uint8]) -> Any:
    """A function that returns the next bits as a number."""
    stream: Iterator[int] = iter(bits.tolist())

    def take(count: int) -> int:
        number = 0
        for _ in range(count):
            bit = next(stream, None)
            if bit is None:
                raise ValueError("the code of the brush ends too early")
            number = number << 1 | bit
        return number

    return take


def _find(root: Path, config: DataConfig) -> SplitRecords:
    file = _file(root)
    entries = _entries(file)
    if not entries:
        raise DataError(file, "empty list", "holds no annotated image", "annotate some first")
    folder = file.parent
    folders = [folder / "images", folder, folder / "upload", folder / "data"]
    places = Places(folders, folder, config.outside)
    return records_of(entries, places, config, labels_of(entries))


def _defaults(root: Path, given: Settings) -> Settings:
    return class_settings(labels_of(_entries(_file(root))), given.get("masks", "auto"))


LAYOUT = Layout(
    "label_studio",
    "Label Studio: the export as JSON or JSON-MIN, beside the images or their folder",
    _fits,
    _find,
    _defaults,
)
