"""COCO's instance annotations: one JSON file a split, with images in folders beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from samtune.data.config import SPLITS, DataConfig
from samtune.data.layouts.base import Layout, Settings, SplitRecords, some, unique_names
from samtune.data.layouts.drawn import DrawnMask, Kind, Shape, class_settings, kind_of
from samtune.data.problems import DataError, complain
from samtune.data.sources import SPLIT_NAMES, Record
from samtune.errors import InputError

ROBOFLOW = "_annotations.coco.json"
_WORDS = ("instances", "annotations", "annotation", "coco")


@dataclass(frozen=True)
class CocoMask(DrawnMask):
    """The objects of one image, kept as the JSON text of their annotations."""

    height: int
    width: int
    objects: str
    """A list of ``[class, segmentation, crowd, name]``."""

    def size(self) -> tuple[int, int]:
        """As the annotation file says; other images are refused against the mask."""
        return self.height, self.width

    def shapes(self) -> list[Shape]:
        """The objects in the order of the file."""
        return [Shape(*each) for each in json.loads(self.objects)]


def _fits(root: Path) -> bool:
    return (root.suffix == ".json" and root.is_file()) or bool(_files(root))


def _find(root: Path, config: DataConfig) -> SplitRecords:
    files = _annotation_files(root)
    by_split: SplitRecords = {}
    names = _class_names(files)
    for split, file in files.items():
        try:
            by_split[split] = _records(file, split, root, kind_of(config.masks), names)
        except InputError as error:
            complain(error)
    return by_split


def _defaults(root: Path, given: Settings) -> Settings:
    names = _class_names(_annotation_files(root))
    return class_settings(list(names.values()), given.get("masks", "auto"))


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
    """Annotation files by split, at the three places where they are usual."""
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
    """The split in a file's name; ``None`` if it names none but is of annotations."""
    words = [word for word in re.split("[^a-z]+", file.stem.lower()) if word]
    split = next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)
    return split if split or set(words) & set(_WORDS) else _NO


@lru_cache(maxsize=4)
def _loaded(file: Path, modified: int) -> dict[str, Any]:
    try:
        tree = json.loads(file.read_text("utf-8"))
    except (ValueError, OSError) as error:
        what = f"not readable as JSON ({str(error).splitlines()[0]})"
        raise DataError(file, "unreadable list", what, "download it again") from error
    parts = ("images", "annotations", "categories")
    lists = isinstance(tree, dict) and all(isinstance(tree.get(part), list) for part in parts)
    if not lists:
        what = (
            "not an annotation file of COCO, which has lists of images, annotations and categories"
        )
        raise DataError(file, "no annotation file", what, "export it as COCO instances")
    return tree


def _tree(file: Path) -> dict[str, Any]:
    return _loaded(file, file.stat().st_mtime_ns)


def _class_names(files: dict[str | None, Path]) -> dict[int, str]:
    """Names of the categories by id, in the order of ids; the same in all files."""
    names: dict[int, str] = {}
    first = next(iter(files.values()))
    for file in files.values():
        with_clear_errors = _each(file, "categories", ("id", "name"))
        categories = dict(sorted((c["id"], str(c["name"])) for c in with_clear_errors))
        if not categories:
            remedy = "add those of its annotations"
            raise DataError(file, "no categories", "has no categories", remedy)
        if names and categories != names:
            what, remedy = (
                f"has other categories than {first.name}",
                "give all splits the same list",
            )
            raise DataError(file, "other categories", what, remedy)
        names = categories
    return names


def _each(file: Path, part: str, keys: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for i, entry in enumerate(_tree(file)[part]):
        if not isinstance(entry, dict) or not set(keys) <= entry.keys():
            what = f"entry {i} of {part} lacks one of {', '.join(keys)}"
            complain(DataError(file, "incomplete entry", what, "export it again"))
            continue
        yield entry


def _records(
    file: Path, split: str | None, root: Path, kind: Kind, names: dict[int, str]
) -> list[Record]:
    images = {e["id"]: e for e in _each(file, "images", ("id", "file_name", "height", "width"))}
    if not images:
        raise DataError(file, "empty list", "lists no image", "export it again")
    of_image: dict[Any, list[list[Any]]] = {key: [] for key in images}
    number = {key: i for i, key in enumerate(names)}
    for entry in _each(file, "annotations", ("image_id", "category_id")):
        wrong = _fault(entry, file, of_image, number)
        if wrong:
            complain(wrong)
            continue
        crowd, name = bool(entry.get("iscrowd", 0)), f"annotation {entry.get('id', '?')}"
        shape = [number[entry["category_id"]], entry["segmentation"], crowd, name]
        of_image[entry["image_id"]].append(shape)
    folder = _image_folder(file, split, root, [str(e["file_name"]) for e in images.values()])
    paths = {key: folder / str(entry["file_name"]) for key, entry in images.items()}
    missing = [path for path in paths.values() if not path.is_file()]
    if missing:
        lacks = some(p.name for p in missing)
        what = f"{len(missing)} of its {len(paths)} images are not in {folder} ({lacks})"
        remedy = "download them, or remove them from the file"
        complain(DataError(file, "missing image", what, remedy, missing))
        paths = {key: path for key, path in paths.items() if path.is_file()}
    labels = dict(zip(paths, unique_names(paths.values(), folder), strict=True))
    records = []
    for key, path in paths.items():
        size = int(images[key]["height"]), int(images[key]["width"])
        mask = CocoMask(file, kind, *size, json.dumps(of_image[key]))
        records.append(Record(path, mask, labels[key]))
    return sorted(records, key=lambda record: record.name)


def _fault(
    entry: dict[str, Any], file: Path, images: dict[Any, Any], categories: dict[int, int]
) -> DataError | None:
    """What is wrong with an annotation, if anything is."""
    where = f"annotation {entry.get('id', '?')}"
    if entry["image_id"] not in images:
        what = f"{where} is of the image {entry['image_id']}, which the file does not list"
        remedy = "add the image or remove the annotation"
        return DataError(file, "unknown image", what, remedy)
    if entry["category_id"] not in categories:
        what = f"{where} is of the category {entry['category_id']}, which the file does not list"
        return DataError(file, "unknown category", what, "add it to categories")
    if not entry.get("segmentation"):
        what = f"{where} has no segmentation, only a box"
        return DataError(file, "no outline", what, "annotate masks, or remove what has none")
    return None


def _image_folder(file: Path, split: str | None, root: Path, names: list[str]) -> Path:
    """The folder that the file names are relative to: of the usual ones that with the first."""
    base = file.parent.parent if file.parent.name.lower() == "annotations" else file.parent
    tops = [file.parent, base, *([root] if root.is_dir() else [])]
    tops += [folder / "images" for folder in (base, file.parent)]
    inner = [
        path
        for top in tops if top.is_dir()
        for path in sorted(top.iterdir())
        if path.is_dir() and (_split_of(path) == split or path.stem in file.stem)
    ]  # fmt: skip
    places = list(dict.fromkeys([*inner, *tops]))
    for name in (names[0], *names[1:50]):
        found = next((place for place in places if (place / name).is_file()), None)
        if found:
            return found
    what = f"its image {names[0]} was not found (looked in {some(places, 6)})"
    raise DataError(file, "missing image", what, "put the images into images/ beside the file")


LAYOUT = Layout(
    "coco",
    "COCO instances: annotations/instances_SPLIT.json, SPLIT.json or SPLIT/_annotations.coco.json",
    _fits,
    _find,
    _defaults,
)
