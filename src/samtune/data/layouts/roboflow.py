"""Roboflow's "Semantic Segmentation Masks": a mask beside each image, and _classes.csv."""

from __future__ import annotations

from pathlib import Path

from samtune.data.config import SPLITS, DataConfig
from samtune.data.layouts.base import Layout, Settings, SplitRecords, some
from samtune.data.problems import DataError, complain
from samtune.data.sources import SPLIT_NAMES, Record, by_stem, image_files, lines_of
from samtune.texts import parse_csv

CLASSES = "_classes.csv"
_ENDING = "_mask"


def _folders(root: Path) -> dict[str | None, Path]:
    """The folders with a list of classes, by split."""
    if not root.is_dir():
        return {}
    parts = {p.name.lower(): p for p in sorted(root.iterdir()) if (p / CLASSES).is_file()}
    found: dict[str | None, Path] = {
        SPLIT_NAMES[name]: path for name, path in parts.items() if name in SPLIT_NAMES
    }
    if not found and (root / CLASSES).is_file():
        return {None: root}
    return {split: found[split] for split in SPLITS if split in found}


def _names(folder: Path) -> list[str]:
    """Class names by pixel value."""
    file = folder / CLASSES
    try:
        rows = list(parse_csv(lines_of(file), skip_spaces=True))
        names = {int(row[0]): row[1].strip() for row in rows[1:] if row}
    except (ValueError, IndexError) as error:
        what = "is not a list of pixel values and classes"
        raise DataError(file, "unreadable list", what, "export it again") from error
    return [names.get(i, f"class {i}") for i in range(max(names, default=-1) + 1)]


def _find(root: Path, config: DataConfig) -> SplitRecords:
    by_split: SplitRecords = {}
    folders = _folders(root)
    if not folders:
        what = f"holds no folder train, valid or test with {CLASSES}"
        raise DataError(root, "no annotation file", what, "set data.root to the export")
    first = _names(next(iter(folders.values())))
    for split, folder in folders.items():
        if _names(folder) != first:
            what = "lists other classes than the first split"
            complain(DataError(folder / CLASSES, "other categories", what, "export all together"))
        files = by_stem(image_files(folder), [_stem(p) for p in image_files(folder)])
        masks = {s.removesuffix(_ENDING): p for s, p in files.items() if s.endswith(_ENDING)}
        images = {s: p for s, p in files.items() if not s.endswith(_ENDING)}
        alone = [p for s, p in images.items() if s not in masks]
        alone += [p for s, p in masks.items() if s not in images]
        if alone:
            what = f"{len(alone)} file(s) without a partner ({some(p.name for p in alone)})"
            remedy = "each image needs its NAME_mask.png; export it again"
            complain(DataError(folder, "unmatched mask", what, remedy, alone))
        both = sorted(images.keys() & masks.keys())
        by_split[split] = [Record(images[s], masks[s], s) for s in both]
    return by_split


def _stem(path: Path) -> str:
    return path.name.rpartition(".")[0]


def _defaults(root: Path, given: Settings) -> Settings:
    folders = _folders(root)
    names = _names(next(iter(folders.values()))) if folders else []
    masks = given.get("masks", "classes")
    if masks != "classes":
        return {"masks": masks}
    known = {"masks": masks, "classes": len(names), "class_names": tuple(names)}
    return {**known, "background": 0}


LAYOUT = Layout(
    "roboflow",
    "Roboflow's semantic masks: train/IMAGE.jpg, train/IMAGE_mask.png, train/_classes.csv",
    lambda root: bool(_folders(root)),
    _find,
    _defaults,
)
