"""Camouflaged objects: COD10K, CAMO, CHAMELEON, NC4K, and the first two as one.

Each is read as its authors pack it, or from the bundle in which SINet passed all of them on
(``TrainDataset`` and ``TestDataset/<set>`` with ``Imgs`` and ``GT``), where the two training sets
lie in one folder and are told apart by their file names.
"""

from __future__ import annotations

from pathlib import Path

from samtune.data.config import DataConfig
from samtune.data.named.base import DATASETS, NamedSet, register
from samtune.data.named.folders import Packing, Part, SplitRecords, packed

TASK = "camouflaged objects"
IMAGES, MASKS = "Imgs|Image|Images|img", "GT|gt_object|masks"
BINARY = {"masks": "binary", "threshold": 127}
"""The rule for masks: some copies have grey levels at edges; half of white is the usual threshold.
"""
_COD10K, _CAMO = "COD10K-CAM-", "camou?r?flage_"
_BUNDLE = "TrainDataset/{Imgs,GT}, TestDataset/%s/{Imgs,GT}"


def _bundle(name: str, stems: str = "") -> Packing:
    test = Part(f"TestDataset/{name}/{IMAGES}", f"TestDataset/{name}/{MASKS}")
    train = Part(f"TrainDataset/{IMAGES}", f"TrainDataset/{MASKS}", stems)
    return {"train": (train,), "test": (test,)} if stems else {"test": (test,)}


def _both(root: Path, config: DataConfig) -> SplitRecords:
    """The sets of 4040 training images that published methods share; their tests are one."""
    parts = [DATASETS[name].find(root, config) for name in ("cod10k", "camo")]
    joined = {split: [r for part in parts for r in part[split]] for split in ("train", "test")}
    return {split: sorted(rs, key=lambda record: record.name) for split, rs in joined.items()}


register(
    NamedSet(
        "cod10k",
        "COD10K",
        TASK,
        "Fan et al. 2020, CVPR",
        "https://dengpingfan.github.io/pages/COD.html",
        ("COD10K-v3/{Train,Test}/{Image,GT_Object}", _BUNDLE % "COD10K"),
        {"train": 3040, "test": 2026},
        packed(
            "cod10k",
            {
                "train": (Part("Train/Image", "Train/GT_Object", _COD10K),),
                "test": (Part("Test/Image", "Test/GT_Object", _COD10K),),
            },
            _bundle("COD10K", _COD10K),
            tops=("COD10K-v3", "COD10K"),
        ),
        BINARY,
    )
)
register(
    NamedSet(
        "camo",
        "CAMO",
        TASK,
        "Le et al. 2019, CVIU",
        "https://sites.google.com/view/ltnghia/research/camo",
        ("CAMO-V.1.0-CVIU2019/{Images/{Train,Test},GT}", _BUNDLE % "CAMO"),
        {"train": 1000, "test": 250},
        packed(
            "camo",
            {"train": (Part("Images/Train", "GT"),), "test": (Part("Images/Test", "GT"),)},
            _bundle("CAMO", _CAMO),
            tops=("CAMO-V.1.0-CVIU2019", "CAMO", "COD10K"),
        ),
        BINARY,
    )
)
register(
    NamedSet(
        "chameleon",
        "CHAMELEON",
        TASK,
        "Skurowski et al. 2018, unpublished manuscript",
        "https://www.polsl.pl/rau6/chameleon-database-animal-camouflage-analysis",
        ("CHAMELEON/{Imgs,GT}", "TestDataset/CHAMELEON/{Imgs,GT}"),
        {"test": 76},
        packed(
            "chameleon",
            {"test": (Part(f"CHAMELEON/{IMAGES}", f"CHAMELEON/{MASKS}"),)},
            {"test": (Part(IMAGES, MASKS),)},
            _bundle("CHAMELEON"),
            tops=("COD10K",),
        ),
        BINARY,
    )
)
register(
    NamedSet(
        "nc4k",
        "NC4K",
        TASK,
        "Lv et al. 2021, CVPR",
        "https://github.com/JingZhang617/COD-Rank-Localize-and-Segment",
        ("NC4K/{Imgs,GT}", "TestDataset/NC4K/{Imgs,GT}"),
        {"test": 4121},
        packed(
            "nc4k",
            {"test": (Part(f"NC4K/{IMAGES}", f"NC4K/{MASKS}"),)},
            {"test": (Part(IMAGES, MASKS),)},
            _bundle("NC4K"),
            tops=("COD10K",),
        ),
        BINARY,
    )
)
register(
    NamedSet(
        "cod",
        "COD10K + CAMO",
        f"{TASK}; test each set by its own name below the same root",
        "Fan et al. 2020, CVPR; Le et al. 2019, CVIU",
        "https://dengpingfan.github.io/pages/COD.html",
        ("(the folders of cod10k and camo beside each other)", _BUNDLE % "{COD10K,CAMO}"),
        {"train": 4040, "test": 2276},
        _both,
        BINARY,
    )
)
