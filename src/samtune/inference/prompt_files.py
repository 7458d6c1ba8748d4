"""Files of prompts: JSON by image name, COCO's annotations and results, YOLO's text files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from samtune.errors import InputError
from samtune.files import as_path
from samtune.inference.requests import ObjectRequest, Request, check_prompts, checked_box
from samtune.texts import parse_json, read_text

_FORM = '{"image.png": {"boxes": [[x0, y0, x1, y1]]}}'


def read_prompts(path: str | Path) -> dict[str, Request]:
    """A file of prompts, or a folder of YOLO's text files.

    A JSON file maps image names to boxes, points and labels; or it has COCO's form of annotations
    or results, whose boxes become prompts. A text file has YOLO's form for one image: each line is
    a class and then a box (centre, width and height) or a polygon, whose box becomes the prompt, in
    fractions of the image.

    Raises:
        InputError: The file does not exist or has none of these forms.
    """
    place = as_path(path)
    if place.is_dir():
        files = sorted(place.glob("*.txt"))
        if not files:
            raise InputError(f"{path}: a folder without .txt files; give YOLO's labels, or a file")
        return {file.stem: _yolo(file) for file in files if file.stem != "classes"}
    if place.suffix.lower() == ".txt":
        return {place.stem: _yolo(place)}
    try:
        tree = parse_json(read_text(place), _Repeated.of)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable JSON file; prompts look like {_FORM}") from error
    if isinstance(tree, dict) and isinstance(tree.get("annotations"), list):
        return _coco(tree, str(path))
    if isinstance(tree, list) and tree and all(isinstance(e, dict) and "bbox" in e for e in tree):
        return _results(tree, str(path))
    if isinstance(tree, _Repeated) and tree.repeated:
        raise InputError(f"{path}: {tree.repeated[0]}: is there twice; join the two entries")
    return check_prompts(tree, str(path))


class _Repeated(dict[str, Any]):
    """A JSON object that records repeated keys."""

    repeated: tuple[str, ...] = ()

    @staticmethod
    def of(pairs: list[tuple[str, Any]]) -> _Repeated:
        tree = _Repeated(pairs)
        keys = [key for key, _ in pairs]
        tree.repeated = (
            tuple(key for key in tree if keys.count(key) > 1) if len(keys) > len(tree) else ()
        )
        return tree


def _coco(tree: Mapping[str, Any], origin: str) -> dict[str, Request]:
    """Prompts from COCO's annotations: an image without any gets none; crowds are left out."""
    names: dict[Any, str] = {}
    for image in tree.get("images") or []:
        if not isinstance(image, dict) or not {"id", "file_name"} <= image.keys():
            raise InputError(f"{origin}: an image lacks its id or file_name; export it again")
        name = str(image["file_name"])
        if names.setdefault(image["id"], name) != name:
            raise InputError(
                f"{origin}: the image id {image['id']} is both {names[image['id']]} and {name}; "
                "give the images of one of the two, and their annotations, new ids"
            )
    requests: dict[str, list[ObjectRequest]] = {name: [] for name in names.values()}
    for i, each in enumerate(tree["annotations"]):
        known = isinstance(each, dict) and each.get("image_id") in names
        if not known:
            raise InputError(f"{origin}: annotation {i} belongs to no image in the file")
        if not each.get("iscrowd"):
            name = names[each["image_id"]]
            requests[name].append(ObjectRequest(_corners(each.get("bbox"), f"{origin}: {name}")))
    return {name: tuple(objects) for name, objects in requests.items()}


def _results(rows: list[dict[str, Any]], origin: str) -> dict[str, Request]:
    """Prompts from COCO's results, or from those of ``samtune predict``, which name images."""
    requests: dict[str, list[ObjectRequest]] = {}
    for row in rows:
        name = row.get("image", row.get("file_name", row.get("image_id")))
        if not isinstance(name, str):
            raise InputError(
                f"{origin}: the boxes name their images by number; give COCO's annotations, which "
                "list the images, or put the file's name in the place of image_id"
            )
        box = ObjectRequest(_corners(row["bbox"], f"{origin}: {name}"))
        requests.setdefault(name, []).append(box)
    return {name: tuple(objects) for name, objects in requests.items()}


def _corners(bbox: Any, origin: str) -> tuple[float, ...]:
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(_is_number(v) for v in bbox):
        raise InputError(f"{origin}: bbox {bbox}: COCO's are [x, y, width, height] in pixels")
    x, y, w, h = bbox
    return checked_box([x, y, x + w, y + h], origin)


def _yolo(file: Path) -> Request:
    try:
        lines = read_text(file).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not readable as text; export the labels again") from error
    return tuple(
        _yolo_object(line.split(), f"{file}, line {i}")
        for i, line in enumerate(lines, 1)
        if line.strip()
    )


def _yolo_object(words: list[str], origin: str) -> ObjectRequest:
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = []
    if len(values) in (5, 6):  # a sixth number is a confidence
        x, y, w, h = values[1:5]
        box = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
    elif len(values) >= 7 and len(values) % 2:
        xs, ys = values[1::2], values[2::2]
        box = [min(xs), min(ys), max(xs), max(ys)]
    else:
        raise InputError(
            f"{origin}: must be a class and then x, y, width and height of a box, or the corners "
            "of a polygon, as fractions of the image"
        )
    if max(map(abs, values[1:5])) > 2:
        raise InputError(
            f"{origin}: {words[1]} is no fraction of the image; divide pixels by its size"
        )
    return ObjectRequest(checked_box(box, origin, relative=True), relative=True)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
