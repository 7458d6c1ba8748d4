"""nnU-Net's raw data sets: dataset.json, imagesTr, labelsTr, imagesTs, and perhaps labelsTs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samtune.data.config import DataConfig
from samtune.data.layouts.base import Layout, Settings, SplitRecords, some
from samtune.data.problems import DataError, complain
from samtune.data.reading import image_size, read_channels
from samtune.data.sources import Record, existing_folder, sliced
from samtune.data.stored import Stored
from samtune.data.volumes import is_volume
from samtune.errors import InputError
from samtune.texts import read_json

_CHANNEL = re.compile(r"_(\d{4})$")
_KINDS = {"file_ending": str, "channel_names": dict, "labels": dict}
"""Required entries of dataset.json, with their types."""


@dataclass(frozen=True)
class Channels(Stored):
    """An image whose channels are separate files or slices."""

    parts: tuple[Path | Stored, ...]

    def read(self) -> NDArray:
        """``(h, w, channels)`` as stored."""
        planes = [read_channels(part) for part in self.parts]
        sizes = {plane.shape[:2] for plane in planes}
        if len(sizes) > 1:
            raise InputError(
                f"{self.path}: its channels differ in size ({some(sorted(sizes))}); resample them"
            )
        join = np.ma.concatenate if any(map(np.ma.isMaskedArray, planes)) else np.concatenate
        return join([plane[..., :1] for plane in planes], axis=2)

    def size(self) -> tuple[int, int]:
        """Height and width."""
        return image_size(self.parts[0])


def _fits(root: Path) -> bool:
    return (root / "dataset.json").is_file() and (root / "imagesTr").is_dir()


def _tree(root: Path) -> dict[str, Any]:
    file = existing_folder(root) / "dataset.json"
    if not file.is_file():
        raise InputError(
            f"{root}: has no dataset.json; set data.root to nnUNet_raw/DatasetNNN_NAME"
        )
    try:
        tree = read_json(file)
    except (ValueError, OSError) as error:
        raise InputError(f"{file}: not readable as JSON ({error}); write it again") from error
    missing = [key for key in _KINDS if not isinstance(tree, dict) or key not in tree]
    if missing:
        raise InputError(
            f"{file}: lacks {', '.join(missing)}, which nnU-Net v2 has; convert it with "
            "nnUNetv2_convert_old_nnUNet_dataset"
        )
    for key, kind in _KINDS.items():
        if not isinstance(tree[key], kind) or set(tree["file_ending"]) & set("/\\*?["):
            what = f"{key}={str(tree[key])[:60]} is none"
            raise DataError(file, "wrong entry", what, "write it as nnU-Net v2 does")
    return tree


def _class_names(root: Path) -> tuple[list[str], int | None]:
    """Names in the order of their values, and the ignored value."""
    labels = dict(_tree(root)["labels"])
    file = root / "dataset.json"
    regions = [name for name, value in labels.items() if not isinstance(value, int)]
    if regions:
        raise InputError(
            f"{file}: labels has regions ({some(regions)}), but a class here is one value; give "
            "each value a name"
        )
    ignore = labels.pop("ignore", None)
    names = {value: name for name, value in labels.items()}
    if sorted(names) != list(range(len(labels))):
        raise InputError(
            f"{file}: labels has the values {sorted(labels.values())}; they must count from 0 for "
            "background"
        )
    return [names[value] for value in range(len(names))], ignore


def _find(root: Path, config: DataConfig) -> SplitRecords:
    tree = _tree(root)
    found: SplitRecords = {None: _records(root, "Tr", tree, config)}
    if (root / "labelsTs").is_dir():
        found = {"train": found[None], "test": _records(root, "Ts", tree, config)}
    return found


def _records(root: Path, part: str, tree: dict[str, Any], config: DataConfig) -> list[Record]:
    images, labels = root / f"images{part}", root / f"labels{part}"
    ending = tree["file_ending"]
    cases = _cases(images, ending)
    masks = {
        p.name.removesuffix(ending): p for p in sorted(existing_folder(labels).glob("*" + ending))
    }
    first = f"_0000{ending}"
    for have, lack, folder, end in ((cases, masks, labels, ending), (masks, cases, images, first)):
        alone = sorted(have.keys() - lack.keys())
        if alone:
            what = f"has no file for {len(alone)} case(s) ({some(alone)})"
            files = [folder / f"{case}{end}" for case in alone]
            remedy = "add them, or remove their partners"
            complain(DataError(folder, "missing file", what, remedy, files))
    if not cases:
        return []
    names = list(tree["channel_names"].values())
    # a colour picture is one file of three channels
    wanted = len(names) if len(names) != 3 or is_volume(next(iter(cases.values()))[0]) else 1
    wanted = max(wanted, *(len(files) for files in cases.values()), 0)
    records = []
    for case, files in sorted(cases.items()):
        if len(files) != wanted or wanted not in (1, len(names)):
            what = f"the case {case} has {len(files)} channels, but dataset.json names {len(names)}"
            complain(DataError(files[0], "missing channel", what, "add the missing files"))
            continue
        if len(files) not in (1, 3) and config.bands is None:
            raise InputError(
                f"{root}: has the channels {some(names, 9)}, but a model takes three; choose one "
                "or "
                "three with data.bands, as in data.bands=[0]"
            )
        if case in masks:
            records += _case(case, files, masks[case], config)
    return records


def _cases(folder: Path, ending: str) -> dict[str, list[Path]]:
    """The files of each case, ordered by channel."""
    cases: dict[str, list[Path]] = {}
    files = sorted(existing_folder(folder).glob("*" + ending))
    if not files:
        raise InputError(f"{folder}: holds no file *{ending}; check file_ending in dataset.json")
    for file in files:
        stem = file.name.removesuffix(ending)
        number = _CHANNEL.search(stem)
        if number is None:
            what, remedy = "has no channel number in its name", f"call it {stem}_0000{ending}"
            complain(DataError(file, "no channel number", what, remedy))
            continue
        of_case = cases.setdefault(stem[: number.start()], [])
        if int(number[1]) != len(of_case):
            what = f"the channel {len(of_case):04d} before it is missing"
            complain(DataError(file, "missing channel", what, "add its file"))
        of_case.append(file)
    return cases


def _case(case: str, files: list[Path], mask: Path, config: DataConfig) -> list[Record]:
    """The images of one case: a picture, or the slices of a volume, with all channels."""
    channels = [sliced([Record(file, mask, case)], config.slice_axis) for file in files]
    first = channels[0]
    if len(files) == 1 or not all(channels):  # one of them was reported
        return first if len(files) == 1 else []
    return [
        Record(Channels(files[0], parts), first[i].mask, first[i].name, first[i].group)
        for i, parts in enumerate(zip(*([r.image for r in c] for c in channels), strict=True))
    ]


def _defaults(root: Path, given: Settings) -> Settings:
    names, ignore = _class_names(root)
    masks = given.get("masks", "classes")
    if masks != "classes":
        return {"masks": masks, "ignore": ignore}
    return {
        "masks": masks,
        "classes": len(names),
        "class_names": tuple(names),
        "background": 0,
        "ignore": ignore,
    }


LAYOUT = Layout(
    "nnunet",
    "nnU-Net v2 raw: dataset.json, imagesTr/CASE_0000.nii.gz, labelsTr/CASE.nii.gz, perhaps Ts",
    _fits,
    _find,
    _defaults,
)
