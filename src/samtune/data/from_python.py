"""``samtune.data_from``: samples that Python code gives, as a data set like those of files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from samtune.data.config import SPLITS, DataConfig, check_settings
from samtune.data.items import (
    ItemImage,
    ItemMask,
    Items,
    Keys,
    channels_last,
    check_keys,
    check_limits,
    is_stack,
)
from samtune.data.opening import DataSplits
from samtune.data.problems import DataError
from samtune.data.record import Record
from samtune.data.split import Split
from samtune.data.splits import divided, with_shots
from samtune.errors import InputError
from samtune.files import as_path
from samtune.options import speaks_python, validated

LOOKED_AT = 8
"""Largest number of samples from which the kind of all is inferred."""
OF_FILES = frozenset(
    "root layout images mask_files group split colors turn_masks slice_axis empty_slices crowds"
    " window".split()
)
"""Settings that only files have a use for."""
BRIGHT = 255


@speaks_python()
def data_from(
    train: Any,
    val: Any = None,
    test: Any = None,
    *,
    names: Sequence[str] | None = None,
    keys: Keys = None,
    limits: tuple[float, float] | None = None,
    **settings: Any,
) -> DataSplits:
    """Makes a data set of samples in memory, or of one's own data sets.

    Each split is a sequence with ``len()`` and ``[]``, such as a ``torch.utils.data.Dataset`` or a
    list, or a pair ``(images, masks)`` of arrays or lists. A sample is ``(image, mask)``, or a
    dictionary with ``image`` and ``mask``; paths of files are read as those of a folder.

    - An image is an array ``(h, w)`` or ``(h, w, c)``, a tensor ``(c, h, w)`` or a picture of
      Pillow. Bytes stay, floats lie in 0..1, and deeper whole numbers are scaled as those of files
      are (``intensity``); ``limits`` says another range.
    - A mask is a map ``(h, w)``: 0 and 1 or 0 and 255, or by ``masks="instance"`` a number for each
      object, or by ``masks="classes"`` and ``classes=K`` the class of each pixel. Or it is a stack
      ``(n, h, w)`` of one mask per object, whose classes a dictionary may give as ``labels``.

    Samples are called for anew each time, with image and mask together, so code that changes them
    at random does so; ``augment="none"`` turns off what samtune changes.

    Args:
        train: For training; without ``val`` and ``test`` these are made of it.
        val: For validation.
        test: For the test.
        names: The names of the images of ``train``; by default their numbers.
        keys: The keys of image and mask in dictionaries.
        limits: The values of images that become black and white, as ``(0, 255)`` of floats.
        settings: Any of :class:`samtune.DataConfig` that is not about files, as ``ignore=255`` or
            ``class_names=("road", "car")``.

    Raises:
        InputError: A split of another form, no sample, a setting that is not known or out of its
            range, or samples of which it is not clear what their values mean.
    """
    check_limits(limits)
    check_keys(keys)
    parts = {"train": train, "val": val, "test": test}
    config = _config(settings)
    records = {
        name: _records(part, name, Items(part, keys, limits, config.masks == "classes"))
        for name, part in parts.items()
        if part is not None
    }
    if names is not None:
        records["train"] = _renamed(records["train"], names)
    config, carved = _completed(config, records), tuple[str, ...]()
    by_split = {name: records.get(name, []) for name in SPLITS}
    if val is None and test is None:
        by_split, carved = divided({None: records["train"]}, config), ("val", "test")
    by_split = with_shots(by_split, config)
    first, second, third = (Split(tuple(by_split[name]), config, name) for name in SPLITS)
    return DataSplits(first, second, third, config, carved)


def split_from(samples: Any) -> Split:
    """One split of samples that are given without settings.

    Raises:
        InputError: As :func:`data_from`.
    """
    records = {"train": _records(samples, "data", Items(samples))}
    return Split(tuple(records["train"]), _completed(_config({}), records))


def _config(settings: dict[str, Any]) -> DataConfig:
    check_settings("data_from", settings, OF_FILES)
    # nothing is kept in memory: the samples are there, or change each time
    config: DataConfig = validated(DataConfig, "data", {"name": "data", "cache": 0, **settings})
    return config


def _records(samples: Any, split: str, items: Items) -> list[Record]:
    """A record for each sample; only their number is asked."""
    if isinstance(samples, tuple) and len(samples) == 2 and _is_column(samples[0]):
        images, masks = samples
        if len(images) != len(masks):
            raise InputError(
                f"{split}: {len(images)} images and {len(masks)} masks; give one mask per image"
            )
        items.samples = samples = _Pairs(images, masks)
    if getattr(samples, "ndim", 0) > 2:
        raise InputError(
            f"{split}: is one array of shape {tuple(samples.shape)}; give images and masks as a "
            "pair, as in data_from((images, masks))"
        )
    if isinstance(samples, str | PathLike):
        raise InputError(f"{split}={samples}: is a path; open a folder with samtune.open_data(...)")
    if isinstance(samples, Mapping):
        has = ", ".join(map(repr, samples))
        raise InputError(
            f"{split}: is a dictionary with {has}; give each split by itself, as in "
            "data_from(sets['train'], sets['validation']), and samples as a list"
        )
    if not (hasattr(samples, "__len__") and hasattr(samples, "__getitem__")):
        raise InputError(
            f"{split}: a {type(samples).__name__} has no len() and []; give a map-style data set "
            "of torch, a list of samples, or list(...) of a generator"
        )
    count = len(samples)
    if not count:
        raise InputError(f"{split}: has no sample; give at least one")
    if _has_paths(samples[0]):
        return [_of_files(samples[i], i, split) for i in range(count)]
    digits = max(5, len(str(count)))
    return [
        Record(
            ItemImage(place := Path(f"{split}[{i}]"), items, i),
            ItemMask(place, items, i),
            f"{split}{i:0{digits}d}",
        )
        for i in range(count)
    ]


def _renamed(records: Sequence[Record], names: Sequence[str]) -> list[Record]:
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise InputError(f"names={names!r}: must be a list of one name per sample")
    if len(set(names)) != len(records):
        raise InputError(
            f"names: {len(set(names))} different names for {len(records)} samples; give one per "
            "sample"
        )
    return [replace(each, name=str(name)) for each, name in zip(records, names, strict=True)]


class _Pairs(Sequence[Any]):
    """Images and masks side by side."""

    def __init__(self, images: Any, masks: Any) -> None:
        self.images, self.masks = images, masks

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> Any:
        return self.images[index], self.masks[index]


def _is_column(value: Any) -> bool:
    """Whether it is many images, not one sample."""
    return isinstance(value, list) or getattr(value, "ndim", 0) in (3, 4)


def _has_paths(sample: Any) -> bool:
    return isinstance(sample, tuple | list) and all(isinstance(p, str | PathLike) for p in sample)


def _of_files(sample: Any, index: int, split: str) -> Record:
    if not _has_paths(sample) or len(sample) != 2:
        raise InputError(f"{split}[{index}]: is no pair of paths, as the samples before it are")
    image, mask = (as_path(path) for path in sample)
    return Record(image, mask, image.stem)


def _completed(config: DataConfig, records: dict[str, list[Record]]) -> DataConfig:
    """The settings with what some samples of each split say of all.

    Raises:
        InputError: It is not clear what the values of the images or masks mean.
    """
    stacks = False
    for part in records.values():
        of_code = [record for record in part if isinstance(record.image, ItemImage)]
        chosen = np.linspace(0, len(of_code) - 1, LOOKED_AT).round().astype(int) if of_code else ()
        stacks |= _look([of_code[i] for i in dict.fromkeys(chosen)])
    return replace(config, masks="instance") if stacks and config.masks == "auto" else config


def _look(records: Sequence[Record]) -> bool:
    """Whether some of the samples have stacks of masks; their images' values must be clear."""
    stacks, deep, doubtful = False, False, None
    for record in records:
        half = record.image
        assert isinstance(half, ItemImage)
        try:
            parts = half.items.parts(half.index, "check")
        except ValueError as error:
            reason, _, remedy = str(error).partition("; ")
            raise DataError(half.path, "no sample", reason, remedy) from error
        stacks |= is_stack(parts)
        values = channels_last(parts.image, half.path)
        whole = np.issubdtype(values.dtype, np.integer) and values.dtype != np.uint8
        if whole and half.items.limits is None:
            deep |= int(values.max()) > BRIGHT or int(values.min()) < 0
            doubtful = half.path, values.dtype
    if doubtful is not None and not deep:
        raise DataError(
            doubtful[0],
            "values of images",
            f"images are {doubtful[1]}, and none of {len(records)} has a value above {BRIGHT}",
            "convert bytes to uint8, or say which values are black and white, as in "
            "limits=(0, 4095)",
        )
    return stacks
