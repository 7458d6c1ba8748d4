"""Shadows: ISTD and SBU."""

from __future__ import annotations

from samtune.data.named.base import NamedSet, register
from samtune.data.named.folders import by_split, packed

_ISTD = by_split("train", "test", images="{}/{}_A", masks="{}/{}_B")
# Xiao et al. 2024 (CAT-SAM)
_SHOTS = (
    "lssd3356", "lssd1409", "lssd1090", "lssd3732", "lssd2011", "lssd1901", "lssd1821", "lssd1512",
    "lssd3713", "lssd1376", "lssd3493", "lssd3729", "lssd610", "lssd3008", "lssd1319", "lssd1109",
)  # fmt: skip
_SBU = by_split(
    ("train", "SBUTrain4KRecoveredSmall"),
    ("test", "SBU-Test"),
    images="{}/ShadowImages",
    masks="{}/ShadowMasks",
)

register(
    NamedSet(
        "istd",
        "ISTD",
        "shadows",
        "Wang et al. 2018, CVPR",
        "https://github.com/DeepInsight-PCALab/ST-CGAN",
        ("ISTD_Dataset/{train/{train_A,train_B},test/{test_A,test_B}}",),
        {"train": 1330, "test": 540},
        packed("istd", _ISTD, tops=("ISTD_Dataset", "ISTD")),
        {"masks": "binary", "threshold": 127},
    )
)
register(
    NamedSet(
        "sbu",
        "SBU-Shadow",
        "shadows",
        "Vicente et al. 2016, ECCV",
        "https://www3.cs.stonybrook.edu/~cvl/projects/shadow_noisy_label/index.html",
        ("SBU-shadow/{SBUTrain4KRecoveredSmall,SBU-Test}/{ShadowImages,ShadowMasks}",),
        {"train": 4089, "test": 638},
        packed("sbu", _SBU, tops=("SBU-shadow", "SBU")),
        {"masks": "binary", "threshold": 0},
        {1: ("lssd1109",), 16: _SHOTS},
    )
)
