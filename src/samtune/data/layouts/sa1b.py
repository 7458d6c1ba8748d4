"""SA-1B: pictures, each with a JSON file that holds the run lengths of its masks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from samtune.data.config import DataConfig
from samtune.data.layouts.base import Layout, Settings, SplitRecords, some
from samtune.data.layouts.drawn import DrawnMask, Shape, class_settings, kind_of
from samtune.data.problems import DataError, complain
from samtune.data.sources import Record, by_stem, existing_folder, image_files
from samtune.errors import InputError
from samtune.texts import read_json


@dataclass(frozen=True)
class Sa1bMask(DrawnMask):
    """The masks of one JSON file."""

    def size(self) -> tuple[int, int]:
        """The size from the file."""
        image = _tree(self.path)["image"]
        return int(image["height"]), int(image["width"])

    def shapes(self) -> list[Shape]:
        """The masks in the order of the file, all of one class."""
        return [Shape(0, entry["segmentation"]) for entry in _tree(self.path)["annotations"]]

    def object_classes(self) -> None:
        """One class for all."""


@lru_cache(maxsize=16)
def _loaded(path: Path, modified: int) -> dict[str, Any]:
    tree = read_json(path)
    sized = isinstance(tree, dict) and {"height", "width"} <= set(tree.get("image", ()))
    masks = tree.get("annotations") if sized else None
    whole = isinstance(masks, list) and all(
        isinstance(entry, dict) and "segmentation" in entry for entry in masks
    )
    if not whole:
        raise InputError(
            f"{path}: not a file of SA-1B, which has image with height and width, and annotations "
            "with segmentation; download it again"
        )
    return tree


def _tree(path: Path) -> dict[str, Any]:
    return _loaded(path, path.stat().st_mtime_ns)


def _folders(root: Path) -> list[Path]:
    """The folder itself, or its subfolders, that hold JSON files beside pictures."""
    folders = [root, *sorted(p for p in root.iterdir() if p.is_dir())] if root.is_dir() else []
    return [folder for folder in folders if next(folder.glob("sa_*.json"), None)]


def _fits(root: Path) -> bool:
    return any(next(folder.glob("sa_*.jp*g"), None) for folder in _folders(root))


def _find(root: Path, config: DataConfig) -> SplitRecords:
    folders = _folders(existing_folder(root))
    if not folders:
        raise InputError(f"{root}: no files sa_*.json; set data.root to the unpacked folder")
    images = by_stem(path for folder in folders for path in image_files(folder))
    masks = by_stem(path for folder in folders for path in sorted(folder.glob("sa_*.json")))
    for stems, have, lack in ((images, masks, "JSON file"), (masks, images, "picture")):
        alone = [stems[stem] for stem in sorted(stems.keys() - have.keys())]
        if alone:
            names = some(path.name for path in alone)
            what = f"{len(alone)} file(s) without a {lack} of the same stem ({names})"
            remedy = "unpack the archive again, or remove them"
            complain(DataError(root, f"no {lack}", what, remedy, alone))
    kind, both = kind_of(config.masks), sorted(images.keys() & masks.keys())
    return {None: [Record(images[s], Sa1bMask(masks[s], kind), s) for s in both]}


def _defaults(root: Path, given: Settings) -> Settings:
    return class_settings(["object"], given.get("masks", "auto"))


LAYOUT = Layout(
    "sa1b", "SA-1B: sa_*.jpg beside sa_*.json with run lengths", _fits, _find, _defaults
)
