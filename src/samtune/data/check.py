"""Reports everything about a data set's files at once: why training would fail, and oddities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from difflib import get_close_matches
from typing import Any

import numpy as np

from samtune.data.bands import band_lines
from samtune.data.config import DataConfig
from samtune.data.findings import Check
from samtune.data.labels import clear_threshold
from samtune.data.layouts import SplitRecords, find
from samtune.data.named import DATASETS, deviations
from samtune.data.problems import Finding, complaints, of_files, remarks
from samtune.data.reading import has_palette, is_lossy
from samtune.data.remarks import Parts, of_mask, of_training, splits_of
from samtune.data.scan import (
    MOST_VALUES,
    TINY,
    Look,
    empty_split,
    looks,
    no_objects,
    summary_of,
)
from samtune.data.sources import Record
from samtune.data.splits import divided, with_shots
from samtune.data.stored import path_of
from samtune.data.unread_files import unread_files
from samtune.errors import InputError
from samtune.files import as_path

DAMAGED = "0/255 damaged by JPEG"
_ENDS = {(0, 1): "0/1", (0, 255): "0/255", (0, 65535): "0/65535"}


def check(
    data: DataConfig,
    progress: Callable[[int, int], None] | None = None,
    parts: Parts | None = None,
) -> Check:
    """Decodes every image and mask of a data set, and reports all problems and oddities at once.

    Problems are the same as those that training refuses, because both use the same functions to
    find, read and split files. All files are checked, even if ``data.shots`` would use few of them.

    Args:
        data: The files, and how masks are read.
        progress: Called with the number of files
            checked and in all.
        parts: The splits, if they come from Python code and not from a folder.

    Raises:
        InputError: No ``data.root``.
    """
    if parts is not None:
        records = list(dict.fromkeys(r for part in parts.values() for r in part))
        all_looks = _look_at(records, data, progress)
        problems = [problem for each in all_looks for problem in each.problems]
        return _check_of(all_looks, parts, data, [*problems, *_of_splits(parts, all_looks, data)])
    if not data.root:
        raise InputError(
            "data.root: no folder given; name that of images and masks, or set data.root=FOLDER"
        )
    layout: SplitRecords = {}
    parts = {}
    with remarks() as odd, complaints() as problems:
        layout = find(data)
    records = list(dict.fromkeys(r for records in layout.values() for r in records))
    all_looks = _look_at(records, data, progress)
    problems += [problem for each in all_looks for problem in each.problems]
    if records:
        with complaints() as undivided:
            parts = divided(layout, data)
        problems += undivided or _of_splits(parts, all_looks, data)
    if data.shots is not None and not problems:
        with complaints() as problems:
            with_shots({name: list(part) for name, part in parts.items()}, data)
    carved = not {"val", "test"} <= layout.keys()
    odd += _of_copy(layout, data)
    met = _check_of(all_looks, parts, data, problems, carved)
    odd += [*met.remarks, *_unread(records, met.problems, data)]
    return replace(met, remarks=tuple(dict.fromkeys(odd)))


def _look_at(
    records: Sequence[Record], data: DataConfig, progress: Callable[[int, int], None] | None
) -> list[Look]:
    all_looks: list[Look] = []
    for each in looks(records, data, thorough=True):
        all_looks.append(each)
        if progress is not None:
            progress(len(all_looks), len(records))
    return all_looks


def _check_of(
    all_looks: Sequence[Look],
    parts: Parts,
    data: DataConfig,
    problems: Iterable[InputError],
    carved: bool = False,
) -> Check:
    """All that can be said of the images and masks themselves."""
    sound = [each for each in all_looks if not each.problems]
    rows = dict.fromkeys(r for problem in problems for r in findings(problem, data.place))
    odd = dict.fromkeys(_remarks(sound, parts, data, carved))
    return Check(
        tuple(rows), tuple(odd), _counts(sound, parts, data), _facts(all_looks, parts, data)
    )


def values_kind(look: Look, data: DataConfig) -> str:
    """The kind of a mask's values: ``0/1``, ``0/255``, ... or the way in which they are read."""
    if data.masks not in ("auto", "binary"):
        return data.masks
    if look.value_count > MOST_VALUES:
        return "other values"
    values = sorted(set(look.values) - {data.ignore})
    if not values or values == [0]:
        return "0 only"
    for ends, name in _ENDS.items():
        if set(values) <= set(ends):
            return name
    assert look.record.mask is not None
    damaged = clear_threshold(np.array(values), is_lossy(look.record.mask)) is not None
    return DAMAGED if damaged else "other values"


def _of_splits(parts: Parts, found: Sequence[Look], data: DataConfig) -> list[InputError]:
    problems: list[InputError] = [empty_split(n, data) for n in parts if not parts[n]]
    train = set(parts["train"])
    mine = [each for each in found if each.record in train]
    if mine and not any(each.class_objects or each.problems for each in mine):
        problems.append(no_objects(len(mine), data))
    return problems


def findings(problem: InputError, root: str) -> list[Finding]:
    """One row per file of a problem; a problem that names no file belongs to the ``root``."""
    error = of_files(problem, root)
    several = len(error.files) > 1 or error.files[0] != error.file
    what = error.kind if several else error.what
    return [Finding(file, error.kind, what, error.remedy) for file in error.files]


def _remarks(
    sound: Sequence[Look], parts: Parts, data: DataConfig, carved: bool
) -> Iterator[Finding]:
    for each in sound:
        yield from each.remarks
        yield from _odd_objects(each, data)
        yield from _odd_values(each, data)
    yield from _mixed(sound, data)
    yield from of_training(sound, parts, data, carved)
    yield from _odd_splits(sound, parts, data)


def _of_copy(layout: SplitRecords, data: DataConfig) -> Iterator[Finding]:
    """Splits of a published data set with other sizes than published, or nearly the set's name."""
    near = get_close_matches((data.name or "").lower(), DATASETS, n=1, cutoff=0.75)
    if data.name not in DATASETS and near:
        remedy = "legal; write it as samtune data list does to read the folder as that set"
        what = f"data.name={data.name} is no published set; did you mean {near[0]!r}?"
        yield Finding(data.place, "unknown name", what, remedy)
    plain = str.maketrans("-_", "  ")
    called = as_path(data.root or "").resolve().name.lower().translate(plain)
    likely = [
        name
        for name, entry in DATASETS.items()
        if called in (name.translate(plain), entry.title.lower().translate(plain))
    ]
    if not data.name and likely:
        what = f"has the name of a published data set, {DATASETS[likely[0]].title}"
        remedy = f"legal; data.name={likely[0]} reads it with that set's classes and splits"
        yield Finding(data.place, "known name", what, remedy)
    for line in deviations(data.name, layout) if data.name in DATASETS else ():
        what, _, remedy = line.partition("; ")
        yield Finding(data.place, "not the published size", what, f"legal; {remedy}")


def _unread(
    records: Sequence[Record], problems: Iterable[Finding], data: DataConfig
) -> Iterator[Finding]:
    """Files among the data that are not read; for published data sets such files are legal."""
    if data.name in DATASETS:
        return
    whats = {
        "unused file": "is in no split or has no entry, so it is never read",
        "unused folder": "contains images, but is not read",
        "unknown ending": "has a format that samtune does not read",
    }
    remedy = "legal; check that it was not meant to be used, or move it elsewhere"
    known = {row.file for row in problems}
    for path, kind in unread_files(records, as_path(str(data.root)), known):
        yield Finding(str(path), kind, whats[kind], remedy)


def _odd_objects(look: Look, data: DataConfig) -> Iterator[Finding]:
    h, w = look.size
    if look.ignored == h * w:
        what = f"every pixel has the ignored value {data.ignore}"
        yield of_mask(
            look, "all ignored", what, "training learns nothing from it: label it, or remove it"
        )
    elif not look.objects:
        yield of_mask(look, "empty mask", "has no object", "legal; check that none was forgotten")
    if look.tiny:
        few = f"{look.tiny} of {look.objects} objects under {TINY} pixels"
        what = f"{few}, least {look.least_area}"
        remedy = f"check them; data.min_area={TINY} turns them into background"
        yield of_mask(look, "tiny objects", what, remedy)


def _odd_values(look: Look, data: DataConfig) -> Iterator[Finding]:
    kind = values_kind(look, data)
    assert look.record.mask is not None
    if kind == DAMAGED:
        dark, light = ([v for v in look.values if (v > 127) == side] for side in (False, True))
        spans = [f"{min(side)} to {max(side)}" for side in (dark, light) if side]
        what = f"values {' and '.join(spans)}, as JPEG leaves 0 and 255"
        remedy = "read with a threshold of 127; export as PNG for exact edges"
        yield of_mask(look, "JPEG mask", what, remedy)
    if kind == "other values":
        cut = data.threshold or 0
        what = f"{look.value_count} values, of which those above {cut} are read as foreground"
        yield of_mask(look, "many mask values", what, "set data.threshold, or data.masks")
    if has_palette(look.record.mask):
        remedy = "check that you mean the indices and not the colours"
        what = "read as its palette's indices"
        if data.colors is not None:
            what, remedy = (
                "read as its palette's colours if all have a name, otherwise as indices",
                ("legal; check the classes in the counts below"),
            )
        yield of_mask(look, "palette mask", what, remedy)


def _mixed(sound: Sequence[Look], data: DataConfig) -> Iterator[Finding]:
    """Masks of 0/1 among masks of 0/255, which are legal but often two exports mixed up."""
    kinds = [(each, values_kind(each, data).replace(DAMAGED, "0/255")) for each in sound]
    counted = Counter(kind for _, kind in kinds if kind in _ENDS.values())
    if len(counted) < 2:
        return
    usual = counted.most_common(1)[0][0]
    for each, kind in kinds:
        if kind in counted and kind != usual:
            what = f"holds {kind} where {counted[usual]} other masks hold {usual}"
            remedy = "legal; check that 1 and 255 mean the same, or export all masks alike"
            yield of_mask(each, "mixed mask values", what, remedy)


def _odd_splits(sound: Sequence[Look], parts: Parts, data: DataConfig) -> Iterator[Finding]:
    root = data.place
    for name, records in parts.items():
        if len(records) == 1:
            what = f"the {name} split has a single image"
            yield Finding(
                root, "single image split", what, "add pairs, because one image says little"
            )
    if data.masks != "classes":
        return
    train = set(parts.get("train", ()))
    met = {value for each in sound if each.record in train for value in each.class_pixels}
    for value in range(data.classes or 0) if met else ():
        if value not in met and value != data.ignore:
            what = f"{data.class_name(value)} has no pixel in the training split"
            remedy = "add images of it, or check the values"
            yield Finding(root, "class without pixels", what, remedy)


def _counts(sound: Sequence[Look], parts: Parts, data: DataConfig) -> dict[str, Any]:
    of = {each.record: each for each in sound}
    splits = {}
    for name, records in parts.items():
        mine = [of[record] for record in records if record in of]
        if mine:
            splits[name] = asdict(summary_of(mine))
    kinds = Counter(values_kind(each, data) for each in sound)
    classes = _class_rows(sound, data)
    return {
        "images": len(sound),
        "masks": dict(kinds),
        "splits": splits,
        "classes": classes,
        "bands": band_lines(sound, data),
    }


def _facts(found: Sequence[Look], parts: Parts, data: DataConfig) -> tuple[dict[str, Any], ...]:
    """One row per image, see :class:`Check`."""
    where = splits_of(parts)
    rows = []
    for each in found:
        mask = each.record.mask
        read = each.value_count > 0 and mask is not None
        legal = read and not each.problems
        rows.append(
            {
                "name": each.record.name,
                "file": str(each.record.file),
                "mask": None if mask is None else str(path_of(mask)),
                "splits": where[each.record],
                "ok": not each.problems,
                "size": list(each.size) if each.content else None,
                "kind": values_kind(each, data) if read else None,
                "values": each.values if read and each.values else None,
                "classes": dict(sorted(each.class_pixels.items())) if legal else None,
                "objects": each.objects if legal else None,
                "empty": not each.objects if legal else None,
            }
        )
    return tuple(rows)


def _class_rows(sound: Sequence[Look], data: DataConfig) -> list[dict[str, Any]]:
    """Pixels, images and objects of each class, if there are several."""
    if data.masks != "classes" and len(data.class_names) < 2:
        return []
    pixels, images, objects = Counter[int](), Counter[int](), Counter[int]()
    for each in sound:
        pixels.update(each.class_pixels)
        images.update(each.class_pixels.keys())
        objects.update(each.class_objects)
    total = max(1, pixels.total())
    return [
        {
            "class": value,
            "name": data.class_name(value),
            "pixels": pixels[value],
            "share": pixels[value] / total,
            "images": images[value],
            "objects": objects[value],
        }
        for value in _values(data, pixels)
    ]


def _values(data: DataConfig, met: Iterable[int]) -> list[int]:
    known = data.classes or len(data.class_names)
    return sorted({*range(known), *met})
