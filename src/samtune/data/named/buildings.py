"""Buildings from the air: WHU and Massachusetts Buildings."""

from __future__ import annotations

from samtune.data.named.base import NamedSet, register
from samtune.data.named.folders import by_split, packed
from samtune.data.named.parts import Channel

# Xiao et al. 2024 (CAT-SAM)
_SHOTS = (
    "168", "515", "807", "1176", "1552", "1901", "2432", "2679",
    "3130", "3486", "3678", "3939", "4263", "4335", "4640", "4725",
)  # fmt: skip
_TILES = "3. The cropped image tiles and raster labels"

register(
    NamedSet(
        "whu",
        "WHU building dataset, aerial",
        "buildings from the air, 0.3 m per pixel",
        "Ji et al. 2019, TGRS",
        "http://gpcv.whu.edu.cn/data/building_dataset.html",
        (f"{_TILES}/{{train,val,test}}/{{image,label}}",),
        {"train": 4736, "val": 1036, "test": 2416},
        packed(
            "whu",
            by_split("train", "val", "test", images="{}/image", masks="{}/label"),
            tops=(_TILES, f"WHU/{_TILES}"),
        ),
        {"masks": "binary", "threshold": 127},
        {1: ("2432",), 16: _SHOTS},
    )
)
_SPLITS = ("train", ("val", "val|valid"), "test")
register(
    NamedSet(
        "m_building",
        "Massachusetts Buildings",
        "buildings from the air, 1 m per pixel; masks show buildings in red or white",
        "Mnih 2013, PhD thesis, University of Toronto",
        "https://www.cs.toronto.edu/~vmnih/data/",
        (
            "tiff/{train,train_labels,val,val_labels,test,test_labels} (or png/ for tiff/)",
            "mass_buildings/{train,valid,test}/{sat,map}",
        ),
        {"train": 137, "val": 4, "test": 10},
        packed(
            "m_building",
            by_split("train", "val", "test", images="{}", masks="{}_labels"),
            by_split(*_SPLITS, images="{}/sat", masks="{}/map"),
            tops=("tiff", "png", "mass_buildings"),
            mask=Channel,
        ),
        {"masks": "binary", "threshold": 149},
    )
)
