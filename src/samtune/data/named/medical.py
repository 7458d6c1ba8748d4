"""Microscopy and tomography: ISBI 2012 and Synapse."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from samtune.data.bounds import refuse_outside
from samtune.data.config import DataConfig
from samtune.data.named.arrays import FOLDER, LAYOUT, find_arrays
from samtune.data.named.base import NamedSet, incomplete, register
from samtune.data.named.folders import SplitRecords, bases, below, match_pairs
from samtune.data.named.parts import ArchiveItem, StackPage, VolumeSlice, open_volume
from samtune.data.problems import DataError, complain
from samtune.data.sources import Record, by_stem, image_files, lines_of

_HELD_OUT = 3
"""Every third slice, from the first on, belongs to the test."""
ORGANS = (
    "background", "aorta", "gallbladder", "left kidney", "right kidney", "liver", "pancreas",
    "spleen", "stomach",
)  # fmt: skip
"""Organs in the order of TransUNet's tables, assumed to be that of the label values, which no
document states."""
_CASES, _SLICES = "test_vol_h5", "train_npz"


def _isbi2012(root: Path, config: DataConfig) -> SplitRecords:
    """ISBI 2012 with the split of Generalized SAM: slices 0, 3, 6 ... are the test.

    The authors publish the labels of 30 slices; 30 more slices without labels are not read. Values
    above 149 are cell interior, other values membrane.
    """
    for base in bases(root, ("data", "ISBI2012")):
        stack, truth = (base / f"train-{what}.tif" for what in ("volume", "labels"))
        if stack.is_file() or truth.is_file():
            return _held_out(_pages(root, stack, truth))
        images = below(base, "images|image|imgs|img")
        labels = below(base, "masks|mask|labels|label|gt")
        if images and labels:
            return _held_out(_slices(root, images, labels))
    raise incomplete("isbi2012", root, ["images/", "labels/", "train-volume.tif"])


def _held_out(groups: list[list[Record]]) -> SplitRecords:
    found: SplitRecords = {"train": [], "test": []}
    for i, group in enumerate(groups):
        found["train" if i % _HELD_OUT else "test"] += group
    return {split: sorted(rs, key=lambda record: record.name) for split, rs in found.items()}


def _pages(root: Path, stack: Path, truth: Path) -> list[list[Record]]:
    import tifffile

    missing = [path.name for path in (stack, truth) if not path.is_file()]
    if missing:
        raise incomplete("isbi2012", root, missing)
    counts = []
    for path in (stack, truth):
        try:
            with tifffile.TiffFile(path) as file:
                counts.append(len(file.pages))
        except (OSError, ValueError) as error:
            remedy = "download it again"
            raise DataError(path, "unreadable stack", f"no TIFF stack ({error})", remedy) from error
    if counts[0] != counts[1]:
        short = (stack, truth)[counts[0] > counts[1]]
        raise incomplete("isbi2012", root, [f"{abs(counts[0] - counts[1])} pages of {short.name}"])
    return [
        [Record(StackPage(stack, i), StackPage(truth, i), f"slice{i:02d}")]
        for i in range(counts[0])
    ]


def _slices(root: Path, images: Path, labels: Path) -> list[list[Record]]:
    """The pairs of each group: one group of files in two folders, or one per subfolder."""
    if image_files(images):
        return [[record] for record in _numbered(root, images, labels, "")]
    groups = {p.name: p for p in images.iterdir() if p.is_dir()}
    truths = {p.name: p for p in labels.iterdir() if p.is_dir()}
    pairs = match_pairs("isbi2012", root, groups, truths, images.name)
    pairs.sort(key=lambda pair: _natural(pair[0]))
    return [_numbered(root, a, b, f"{name}_") for name, a, b in pairs]


def _numbered(root: Path, images: Path, labels: Path, prefix: str) -> list[Record]:
    """Pairs by the number at the end of names: ``train-volume07`` and ``train-labels07``."""
    tables = []
    for folder in (images, labels):
        files = image_files(folder)
        tables.append(by_stem(files, [_number(file.stem) for file in files] or None))
    pairs = match_pairs("isbi2012", root, tables[0], tables[1], images.name)
    records = [Record(image, truth, prefix + image.stem) for _, image, truth in pairs]
    return sorted(records, key=lambda record: _natural(record.name))


def _number(stem: str) -> str:
    digits = re.search(r"\d+$", stem)
    return str(int(digits[0])) if digits else stem


def _natural(text: str) -> list[tuple[int, str]]:
    """A key that sorts 9 before 10."""
    return [(int(t), "") if t.isdigit() else (-1, t) for t in re.split(r"(\d+)", text) if t]


def _synapse(root: Path, config: DataConfig) -> SplitRecords:
    """Synapse as TransUNet prepares it: slices for training, volumes for the test; or arrays.

    Images are windowed to 0..1, black to white, and clipped. The lists are used if they exist,
    otherwise all files. Slices of a case stay in one split.
    """
    for base in bases(root, ("Synapse", "data/Synapse")):
        arrays = below(base, FOLDER)
        if arrays:
            return find_arrays("synapse", root, arrays)
        files = partial(_files, root, base, config.outside)
        slices, volumes = below(base, _SLICES), below(base, _CASES)
        if slices and volumes:
            train = _train(files(slices, ".npz", "train.txt"))
            return {"train": train, "test": _test(root, files(volumes, ".npy.h5", "test_vol.txt"))}
        if slices or volumes:
            raise incomplete("synapse", root, [_CASES if slices else _SLICES])
    raise incomplete("synapse", root, [_SLICES, _CASES])


def _files(
    root: Path, base: Path, outside: bool, folder: Path, ending: str, listing: str
) -> list[Path]:
    """The files in a list, or all files."""
    places = [below(root, "lists/lists_Synapse"), below(base, "lists/lists_Synapse")]
    places += [below(root, "lists_Synapse"), below(base, "lists_Synapse")]
    lists = [place / listing for place in places if place and (place / listing).is_file()]
    files = sorted(folder.glob(f"*{ending}"))
    if lists:
        names = set(lines_of(lists[0]))
        files = sorted(folder / f"{name.removesuffix(ending)}{ending}" for name in names)
        files = refuse_outside(lists[0], files, root, outside)
    lacks = [file for file in files if not file.is_file()]
    if lacks:
        missing = [f"{folder.name}/{file.name}" for file in lacks]
        complain(incomplete("synapse", root, missing, lacks))
    elif not files:
        complain(incomplete("synapse", root, [f"{folder.name}/*{ending}"]))
    return [file for file in files if file.is_file()]


def _train(files: Sequence[Path]) -> list[Record]:
    return [
        Record(
            ArchiveItem(path, "image", unit=True),
            ArchiveItem(path, "label"),
            path.stem,
            path.stem.split("_slice")[0],
        )
        for path in files
    ]


def _test(root: Path, files: Sequence[Path]) -> list[Record]:
    records = []
    for path in files:
        try:
            with open_volume(path) as file:
                depth, labels = len(file["image"]), len(file["label"])
        except (OSError, KeyError) as error:
            what = "cannot be read as an HDF5 file of image and label"
            wrong = DataError(path, "unreadable volume", what, "download it again")
            wrong.__cause__ = error
            complain(wrong)
            continue
        if depth != labels:
            lacks = [f"slices of {path.name} ({depth} and {labels})"]
            complain(incomplete("synapse", root, lacks, [path]))
            continue
        case = path.name.removesuffix(".npy.h5")
        records += [
            Record(
                VolumeSlice(path, "image", z, unit=True),
                VolumeSlice(path, "label", z),
                f"{case}_slice{z:03d}",
                case,
            )
            for z in range(depth)
        ]
    return records


register(
    NamedSet(
        "isbi2012",
        "ISBI 2012",
        "cell interiors in electron microscopy; membranes with data.invert=true",
        "Arganda-Carreras et al. 2015, Frontiers in Neuroanatomy",
        "https://imagej.net/events/isbi-2012-segmentation-challenge",
        (
            "train-volume.tif and train-labels.tif",
            "{images,labels}/ (one image per slice, as data/images/train-volume00.jpg and "
            "data/labels/train-labels00.jpg, or 0.png in both)",
            "{Image,Label}/GROUP/ (one image per slice)",
        ),
        {"train": 20, "test": 10},
        _isbi2012,
        {"masks": "binary", "threshold": 149},
    )
)
register(
    NamedSet(
        "synapse",
        "Synapse multi-organ CT",
        "abdominal organs in CT slices",
        "Landman et al. 2015, MICCAI challenge; prepared by Chen et al. 2021 (TransUNet)",
        "https://github.com/Beckschen/TransUNet",
        (
            "train_npz/CASE_sliceNNN.npz and test_vol_h5/CASE.npy.h5 (with or without "
            "lists/lists_Synapse/{train,test_vol}.txt)",
            LAYOUT,
        ),
        {"train": 2211, "test": 1568},
        _synapse,
        {"masks": "classes", "classes": 9, "class_names": ORGANS, "background": 0},
    )
)
