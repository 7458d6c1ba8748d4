"""Scenes with several classes: CamVid, Cityscapes, Trans10K."""

from __future__ import annotations

from pathlib import Path

from samtune.data.bounds import refuse_outside
from samtune.data.config import DataConfig
from samtune.data.named.base import NamedSet, incomplete, register
from samtune.data.named.folders import (
    Packing,
    Part,
    SplitRecords,
    bases,
    below,
    by_split,
    find_packed,
    match_pairs,
    packed,
)
from samtune.data.named.parts import Colour, Coloured, Renumbered
from samtune.data.problems import complain
from samtune.data.sources import Record, find_layout, lines_of

# The 32 colours of the original, mapped to SegNet's eleven classes and void.
CAMVID: dict[str, list[Colour]] = {
    "sky": [(128, 128, 128)],
    "building": [(128, 0, 0), (0, 128, 64), (64, 192, 0), (64, 0, 64), (192, 0, 128)],
    "pole": [(192, 192, 128), (0, 0, 64)],
    "road": [(128, 64, 128), (128, 0, 192), (192, 0, 64)],
    "pavement": [(0, 0, 192), (64, 192, 128), (128, 128, 192), (60, 40, 222)],
    "tree": [(128, 128, 0), (192, 192, 0)],
    "sign": [(192, 128, 128), (128, 128, 64), (0, 64, 64)],
    "fence": [(64, 64, 128)],
    "car": [(64, 0, 128), (64, 128, 192), (192, 128, 192), (192, 64, 128), (128, 64, 64)],
    "pedestrian": [(64, 64, 0), (192, 128, 64), (64, 0, 192), (64, 128, 64)],
    "bicyclist": [(0, 128, 192), (192, 0, 192)],
    "void": [(0, 0, 0)],
}
"""Colours by class: the grouping documented in MathWorks' example, with SegNet's own pavement."""
_COLOURS = tuple((colour, i) for i, group in enumerate(CAMVID.values()) for colour in group)
_CAMVID_VOID = 11

CITYSCAPES = {
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17,
    "traffic light": 19, "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23,
    "person": 24, "rider": 25, "car": 26, "truck": 27, "bus": 28, "train": 31,
    "motorcycle": 32, "bicycle": 33,
}  # fmt: skip
"""The label ids of the 19 scored classes, in the order of their train ids."""
_VOID = 255

TRANS10K: dict[str, Colour] = {
    "background": (0, 0, 0), "things": (255, 0, 0), "stuff": (255, 255, 255),
}  # fmt: skip
"""Colours by class."""

_SPLITS = ("train", "val", "test")
_SEGNET = by_split(*_SPLITS, images="{}", masks="{}annot")
_KAGGLE = by_split(*_SPLITS, images="{}", masks="{}_labels", ending="_L")
_ORIGINAL: Packing = {None: (Part("701_StillsRaw_full", "LabeledApproved_full", ending="_L"),)}
_TOPS = ("CamVid", "SegNet/CamVid")


def _colours(path: Path) -> Coloured:
    return Coloured(path, _COLOURS)


def _camvid(root: Path, config: DataConfig) -> SplitRecords:
    """CamVid in SegNet's form (folders, lists, or split folders of images and masks), or coloured.

    Labels in SegNet's form hold the class as their value.
    """
    for base in bases(root, _TOPS):
        if below(base, "images") and below(base, "masks"):
            return find_layout(base)
        if below(base, "list"):
            return _by_lists(root, base, config)
        if any(below(base, folder) for folder in ("train_labels", "val_labels", "test_labels")):
            return find_packed("camvid", root, [_KAGGLE], _TOPS, _colours)
        if any(below(base, part.images) for part in _ORIGINAL[None]):
            return find_packed("camvid", root, [_ORIGINAL], _TOPS, _colours)
    return find_packed("camvid", root, [_SEGNET], _TOPS)


def _by_lists(root: Path, base: Path, config: DataConfig) -> SplitRecords:
    """Names of images in ``list/SPLIT_d.txt``, of labels in ``_l.txt``, both below ``image/``."""
    lists = {s: [base / "list" / f"{s}_{kind}.txt" for kind in "dl"] for s in _SPLITS}
    missing = [f"list/{path.name}" for pair in lists.values() for path in pair if not path.exists()]
    if missing:
        raise incomplete("camvid", root, missing)
    result: SplitRecords = {}
    for split, pair in lists.items():
        images, labels = (
            [base / "image" / line.lstrip("/") for line in lines_of(path)] for path in pair
        )
        if len(images) != len(labels):
            lines = f"lines of list/{split}_d.txt or _l.txt ({len(images)} and {len(labels)})"
            complain(incomplete("camvid", root, [lines]))
            continue
        for listing, paths in zip(pair, (images, labels), strict=True):
            refuse_outside(listing, paths, root, config.outside)
        lacks = [path for path in images + labels if not path.is_file()]
        if lacks:
            complain(incomplete("camvid", root, [f"image/{path.name}" for path in lacks], lacks))
        pairs = zip(images, labels, strict=True)
        records = [Record(i, m, i.stem) for i, m in pairs if i.is_file() and m.is_file()]
        result[split] = sorted(records, key=lambda record: record.name)
    return result


def _cityscapes(root: Path, config: DataConfig) -> SplitRecords:
    """The two splits whose labels are public; the validation split serves as the test.

    The labels of the official test are not public, and published results use the validation split.
    A validation split is therefore taken from training, so that nothing is chosen on the test.
    """
    ignored = _VOID if config.ignore is None else config.ignore
    values = tuple((old, new) for new, old in enumerate(CITYSCAPES.values()))
    result: SplitRecords = {}
    base = next((b for b in bases(root, ("cityscapes",)) if below(b, "leftImg8bit")), root)
    folders = [f"{top}/{part}" for part in ("train", "val") for top in ("leftImg8bit", "gtFine")]
    missing = [folder for folder in folders if below(base, folder) is None]
    if missing:
        raise incomplete("cityscapes", root, missing)
    for split, part in (("train", "train"), ("test", "val")):
        pictures, truths = (
            {f"{p.parent.name}/{p.name.removesuffix(ending)}": p
             for p in sorted((base / top / part).glob(f"*/*{ending}"))}
            for top, ending in (("leftImg8bit", _IMAGE), ("gtFine", _LABEL))
        )  # fmt: skip
        pairs = match_pairs("cityscapes", root, pictures, truths, f"leftImg8bit/{part}/CITY")
        result[split] = [
            Record(image, Renumbered(truth, values, ignored), key.partition("/")[2])
            for key, image, truth in pairs
        ]
    return result


_IMAGE, _LABEL = "_leftImg8bit.png", "_gtFine_labelIds.png"


def _trans10k() -> Packing:
    packing: dict[str | None, tuple[Part, ...]] = {
        "train": (Part("train/images", "train/masks", ending="_mask"),)
    }
    for split, folder in (("val", "validation|val"), ("test", "test")):
        packing[split] = tuple(
            Part(f"{folder}/{kind}/images", f"{folder}/{kind}/masks", "", "_mask", f"{kind}_")
            for kind in ("easy", "hard")
        )
    return packing


register(
    NamedSet(
        "camvid",
        "CamVid",
        "street scenes",
        "Brostow et al. 2009, PRL; split of Badrinarayanan et al. 2017 (SegNet)",
        "http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/",
        (
            "{train,trainannot,val,valannot,test,testannot} (as SegNet has it)",
            "{images,masks}/{train,val,test}",
            "list/{train,val,test}_{d,l}.txt (with names below image/)",
            "{train,train_labels,val,val_labels,test,test_labels} (with colours of 32 classes)",
            "{701_StillsRaw_full,LabeledApproved_full} (samtune makes the splits)",
        ),
        {"train": 367, "val": 101, "test": 233},
        _camvid,
        {
            "masks": "classes",
            "classes": 11,
            "class_names": tuple(CAMVID)[:_CAMVID_VOID],
            "ignore": _CAMVID_VOID,
        },
    )
)
register(
    NamedSet(
        "cityscapes",
        "Cityscapes",
        "street scenes; the validation split is the test, since labels of its test are not public",
        "Cordts et al. 2016, CVPR",
        "https://www.cityscapes-dataset.com/",
        (f"leftImg8bit/{{train,val}}/CITY/*{_IMAGE} and gtFine/{{train,val}}/CITY/*{_LABEL}",),
        {"train": 2975, "test": 500},
        _cityscapes,
        {"masks": "classes", "classes": 19, "class_names": tuple(CITYSCAPES), "ignore": _VOID},
    )
)
register(
    NamedSet(
        "trans10k",
        "Trans10K",
        "transparent objects",
        "Xie et al. 2020, ECCV",
        "https://xieenze.github.io/projects/TransLAB/TransLAB.html",
        ("{train,validation/{easy,hard},test/{easy,hard}}/{images,masks} (or val/)",),
        {"train": 5000, "val": 1000, "test": 4428},
        packed(
            "trans10k",
            _trans10k(),
            tops=("Trans10K",),
            mask=lambda path: Coloured(
                path, tuple((c, i) for i, c in enumerate(TRANS10K.values()))
            ),
        ),
        {"masks": "classes", "classes": 3, "class_names": tuple(TRANS10K), "background": 0},
    )
)
