"""YOLO segmentation: data.yaml, images/SPLIT and labels/SPLIT with one polygon per line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from samtune.data.config import SPLITS, DataConfig
from samtune.data.layouts.base import Layout, Settings, SplitRecords, some, unique_names
from samtune.data.layouts.drawn import DrawnMask, Shape, class_settings, kind_of, with_count
from samtune.data.problems import DataError, complain
from samtune.data.reading import image_size
from samtune.data.sources import Record, image_files
from samtune.errors import InputError

_OUTSIDE = 0.01
"""Corners may lie outside of the image by this part of its side, as rounding leaves them."""


@dataclass(frozen=True)
class YoloMask(DrawnMask):
    """The polygons of one text file; an image without one has no object."""

    image: Path
    classes: int

    def size(self) -> tuple[int, int]:
        """That of the image: polygons are parts of its sides."""
        return image_size(self.image)

    def shapes(self) -> list[Shape]:
        """The objects in the order of the file."""
        if not self.path.is_file():
            return []
        h, w = self.size()
        shapes, wrong = [], []
        for number, line in enumerate(self.path.read_text("utf-8").splitlines(), 1):
            if words := line.split():
                try:
                    category, corners = self._parsed(words, f"line {number}")
                except DataError as error:
                    wrong.append(error)
                    continue
                scaled = [v * (h if i % 2 else w) for i, v in enumerate(corners)]
                shapes.append(Shape(category, [scaled]))
        if wrong:
            raise with_count(wrong, "lines")
        return shapes

    def _parsed(self, words: list[str], where: str) -> tuple[int, list[float]]:
        def wrong(kind: str, what: str, remedy: str) -> DataError:
            return DataError(self.path, kind, f"{where} {what}", remedy)

        try:
            category, corners = int(words[0]), [float(word) for word in words[1:]]
        except ValueError:
            what = "is not a class number and corners"
            raise wrong("no polygon", what, "write it as 0 x y x y x y") from None
        if len(corners) == 4:
            remedy = "export the data set for segmentation"
            raise wrong("box, no polygon", "is a box, not a polygon", remedy)
        if len(corners) < 6 or len(corners) % 2:
            what = f"has {len(corners)} numbers after the class"
            raise wrong("wrong polygon", what, "a polygon has x and y of at least three corners")
        if not 0 <= category < self.classes:
            what = f"is of the class {category}, but data.yaml names {self.classes}"
            raise wrong("unknown class", what, "add its name there")
        outside = [v for v in corners if not -_OUTSIDE <= v <= 1 + _OUTSIDE]
        if outside:
            what = f"has the corner {outside[0]}"
            remedy = (
                "corners are parts of width and height, from 0 to 1, so divide pixels by the "
                "image's size"
            )
            raise wrong("corner outside", what, remedy)
        return category, [min(max(v, 0.0), 1.0) for v in corners]


def _fits(root: Path) -> bool:
    file = _yaml_file(root)
    return file is not None and {"names", "train"} <= _tree(file).keys()


def _yaml_file(root: Path) -> Path | None:
    if root.is_file():
        return root if root.suffix in (".yaml", ".yml") else None
    places = (root / "data.yaml", root / "data.yml", root / "dataset.yaml")
    return next((path for path in places if path.is_file()), None)


def _tree(file: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(file.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        what, remedy = "not readable as YAML", "save it again as UTF-8 text"
        raise DataError(file, "unreadable list", what, remedy) from error
    return tree if isinstance(tree, dict) else {}


def _settings(root: Path) -> tuple[Path, dict[str, Any], list[str]]:
    """The file, its content, and the class names in the order of their numbers."""
    file = _yaml_file(root)
    if file is None:
        raise InputError(f"{root}: has no data.yaml; set data.root to the folder that has it")
    tree = _tree(file)
    names = tree.get("names")
    if isinstance(names, dict) and list(names) == list(range(len(names))):
        names = list(names.values())
    if not isinstance(names, list) or not names:
        what, remedy = (
            "names no classes",
            "must name the classes from number 0 on, as in names: [cat]",
        )
        raise DataError(file, "no classes", what, remedy)
    if tree.get("nc", len(names)) != len(names):
        what = f"nc={tree['nc']}, but {len(names)} names"
        raise DataError(file, "other class count", what, "make both agree")
    return file, tree, [str(name) for name in names]


def _find(root: Path, config: DataConfig) -> SplitRecords:
    file, tree, names = _settings(root)
    kind = kind_of(config.masks)
    by_split: SplitRecords = {}
    for split in SPLITS:
        given = tree.get(split)
        if not given:
            continue
        images = _images(file, tree, split, given)
        if not images:
            continue
        labels = [_label_file(image) for image in images]
        if not any(label.is_file() for label in labels):
            what = f"none of the {len(images)} images of {split} has a text file in "
            what += str(labels[0].parent)
            complain(DataError(file, "split without labels", what, "put the labels there"))
        labelled = zip(images, labels, unique_names(images, file.parent), strict=True)
        by_split[split] = [
            Record(image, YoloMask(label, kind, image, len(names)), name)
            for image, label, name in labelled
        ]
    if not by_split:
        raise InputError(f"{file}: names no images; write them as train: images/train")
    return by_split


def _images(file: Path, tree: dict[str, Any], split: str, entries: Any) -> list[Path]:
    """The images of a split: of folders, or of text files that list them."""
    images: list[Path] = []
    lost = False
    for entry in entries if isinstance(entries, list) else [entries]:
        place = _place(file, tree, split, str(entry))
        if place is None:
            lost = True
        elif place.is_dir():
            images += image_files(place)
        else:
            lines = [line.strip() for line in place.read_text("utf-8").splitlines()]
            paths = [place.parent / line for line in lines if line]
            missing = [path for path in paths if not path.is_file()]
            lost = lost or bool(missing)
            if missing:
                count = f"{len(missing)} of its {len(paths)} images"
                what = f"{count} are not there ({some(missing)})"
                remedy = "add them, or remove the lines"
                complain(DataError(place, "missing image", what, remedy, missing))
            images += [path for path in paths if path.is_file()]
    if not images and not lost:
        what = f"{split}: {entries} holds no image"
        complain(DataError(file, "no image", what, "put the images there"))
    return sorted(images)


def _place(file: Path, tree: dict[str, Any], split: str, entry: str) -> Path | None:
    base = file.parent / str(tree.get("path") or "")
    # Roboflow writes ../train/images for the folder beside the file; others another machine's path
    inner = Path(entry).relative_to("..") if entry.startswith("../") else Path(entry)
    for place in (base / entry, file.parent / entry, file.parent / inner):
        if place.exists():
            return place
    remedy = f"set path and {split} to where the images are, relative to this file"
    complain(DataError(file, "missing folder", f"{split}: {entry} is not there", remedy))
    return None


def _label_file(image: Path) -> Path:
    """``images`` in the path, the last of them, becomes ``labels``."""
    parts = list(image.parts)
    at = [i for i, part in enumerate(parts[:-1]) if part == "images"]
    if at:
        parts[at[-1]] = "labels"
    return Path(*parts).with_suffix(".txt")


def _defaults(root: Path, given: Settings) -> Settings:
    return class_settings(_settings(root)[2], given.get("masks", "auto"))


LAYOUT = Layout(
    "yolo",
    "YOLO segmentation: data.yaml, images/SPLIT, labels/SPLIT/*.txt with one polygon per line",
    _fits,
    _find,
    _defaults,
)
