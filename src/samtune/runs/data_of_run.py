"""The data of a run: its splits, the digests of its files, and their changes since."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from samtune.data.intensity import NOT_FINITE
from samtune.data.layouts import SplitRecords
from samtune.data.named import DATASETS, deviations
from samtune.data.problems import DataError
from samtune.data.reading import image_size
from samtune.data.record import Record
from samtune.data.remarks import LEAK, as_lines, of_training, repeated
from samtune.data.scan import Look, Summary, empty_split, looks, no_objects, summary_of, usable
from samtune.data.splits import read_split, splits
from samtune.errors import InputError
from samtune.files import as_path, read_sealed, sealed_json, write_whole
from samtune.report.quantities import counted
from samtune.runs.config import RunConfig
from samtune.runs.remarks import few_images
from samtune.training.saves import LAST
from samtune.training.state import has_state

SPLIT = "split.json"
"""The file that lists the images of a run's training, validation and test."""
DIGESTS = "files.json"
"""The file with digests of these images and masks, and with the other images of the data set."""
_EXAMPLES = 3
_GO_ON = "start a new run, or use what there is with resume_changed=true"
Parts = dict[str, list[Record]]


def data_name(config: RunConfig) -> str:
    """The name of the data set in reports and folders."""
    return config.data.name or as_path(config.data.root or "data").resolve().name


def write_digests(
    folder: Path, parts: Parts, looks: Sequence[Look], layout: SplitRecords, settings: str
) -> None:
    """Writes the digests of a run's files.

    Args:
        folder: The run's folder.
        parts: Its splits.
        looks: Thorough looks at their images.
        layout: All existing images.
        settings: The digest of its settings.
    """
    names = {split: [record.name for record in records] for split, records in parts.items()}
    digests = _digests(parts, looks, names)
    used = {record for records in parts.values() for record in records}
    used_names = {record.name for record in used}
    rest = [(part, r.name) for part, rows in layout.items() for r in rows if r not in used]
    others = {f"{part}/{name}" if name in used_names else name for part, name in rest}
    tree = {"digests": digests, "unused": sorted(others), "settings": settings}
    write_whole(folder / DIGESTS, sealed_json(tree))


def _digests(
    parts: Parts, looks: Sequence[Look], names: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """The digests of image and mask of the images that were looked at, by their keys."""
    by_record = {look.record: [look.content, look.mask_content] for look in looks}
    count = Counter(name for listed in names.values() for name in set(listed))
    return {
        # names need not be unique but in a split on disk
        f"{split}/{record.name}" if count[record.name] > 1 else record.name: by_record[record]
        for split, records in sorted(parts.items())
        for record in sorted(records, key=lambda record: record.name)
        if record in by_record
    }


def noted_settings(folder: Path) -> str | None:
    """The digest of the settings that a run began with; ``None`` of an earlier version's.

    Raises:
        InputError: The file is damaged.
    """
    return _read(folder).get("settings")


class RunData(NamedTuple):
    """The data that a run used, compared with the existing data."""

    parts: Parts
    lines: list[str]
    """Added, missing and moved images, in words."""
    changed: bool
    """Whether images of the run are missing."""


def parts_of_run(
    folder: str | Path, layout: SplitRecords, allow: bool = False, splits_used: Any = None
) -> RunData:
    """The splits of a run from its ``split.json``, and the files that are new or missing since.

    Args:
        folder: The run's folder.
        layout: The existing images.
        allow: Continue without missing images.
        splits_used: The splits whose images are needed; by default all.

    Raises:
        InputError: An image of the run is missing, or the file is missing or damaged.
    """
    place = as_path(folder)
    names = read_split(place / SPLIT)
    if not names:
        raise InputError(
            f"resume={folder}: has no {SPLIT}, so its splits are not known; start a new run"
        )
    there = _located(names, layout)
    needed = [(split, name) for split in splits_used or names for name in names.get(split, [])]
    absent = sorted({name for split, name in needed if (split, name) not in there})
    images = {there.get(each, each) for each in needed}
    missing = f"{len(absent)} of the {len(images)} images of the run are gone ({_some(absent)})"
    lines = [f"{missing}, as {SPLIT} lists them"]
    if absent and not allow:
        raise InputError(f"resume={folder}: {lines[0]}; put them back, {_GO_ON}")
    unused, used = _read(place).get("unused"), set(there.values())
    known = set(unused or ())
    rest = [(part, r.name) for part, rows in layout.items() for r in rows if r not in used]
    new = sorted({n for part, n in rest if n not in known and f"{part}/{n}" not in known})
    # an earlier version did not list unused images
    what = "are new since the run began" if unused is not None else "are in no split of the run"
    lines = [*(lines if absent else []), *_moves(there, layout)]
    lines += [f"{len(new)} images {what} and are not used ({_some(new)})"] if new else []
    parts = {s: [there[s, n] for n in listed if (s, n) in there] for s, listed in names.items()}
    return RunData(parts, lines, bool(absent))


def trained_images(folder: Path, layout: SplitRecords) -> set[Record]:
    """The existing images that a run was trained on; none without its ``split.json``.

    Raises:
        InputError: The file is damaged.
    """
    names = {"train": read_split(folder / SPLIT).get("train", [])}
    return set(_located(names, layout).values())


def _located(
    names: Mapping[str, Sequence[str]], layout: SplitRecords
) -> dict[tuple[str, str], Record]:
    """The existing images of a run's splits, by split and name.

    Two splits on disk may have images of the same name: each is looked for where its split was
    taken from, and elsewhere only if there is no doubt.
    """
    by_part = _by_part(layout)
    count = Counter(name for listed in names.values() for name in set(listed))
    there = {}
    for split, listed in names.items():
        home = _home(split, by_part)
        for name in listed:
            record = home.get(name)
            if record is None and count[name] == 1:
                others = {part[name] for part in by_part.values() if name in part}
                record = others.pop() if len(others) == 1 else None
            if record is not None:
                there[split, name] = record
    return there


def _moves(there: Mapping[tuple[str, str], Record], layout: SplitRecords) -> list[str]:
    """A line if images of a run lie in the folder of another split than the run uses them for."""
    by_part = _by_part(layout)
    strays = []
    for (split, name), record in sorted(there.items()):
        if name not in _home(split, by_part):
            now = next(part for part, rows in by_part.items() if rows.get(name) is record)
            strays.append(f"{name}: of {split}, now in {now or 'no split'}")
    if not strays:
        return []
    verb = "is" if len(strays) == 1 else "are"
    return [
        f"{counted(len(strays), 'image')} of the run {verb} in the folder of another split "
        f"({_some(strays)}); the run uses them as {SPLIT} lists them"
    ]


def _by_part(layout: SplitRecords) -> dict[str | None, dict[str, Record]]:
    return {part: {record.name: record for record in rows} for part, rows in layout.items()}


def _home(split: str, by_part: Mapping[str | None, Mapping[str, Record]]) -> Mapping[str, Record]:
    """The images among which those of a split were when the run began."""
    return by_part.get(split) or by_part.get(None) or by_part.get("train", {})


def altered(
    folder: str | Path | None, parts: Parts, looks: Sequence[Look], allow: bool = False
) -> list[str]:
    """A line if images or masks have changed since the run began; none for a new run.

    Args:
        folder: The run's folder.
        parts: Its splits.
        looks: Thorough looks at those of their images that are used.
        allow: Report it and continue.

    Raises:
        InputError: They have changed.
    """
    if folder is None:
        return []
    before = _read(as_path(folder)).get("digests", {})
    digests = _digests(parts, looks, read_split(as_path(folder) / SPLIT))
    lines = []
    for what, at in (("images", 0), ("masks", 1)):
        both = sorted(digests.keys() & before.keys())
        names = [key for key in both if before[key][at] != digests[key][at]]
        if names:
            lines.append(f"{len(names)} {what} have changed since the run began ({_some(names)})")
    if lines and not allow:
        raise InputError(f"resume={folder}: {' and '.join(lines)}; put them back, {_GO_ON}")
    return [f"{line}: what follows is measured anew, on other images than before" for line in lines]


def _read(folder: Path) -> Mapping[str, Any]:
    file = folder / DIGESTS
    if not file.exists():
        return {}
    tree = read_sealed(file, "remove it to go on without what it says")
    digests, unused = tree.get("digests"), tree.get("unused")
    rows = digests.values() if isinstance(digests, dict) else [None]
    pairs = all(isinstance(row, list) and len(row) == 2 for row in rows)
    if not pairs or not isinstance(unused, list):
        what, remedy = "is damaged, no digests by image", "remove it to go on without what it says"
        raise DataError(file, "unreadable file", what, remedy)
    return tree


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_EXAMPLES]) + (", ..." if len(names) > _EXAMPLES else "")


def parts_to_train_on(
    config: RunConfig, records: SplitRecords
) -> tuple[dict[str, list[Record]], list[str]]:
    """The splits, those of the resumed run if there is one, and remarks about them."""
    name = config.data.name
    remarks = list(deviations(name, records)) if name in DATASETS else []
    begun = config.resume is not None and has_state(as_path(config.resume) / LAST)
    if config.resume is None or not (begun or (as_path(config.resume) / SPLIT).is_file()):
        return splits(config.data, records), remarks
    run = parts_of_run(config.resume, records, config.resume_changed)
    return run.parts, [*remarks, *run.lines]


class SplitCheck(NamedTuple):
    """The result of checking all files of some splits."""

    counts: str
    """One line per split for people."""
    remarks: list[str]
    looks: list[Look]


def check_splits(
    parts: Mapping[str, Any],
    config: RunConfig,
    carved: bool | None = None,
    thorough: bool = False,
) -> SplitCheck:
    """Checks every file once.

    Args:
        parts: The splits.
        config: How their files are read.
        carved: For a training: whether samtune made the splits; the remarks of a data check are
            then added. ``None`` otherwise.
        thorough: Whether to decode the images too, which a training does anyway.

    Raises:
        InputError: Training cannot use a file or a split.
    """
    remarks, counts, looks = [], [], dict[Record, Look]()
    for name, records in parts.items():
        if not records:
            raise empty_split(name, config.data)
        try:
            mine = usable(records, config.data, thorough=thorough or carved is not None)
        except InputError as error:
            error.add_note(f"samtune data check {config.data.root} lists all that is wrong")
            raise
        looks |= {each.record: each for each in mine}
        summary: Summary = summary_of(mine)
        images, objects = counted(summary.images, "image"), counted(summary.objects, "object")
        counts.append(f"{name}: {images}, {objects}")
        if name == "train" and not summary.objects:
            raise no_objects(summary.images, config.data)
        few = few_images(name, summary.images)
        remarks += [few] if few else []
        remarks += _unmeasured(name, summary, config) if name != "train" else []
        if summary.empty and summary.objects:  # a split without any object is reported already
            remarks.append(f"{name}: {summary.empty} of {summary.images} images have no object")
        if summary.empty:
            counts[-1] += f" ({counted(summary.empty, 'image')} without any)"
    if carved is not None:
        remarks += as_lines([*of_training([*looks.values()], parts, config.data, carved)])
        notes = [note for each in looks.values() for note in each.remarks]
        remarks += as_lines([note for note in notes if note.kind == NOT_FINITE])
    return SplitCheck("\n".join(counts), remarks, [*looks.values()])


def splits_on_disk(layout: SplitRecords) -> dict[str, list[Record]]:
    """The named splits of a layout, if there are several."""
    parts = {name: records for name, records in layout.items() if name is not None}
    return parts if len(parts) > 1 else {}


def leaks(looks_of_test: Sequence[Look], layout: SplitRecords, config: RunConfig) -> list[str]:
    """Remarks about measured images that are also in another split on disk.

    Args:
        looks_of_test: Thorough looks at the images of an evaluation.
        layout: The splits on disk; there are no remarks if there are fewer than two.
        config: How the files are read; unreadable files are left out.
    """
    parts = splits_on_disk(layout)
    there = {record for records in parts.values() for record in records}
    mine = [each for each in looks_of_test if each.record in there]
    sizes = {each.size for each in mine}
    rest = there - {each.record for each in mine}
    # equal images have equal sizes, so for most images the header is enough
    others = sorted((r for r in rest if _size(r) in sizes), key=lambda record: record.name)
    seen = [each for each in (*looks(others, config.data, thorough=True), *mine) if each.content]
    files = {str(each.record.file) for each in mine}
    rows = (row for row in repeated(seen, parts) if row.kind == LEAK and row.file in files)
    return as_lines(list(rows))


def _size(record: Record) -> tuple[int, int] | None:
    """Height and width of an image; ``None`` if it cannot be read."""
    with suppress(InputError):
        return image_size(record.image)
    return None


def _unmeasured(split: str, summary: Summary, config: RunConfig) -> list[str]:
    """Classes and objects without a score in a split, because they do not occur in it."""
    data = config.data
    if not summary.objects:
        count = f"{summary.images} of {summary.images} images have no object"
        return [f"{split}: {count}, so that there is nothing to measure; add some"]
    known = data.classes or len(data.class_names)
    values = [v for v in range(known) if v not in (data.background, data.ignore)]
    absent = [value for value in values if value not in summary.class_objects]
    if known < 2 or not absent:
        return []
    names = [data.class_name(v) for v in absent]
    verb = "does" if len(names) == 1 else "do"
    return [f"{split}: {_some(names)} {verb} not occur, so there is no number of it"]
