"""YOLO segmentation: data.yaml, images/SPLIT and labels/SPLIT with one polygon per line."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from samtune.data.config import SPLITS, DataConfig
from samtune.data.layouts.base import Layout, Settings, SplitRecords, some, unique_names
from samtune.data.layouts.drawn import DrawnMask, Shape, class_settings, kind_of, with_count
from samtune.data.layouts.yolo_places import YamlPlaces
from samtune.data.problems import DataError, complain, remark
from samtune.data.reading import image_size
from samtune.data.sources import SPLIT_NAMES, Record, image_files, lines_of
from samtune.errors import InputError
from samtune.texts import read_text
from samtune.texts.plain_yaml import as_words, reason_of

_OUTSIDE = 0.01
"""Fraction of the image's side by which corners may lie outside, as rounding leaves them."""


_NUMBER = re.compile(r"[-+]?\d*\.?\d+(?:[eE][-+]?\d+)?")


@dataclass(frozen=True)
class YoloMask(DrawnMask):
    """The polygons of one text file; an image without a file has no object."""

    image: Path
    classes: int

    def size(self) -> tuple[int, int]:
        """The size of the image, because polygons are fractions of its sides."""
        return image_size(self.image)

    def shapes(self) -> list[Shape]:
        """The objects in the order of the file."""
        if not self.path.is_file():
            return []
        h, w = self.size()
        shapes, wrong = [], []
        lines = list(enumerate(read_text(self.path, "replace").splitlines(), 1))
        first = {" ".join(line.split()): number for number, line in reversed(lines)}
        again = [n for n, line in lines if line.split() and first[" ".join(line.split())] != n]
        for number, line in lines:
            if (words := line.split()) and number not in again:
                try:
                    category, corners = self._parsed(words, f"line {number}")
                except DataError as error:
                    wrong.append(error)
                    continue
                scaled = [v * (h if i % 2 else w) for i, v in enumerate(corners)]
                shapes.append(Shape(category, [scaled], name=f"line {number}"))
        if again:
            what = f"line {again[0]} is a repetition, as {len(again)} lines are; each is used once"
            remark(self.path, "annotation twice", what, "legal; remove the repeated lines")
        if wrong:
            raise with_count(wrong, "lines")
        return shapes

    def _parsed(self, words: list[str], where: str) -> tuple[int, list[float]]:
        def wrong(kind: str, what: str, remedy: str) -> DataError:
            return DataError(self.path, kind, f"{where} {what}", remedy)

        try:
            number, *corners = (float(word) for word in words)
            category = int(number)
            if category != number:
                raise ValueError
        except (ValueError, OverflowError):
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
                "corners are fractions of width and height, from 0 to 1, so divide pixels by the "
                "image's size"
            )
            raise wrong("corner outside", what, remedy)
        return category, [min(max(v, 0.0), 1.0) for v in corners]


def _fits(root: Path) -> bool:
    file = _yaml_file(root)
    if file is not None:
        return bool(_tree(file).keys() & {"train", "val"}) or bool(_bare(root))
    return bool(_bare(root))


def _yaml_file(root: Path) -> Path | None:
    if root.is_file():
        return root if root.suffix in (".yaml", ".yml") else None
    places = (root / "data.yaml", root / "data.yml", root / "dataset.yaml")
    named = next((path for path in places if path.is_file()), None)
    others = sorted(root.glob("*.y*ml")) if named is None and root.is_dir() else []
    alike = [path for path in others if {"train", "names"} <= _tree(path).keys()]
    return alike[0] if len(alike) == 1 else named


def _tree(file: Path) -> dict[str, Any]:
    """The file with all words as written, because YAML converts yes, no and 007 to other values."""
    try:
        tree = as_words(read_text(file))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        what = f"not readable as YAML ({reason_of(error)})"
        remedy = "correct it, and save it as UTF-8 text"
        raise DataError(file, "unreadable list", what, remedy) from error
    return tree if isinstance(tree, dict) else {}


def _bare(root: Path) -> dict[str | None, Path]:
    """Folders of images by split beside folders of text files, without a data.yaml for them."""
    if not root.is_dir():
        return {}
    folders: dict[str | None, Path] = {}
    labelled = False
    for folder in sorted(p for p in root.rglob("images") if len(p.relative_to(root).parts) < 3):
        above = folder.parent if folder.parent != root else None
        inner = [
            p for p in sorted(folder.iterdir()) if p.is_dir() and p.name.lower() in SPLIT_NAMES
        ]
        for part in inner or [folder]:
            named = part if inner else above
            split = SPLIT_NAMES.get(named.name.lower()) if named is not None else None
            labels = _label_file(part / "x").parent
            texts = labels.is_dir() and next(labels.glob("*.txt"), None) is not None
            if not labels.is_dir() or not image_files(labels):
                folders[split] = part
                labelled = labelled or texts
    if not folders:
        folders = _texts_beside(root)
        labelled = bool(folders)
    order = (*SPLITS, None) if labelled else ()
    return {split: folders[split] for split in order if split in folders}


def _texts_beside(root: Path) -> dict[str | None, Path]:
    """The root, or its folders of splits, if text files of polygons lie beside their images."""
    places: dict[str | None, Path] = {None: root}
    places |= {SPLIT_NAMES[p.name.lower()]: p for p in sorted(root.iterdir())
               if p.is_dir() and p.name.lower() in SPLIT_NAMES}  # fmt: skip
    return {split: place for split, place in places.items() if _holds_polygons(place)}


def _holds_polygons(folder: Path) -> bool:
    """Whether the first image with a text file has polygons rather than boxes."""
    texts = (image.with_suffix(".txt") for image in image_files(folder))
    for text in (path for path in texts if path.is_file()):
        words = next((line.split() for line in lines_of(text, "replace")), [])
        if words:
            return len(words) > 4 and all(_NUMBER.fullmatch(word) for word in words)
    return False


def _settings(root: Path, outside: bool) -> tuple[Path, dict[str, Any], list[str]]:
    """The file or folder, its content, and the class names ordered by number."""
    file = _yaml_file(root)
    if file is None:
        folders = _bare(root)
        if not folders:
            raise InputError(f"{root}: has no data.yaml; set data.root to the folder that has it")
        return root, {}, _names_beside(root) or _numbered(_largest(folders.values()) + 1)
    tree = _tree(file)
    names = _names(tree.get("names"), file) or _names_beside(file.parent)
    count = _count(tree.get("nc"), file)
    if not names:
        if count is None:
            places = YamlPlaces(file, tree, outside)
            folders_of = (_folders_of(places, _entries(tree, split)) for split in SPLITS)
            count = _largest(place for folders in folders_of for place in folders) + 1
        if not count:
            what, remedy = (
                "names no classes",
                "must name the classes from number 0 on, as in names: [cat]",
            )
            raise DataError(file, "no classes", what, remedy)
        names = _numbered(count)
    if count not in (None, len(names)):
        what = f"nc={tree['nc']}, but {len(names)} names"
        raise DataError(file, "other class count", what, "make both agree")
    return file, tree, names


def _names(value: Any, file: Path) -> list[str]:
    """Class names as written: a list, a mapping in either direction, or text of one of these."""
    if isinstance(value, str) and value.strip():
        try:
            inner = as_words(value)
        except yaml.YAMLError:
            inner = value
        value = [v.strip() for v in inner.split(",")] if isinstance(inner, str) else inner
    if isinstance(value, dict):
        numbers = all(_is_whole(key) for key in value)
        turned = not numbers and all(_is_whole(number) for number in value.values())
        by_number = {int(v): k for k, v in value.items()} if turned else {}
        by_number = {int(k): v for k, v in value.items()} if numbers else by_number
        if sorted(by_number) != list(range(len(value))):
            what, remedy = (
                "names no classes",
                "must name the classes from number 0 on, as in names: [cat]",
            )
            raise DataError(file, "no classes", what, remedy)
        value = [by_number[i] for i in range(len(by_number))]
    return [str(name) for name in value] if isinstance(value, list) else []


def _is_whole(value: Any) -> bool:
    return str(value).strip().isdigit()


def _count(value: Any, file: Path) -> int | None:
    if value is None or not str(value).strip():
        return None
    if not _is_whole(value):
        remedy = "write the number of classes, or leave it out"
        raise DataError(file, "other class count", f"nc={value} is no number", remedy)
    return int(value)


def _numbered(count: int) -> list[str]:
    return [f"class {i}" for i in range(count)]


def _names_beside(folder: Path) -> list[str]:
    """Names from a list beside the labels, one per line, as annotation tools write it."""
    for name in ("classes.txt", "obj.names", "classes.names", "labels/classes.txt"):
        if (folder / name).is_file():
            return lines_of(folder / name, "replace")
    return []


def _largest(folders: Iterable[Path]) -> int:
    """The largest class number in the text files beside folders of images; -1 if there is none."""
    largest = -1
    for folder in folders:
        labels = _label_file(folder / "x").parent
        for file in sorted(labels.glob("*.txt")) if labels.is_dir() else ():
            for line in lines_of(file, "replace"):
                word = line.split()[0]
                largest = max(largest, int(word) if word.isdigit() else -1)
    return largest


def _folders_of(places: YamlPlaces, entries: Iterable[str]) -> list[Path]:
    there = [places.find(entry) for entry in entries]
    return [place for place in there if place is not None and place.is_dir()]


def _entries(tree: dict[str, Any], split: str) -> list[str]:
    """The entries of the file for a split, under any of its usual names."""
    names = [split, *(name for name, meant in SPLIT_NAMES.items() if meant == split)]
    value = next((tree[name] for name in names if tree.get(name)), None)
    listed = value if isinstance(value, list) else [value]
    return [str(entry) for entry in listed if entry]


def _find(root: Path, config: DataConfig) -> SplitRecords:
    file, tree, names = _settings(root, config.outside)
    kind = kind_of(config.masks)
    base = file.parent if file.is_file() else file
    by_split: SplitRecords = {}
    for split, images in _all_images(file, tree, config.outside).items():
        labels = [_label_file(image) for image in images]
        if not any(label.is_file() for label in labels):
            what = f"none of the {len(images)} images of {split} has a text file in "
            what += str(labels[0].parent)
            complain(DataError(file, "split without labels", what, "put the labels there"))
        labelled = zip(images, labels, unique_names(images, base), strict=True)
        by_split[split] = [
            Record(image, YoloMask(label, kind, image, len(names)), name)
            for image, label, name in labelled
        ]
    if not by_split:
        raise InputError(f"{file}: names no images; write them as train: images/train")
    return by_split


def _all_images(file: Path, tree: dict[str, Any], outside: bool) -> dict[str | None, list[Path]]:
    """The images of each split that has any."""
    if not any(_entries(tree, split) for split in SPLITS):
        folders = _bare(file.parent if file.is_file() else file)
        return {split: image_files(folder) for split, folder in folders.items()}
    by_split: dict[str | None, list[Path]] = {}
    for split in SPLITS:
        if entries := _entries(tree, split):
            images = _images(YamlPlaces(file, tree, outside), split, entries)
            if images:
                by_split[split] = images
    return by_split


def _images(places: YamlPlaces, split: str, entries: list[str]) -> list[Path]:
    """The images of a split, from folders or from text files that list them."""
    images: list[Path] = []
    lost = False
    for entry in entries:
        place = places.find(entry)
        if place is None:
            lost = True
            what = f"{split}: {entry} is not there"
            remedy = f"set path and {split} to where the images are, relative to this file"
            missing = DataError(places.file, "missing folder", what, remedy)
            complain(places.refusal(places.file, [entry]) or missing)
        elif place.is_dir():
            images += image_files(place) or image_files_below(place)
        else:
            listed = _of_list(places, place)
            images += [path for path in listed if path is not None]
            lost = lost or None in listed
    if not images and not lost:
        what = f"{split}: {', '.join(entries)} holds no image"
        complain(DataError(places.file, "no image", what, "put the images there"))
    return sorted(images)


def _of_list(places: YamlPlaces, listing: Path) -> list[Path | None]:
    """The images in a text file, one path per line; ``None`` for each that is not found."""
    lines, near = lines_of(listing, "surrogateescape"), listing.parent
    paths = [places.find(line, near) for line in lines]
    paths = [path if path is not None and path.is_file() else None for path in paths]
    lacking = [line for line, path in zip(lines, paths, strict=True) if path is None]
    if lacking:
        absent = [near / line.replace("\\", "/") for line in lacking]
        what = f"{len(absent)} of its {len(paths)} images are not there ({some(absent)})"
        remedy = "add them, or remove the lines"
        missing = DataError(listing, "missing image", what, remedy, absent)
        complain(places.refusal(listing, lacking, near) or missing)
    return paths


def image_files_below(folder: Path) -> list[Path]:
    """The image files in the folder ``images`` of a split's folder."""
    inner = folder / "images"
    return image_files(inner) if inner.is_dir() else []


def _label_file(image: Path) -> Path:
    """The label file: the last ``images`` in the path becomes ``labels``; or beside the image."""
    parts = list(image.parts)
    at = [i for i, part in enumerate(parts[:-1]) if part.lower() == "images"]
    if at:
        parts[at[-1]] = "labels"
    file, beside = Path(*parts).with_suffix(".txt"), image.with_suffix(".txt")
    return beside if beside.is_file() and not file.is_file() else file


def _defaults(root: Path, given: Settings) -> Settings:
    names = _settings(root, bool(given.get("outside")))[2]
    return class_settings(names, given.get("masks", "auto"))


LAYOUT = Layout(
    "yolo",
    "YOLO segmentation: images/SPLIT, labels/SPLIT/*.txt with one polygon per line, data.yaml",
    _fits,
    _find,
    _defaults,
)
