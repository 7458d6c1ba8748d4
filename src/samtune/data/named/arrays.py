"""The ``.npy`` form in which Generalized SAM passes on Kvasir-SEG and Synapse."""

from __future__ import annotations

from pathlib import Path

from samtune.data.named.base import incomplete
from samtune.data.named.folders import SplitRecords
from samtune.data.named.parts import ArrayItem, open_array
from samtune.data.sources import Record

FOLDER = "datamodel"
LAYOUT = "datamodel/{train,val,test}_{data,label}_1.npy"


def find_arrays(name: str, root: Path, folder: Path) -> SplitRecords:
    """The records of ``{train,val,test}_data_1.npy`` and ``_label_1.npy``, each of all images.

    Their shapes are not documented; whole numbers of shape ``(n, h, w)`` or ``(n, h, w, channels)``
    are read, other arrays are refused.

    Raises:
        InputError: A file is missing or unexpected, or the numbers of labels and images differ.
    """
    names = {
        split: (folder / f"{split}_data_1.npy", folder / f"{split}_label_1.npy")
        for split in ("train", "val", "test")
    }
    missing = [f"{FOLDER}/{p.name}" for pair in names.values() for p in pair if not p.is_file()]
    if missing:
        raise incomplete(name, root, missing)
    by_split: SplitRecords = {}
    for split, (data, label) in names.items():
        count, truths = (len(open_array(path)) for path in (data, label))
        if count != truths:
            lacks = f"{abs(count - truths)} items of {(data if count < truths else label).name}"
            raise incomplete(name, root, [lacks])
        by_split[split] = [
            Record(ArrayItem(data, i), ArrayItem(label, i), f"{split}{i:05d}") for i in range(count)
        ]
    return by_split
