"""Salient objects: DUTS for training; ECSSD, DUT-OMRON, HKU-IS and PASCAL-S only for tests."""

from __future__ import annotations

from samtune.data.named.base import NamedSet, register
from samtune.data.named.folders import Packing, Part, by_split, packed

TASK = "salient objects"
BINARY = {"masks": "binary", "threshold": 127}
"""The rule for masks, which have grey levels at edges; those of PASCAL-S are averages over
annotators."""


def _test_only(
    name: str, title: str, paper: str, url: str, count: int, images: str, masks: str
) -> None:
    own: Packing = {"test": (Part(images, masks),)}
    # As in the collection that TS-SAM trains and tests on.
    static: Packing = {"test": (Part(f"JPEGImages/{title}", f"Annotations/{title}"),)}
    layout = (f"{title}/{{{images},{masks}}}", f"{{JPEGImages,Annotations}}/{title}")
    find = packed(name, own, static, tops=(title, "Static", "datasets"))
    register(NamedSet(name, title, TASK, paper, url, layout, {"test": count}, find, BINARY))


register(
    NamedSet(
        "duts",
        "DUTS",
        TASK,
        "Wang et al. 2017, CVPR",
        "http://saliencydetection.net/duts/",
        ("DUTS-{TR,TE}/{DUTS-TR-Image,DUTS-TR-Mask} (and DUTS-TE-Image, DUTS-TE-Mask)",),
        {"train": 10553, "test": 5019},
        packed(
            "duts",
            by_split(("train", "TR"), ("test", "TE"), images="DUTS-{}/DUTS-{}-Image",
                     masks="DUTS-{}/DUTS-{}-Mask"),
            tops=("DUTS",),
        ),
        BINARY,
    )
)  # fmt: skip
_test_only(
    "ecssd", "ECSSD", "Shi et al. 2016, TPAMI",
    "http://www.cse.cuhk.edu.hk/leojia/projects/hsaliency/dataset.html",
    1000, "images", "ground_truth_mask",
)  # fmt: skip
_test_only(
    "dut_omron", "DUT-OMRON", "Yang et al. 2013, CVPR",
    "http://saliencydetection.net/dut-omron/",
    5168, "DUT-OMRON-image", "pixelwiseGT-new-PNG",
)  # fmt: skip
_test_only(
    "hku_is", "HKU-IS", "Li and Yu 2015, CVPR",
    "https://i.cs.hku.hk/~gbli/deep_saliency.html",
    4447, "imgs", "gt",
)  # fmt: skip
_test_only(
    "pascal_s", "PASCAL-S", "Li et al. 2014, CVPR",
    "http://cbs.ic.gatech.edu/salobj/",
    850, "imgs/pascal", "masks/pascal",
)  # fmt: skip
