"""Polyps in colonoscopy: Kvasir-SEG."""

from __future__ import annotations

from pathlib import Path

from samtune.data.config import DataConfig
from samtune.data.named.arrays import FOLDER, LAYOUT, find_arrays
from samtune.data.named.base import NamedSet, register
from samtune.data.named.folders import Packing, Part, SplitRecords, bases, below, find_packed
from samtune.data.sources import find_layout

_PLAIN: Packing = {None: (Part("images", "masks"),)}
# PraNet adds CVC-ClinicDB to the training set; its files are named by numbers alone.
_PRANET: Packing = {
    "train": (Part("TrainDataset/images|image", "TrainDataset/masks|mask", r"(?!\d+$)"),),
    "test": (Part("TestDataset/Kvasir/images|image", "TestDataset/Kvasir/masks|mask"),),
}
_TOPS = ("Kvasir-SEG", "Kvasir")
# Xiao et al. 2024 (CAT-SAM), from the 900 of PraNet's packing.
_SHOTS = (
    "cju7dn24o296i09871qfxb8s2", "cju83mki1jv5w0817kubxm31r", "cju6vucxvvlda0755j7msqnya",
    "cju43kj2pm34f0850l28ahpni", "cju2x7vw87mu30878hye2ca0m", "cju5ddda9bkkt0850enzwatb1",
    "cju77vvcwzcm50850lzoykuva", "cju3128yi0rpu0988o4oo5n8n", "cju8b7aqtr4a00987coba14b7",
    "cjz14qsk2wci60794un9ozwmw", "cju0s690hkp960855tjuaqvv0", "cju888fr7nveu0818r9uwtiit",
    "cju8b542nr81x0871uxnkm9ih", "cju2qtee81yd708787bsjr75d", "cju83h9ysjwe808716nt35oah",
    "cju0roawvklrq0799vmjorwfv",
)  # fmt: skip


def _find(root: Path, config: DataConfig) -> SplitRecords:
    """Kvasir-SEG itself, with lists of splits if they exist; PraNet's packing; or arrays."""
    for base in bases(root, _TOPS):
        arrays = below(base, FOLDER)
        if arrays:
            return find_arrays("kvasir", root, arrays)
        if below(base, "images") and below(base, "masks"):
            return find_layout(base)
    return find_packed("kvasir", root, [_PLAIN, _PRANET], _TOPS)


register(
    NamedSet(
        "kvasir",
        "Kvasir-SEG",
        "polyps in colonoscopy",
        "Jha et al. 2020, MMM",
        "https://datasets.simula.no/kvasir-seg/",
        (
            "Kvasir-SEG/{images,masks} (with or without train.txt, validation.txt (val.txt), "
            "test.txt)",
            "{TrainDataset,TestDataset/Kvasir}/{images,masks} (as PraNet packs it: 900 and 100)",
            LAYOUT,
        ),
        {"all": 1000},
        _find,
        {"masks": "binary", "threshold": 127},
        {1: ("cju0roawvklrq0799vmjorwfv",), 16: _SHOTS},
    )
)
