"""The pairs for training, validation and test: given on disk, or made reproducibly."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from samtune.data.config import SPLITS, DataConfig
from samtune.data.labels import read_values
from samtune.data.layouts import SplitRecords, find
from samtune.data.named import DATASETS, NamedSet
from samtune.data.scan import usable
from samtune.data.sources import Record
from samtune.errors import InputError
from samtune.files import as_path, read_sealed, sealed_json, write_whole

PUBLISHED = "published"
"""The ``shot_seed`` for the images of a data set's published experiments."""


def splits(config: DataConfig, layout: SplitRecords | None = None) -> dict[str, list[Record]]:
    """The records for ``train``, ``val`` and ``test`` of a data set; the only entry to its files.

    Splits on disk are kept. A missing validation or test split is taken from the training split,
    with the size of ``val_fraction`` and ``test_fraction`` and at least one pair; the choice
    depends only on file stems and ``split_seed``. If there are only two pairs, one is for training
    and one for both validation and test; slices of a volume stay together. A folder with only a
    test or validation split can be evaluated: the other splits are empty. ``shots`` are drawn last,
    from the training split.

    Args:
        config: The settings.
        layout: The result of :func:`samtune.data.layouts.find` for them, if known.

    Raises:
        InputError: Files violate the rules (see :func:`samtune.data.layouts.find`), there are too
            few pairs to split, fractions are wrong, there are more shots than training pairs or no
            published shots, or names are missing.
    """
    return with_shots(divided(find(config) if layout is None else layout, config), config)


def divided(layout: SplitRecords, config: DataConfig) -> dict[str, list[Record]]:
    """The records of a layout for ``train``, ``val`` and ``test``, before shots are drawn.

    Raises:
        InputError: Too few pairs to split, or bad fractions.
    """
    given = {name: records for name, records in layout.items() if name is not None}
    whole = layout.get(None, given.get("train", []))
    by_split = {name: given.get(name, []) for name in SPLITS}
    if whole:
        missing = [name for name in ("test", "val") if not by_split[name]]
        by_split |= _carve(whole, missing, config)
    if config.empty_slices == "drop":
        by_split["train"] = _labelled(by_split["train"], config)
    return by_split


def select(parts: Mapping[str, list[Record]], split: str) -> list[Record]:
    """One split of :func:`splits`, or ``all``: each file once, sorted by split and name.

    Raises:
        InputError: The split is unknown or empty.
    """
    if split != "all" and split not in SPLITS:
        raise InputError(f"data.split={split}: no such split; choose one of {SPLITS} or 'all'")
    names = SPLITS if split == "all" else (split,)
    records = list(dict.fromkeys(record for name in names for record in parts.get(name, [])))
    if not records:
        raise InputError(f"data.split={split}: the split is empty; choose one of {_filled(parts)}")
    return records


def write_split(path: str | Path, parts: Mapping[str, list[Record]]) -> None:
    """Writes the names of each split's images, the exact ones of a run, as JSON with a checksum."""
    names = {split: [record.name for record in records] for split, records in parts.items()}
    write_whole(path, sealed_json(names))


def read_split(path: str | Path) -> dict[str, list[str]]:
    """The names that :func:`write_split` wrote; empty if the file does not exist.

    Raises:
        InputError: It is damaged.
    """
    path, remedy = Path(path), "copy it back, or start a new run"
    if not os.path.lexists(path):
        return {}
    tree = read_sealed(path, remedy)
    lists = tree.values()
    if not all(isinstance(one, list) and all(isinstance(n, str) for n in one) for one in lists):
        raise InputError(f"{path}: is damaged: it has no lists of names by split; {remedy}")
    return tree


def _carve(whole: list[Record], missing: list[str], config: DataConfig) -> dict[str, list[Record]]:
    fractions = {"val": config.val_fraction, "test": config.test_fraction}
    for name in missing:
        if not 0 < fractions[name] < 1 or sum(fractions[m] for m in missing) >= 1:
            raise InputError(
                f"data.{name}_fraction={fractions[name]}: the fraction of a made split must be "
                "above 0, and both together below 1; set e.g. 0.1"
            )
    rest = _units(whole, config)
    if missing and len(rest) < 2:
        what = "case" if config.group else "volume" if whole[0].group else "pair"
        remedy = "provide split folders" if config.root else "give val= and test= as well"
        raise InputError(
            f"{whole[0].file}: the only {what} cannot be divided into splits for training and "
            f"{' and '.join(sorted(missing, reverse=True))}; add {what}s, or {remedy}"
        )
    if len(rest) <= len(missing):
        return {"train": _of_units(rest[1:]), **{name: _of_units(rest[:1]) for name in missing}}
    count_of_all = len(rest)
    parts: dict[str, list[Record]] = {}
    for i, name in enumerate(missing):
        room = len(rest) - 1 - (len(missing) - 1 - i)
        count = min(max(1, round(count_of_all * fractions[name])), room)
        parts[name], rest = _of_units(rest[:count]), rest[count:]
    return {"train": _of_units(rest), **parts}


def _units(records: Sequence[Record], config: DataConfig) -> list[list[Record]]:
    """The units that a split keeps together, in seeded order: a case, a volume or one pair."""
    units: dict[str, list[Record]] = {}
    for record, case in zip(records, cases_of(records, config), strict=True):
        units.setdefault(case, []).append(record)
    return [
        units[name] for name in sorted(units, key=lambda name: _hashed(name, config.split_seed))
    ]


def cases_of(records: Sequence[Record], config: DataConfig) -> list[str]:
    """The case of each record: the match of ``data.group``, otherwise its volume or itself.

    Raises:
        InputError: ``data.group`` finds nothing in some images.
    """
    if config.group is None:
        return [record.group or record.name for record in records]
    rule, root = re.compile(config.group), as_path(config.root or "")
    names = [path_below(record, root) for record in records]
    matches = [rule.search(name) for name in names]
    lacking = [name for name, match in zip(names, matches, strict=True) if match is None]
    if lacking:
        raise InputError(
            f"data.group={config.group}: matches nothing in {len(lacking)} of {len(names)} images, "
            f"as in {lacking[0]}; it must match the name of the case in each path"
        )
    return [match[1 if rule.groups else 0] or match[0] for match in matches if match]


def path_below(record: Record, root: Path) -> str:
    """The path of a record's image below the data set's folder, with slashes."""
    file = record.file
    return (file.relative_to(root) if file.is_relative_to(root) else file).as_posix()


def _of_units(units: Iterable[list[Record]]) -> list[Record]:
    return _by_name(record for unit in units for record in unit)


def _labelled(records: Iterable[Record], config: DataConfig) -> list[Record]:
    """The records without slices of volumes whose mask has no label."""
    empty = [v for v in (0, config.background, config.ignore) if v is not None]
    return [
        record
        for record in records
        if record.group is None or not np.isin(read_values(record, config)[0], empty).all()
    ]


def with_shots(by_split: dict[str, list[Record]], config: DataConfig) -> dict[str, list[Record]]:
    """The splits with only the shots as training, if ``config`` requests shots.

    Raises:
        InputError: See :func:`draw_shots`; or there are no published shots of this number, or some
            of them are not available for training.
    """
    if config.shot_seed == PUBLISHED:
        return _published(by_split, config)
    if config.shots is None:
        return by_split
    return {**by_split, "train": draw_shots(by_split["train"], config)}


def draw_shots(train: Sequence[Record], config: DataConfig) -> list[Record]:
    """``config.shots`` of the training records, drawn by ``config.shot_seed`` and sorted by name.

    With several classes the draw is balanced: the next image is the one that adds most to the class
    with the fewest pixels so far, with ties broken by the class after it, and so on, and finally by
    the seeded order. This reads the masks of the whole training split. In both cases fewer shots
    with one seed are a subset of more.

    Raises:
        InputError: There are more shots than records or, with several classes, a mask cannot be
            read.
    """
    shots = config.shots or 0
    if not 1 <= shots <= len(train):
        raise InputError(
            f"data.shots={config.shots}: the training split has {len(train)} pairs; "
            f"choose 1 to {len(train)}, or leave it out"
        )
    order = _seeded_order(train, int(config.shot_seed))
    several = config.masks in ("classes", "instance") and (config.classes or 0) > 1
    return _by_name(_balanced(order, shots, config) if several else order[:shots])


def _published(by_split: dict[str, list[Record]], config: DataConfig) -> dict[str, list[Record]]:
    """The splits with the published shots as training, taken from a made validation split too.

    Raises:
        InputError: None are known for this number, or some are missing or in the test split.
    """
    known = DATASETS[str(config.name)].shots if config.name in DATASETS else {}
    if config.shots is None or config.shots not in known:
        of = ", ".join(f"{name} ({' and '.join(map(str, s.shots))})" for name, s in _with_shots())
        raise InputError(
            f"data.shot_seed={PUBLISHED}: no published images for data.name={config.name} "
            f"data.shots={config.shots}; they exist for {of}; or give a number, as in "
            "data.shot_seed=0"
        )
    shot_names = frozenset(known[config.shots])
    there = {r.name: r for name in ("train", "val") for r in by_split[name] if r.name in shot_names}
    if there.keys() < shot_names:
        lacks = sorted(shot_names - there.keys())
        tests = [name for name in lacks if name in {record.name for record in by_split["test"]}]
        where = f"{len(tests)} of them in the test split" if tests else "not below data.root"
        raise InputError(
            f"data.shot_seed={PUBLISHED}: {len(lacks)} of the {config.shots} published images are "
            f"not for training here ({', '.join(lacks[:4])}; {where}); use the packing that "
            "samtune data list names, or a number, as in data.shot_seed=0"
        )
    val = [record for record in by_split["val"] if record.name not in shot_names]
    return {**by_split, "train": _by_name(there.values()), "val": val}


def _with_shots() -> list[tuple[str, NamedSet]]:
    return [(name, entry) for name, entry in DATASETS.items() if entry.shots]


def _balanced(order: Sequence[Record], shots: int, config: DataConfig) -> list[Record]:
    """The first ``shots`` of a greedy order in which the least frequent class comes first."""
    classes = [set(found.class_objects) for found in usable(order, config)]
    occurs = np.array([[c in each for c in sorted(set().union(*classes))] for each in classes], int)
    counts, left, selection = np.zeros(occurs.shape[1], np.int64), list(range(len(order))), []
    for _ in range(shots):
        after = np.sort(counts + occurs[left], axis=1)
        # the greatest by the least count, then by the next; lexsort's last key has priority
        keys = [-np.arange(len(left)), *after.T[::-1]]
        best = left.pop(int(np.lexsort(keys)[-1]))
        counts = counts + occurs[best]
        selection.append(order[best])
    return selection


def _seeded_order(records: Iterable[Record], seed: int) -> list[Record]:
    """A seeded order by hash of the stem: the same everywhere, stable when files are added."""
    return sorted(records, key=lambda record: _hashed(record.name, seed))


def _hashed(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogateescape")).digest()


def _by_name(records: Iterable[Record]) -> list[Record]:
    return sorted(records, key=lambda record: record.name)


def _filled(parts: Mapping[str, list[Record]]) -> str:
    return ", ".join(name for name in SPLITS if parts.get(name)) or "none"
