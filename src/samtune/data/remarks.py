"""Findings about a data set that do not stop training, for its check and for training."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from samtune.data.config import DataConfig
from samtune.data.named import DATASETS
from samtune.data.problems import Finding
from samtune.data.record import Record
from samtune.data.scan import Look
from samtune.data.splits import path_below
from samtune.data.stored import Stored, path_of
from samtune.data.trees import role_of_folder
from samtune.data.walking import SPLIT_NAMES
from samtune.files import as_path

Parts = Mapping[str, Sequence[Record]]
LEAK = "leak between splits"
_CASE_WORDS = r"(?i:patient|pat|case|subject|sub|study|volume|vol|series)[ _-]?\d+"
"""Words that precede a case's number in file names, for a hint."""
_MANY_REGIONS = 0.25
"""The fraction of masks from which several regions are remarked."""
_PARTS_OF_CASES = 2
"""Average number of images per case from which names count as names of cases."""


def of_mask(look: Look, kind: str, what: str, remedy: str) -> Finding:
    """A finding about the mask of an image."""
    assert look.record.mask is not None
    line = f"{look.record.name}: {what}" if isinstance(look.record.mask, Stored) else what
    return Finding(str(path_of(look.record.mask)), kind, line, remedy)


def of_image(look: Look, kind: str, what: str, remedy: str) -> Finding:
    """A finding about an image."""
    line = f"{look.record.name}: {what}" if isinstance(look.record.image, Stored) else what
    return Finding(str(look.record.file), kind, line, remedy)


def splits_of(parts: Parts) -> dict[Record, list[str]]:
    """The splits that contain each record."""
    where: dict[Record, list[str]] = defaultdict(list)
    for split, records in parts.items():
        for record in records:
            where[record].append(split)
    return where


def of_training(
    looks: Sequence[Look], parts: Parts, data: DataConfig, carved: bool
) -> Iterator[Finding]:
    """Findings of both check and training: leaks, cases in two splits, class 0 as an object.

    Args:
        looks: Thorough looks at the images without a problem.
        parts: The splits.
        data: How masks are read.
        carved: Whether samtune made the splits, rather than finding them on disk.
    """
    yield from repeated(looks, parts)
    if carved:
        yield from _parted_cases(parts, data)
    yield from _class_zero(looks, data)
    yield from _many_regions(looks, data)


def repeated(looks: Sequence[Look], parts: Parts) -> Iterator[Finding]:
    """Images that occur twice, within a split or, which falsifies results, in two splits."""
    where = splits_of(parts)
    first: dict[str, list[Look]] = defaultdict(list)
    for each in looks:
        mine = where[each.record]
        if len(mine) > 1:
            what = f"is both in {' and in '.join(mine)}"
            remedy = "add pairs, so that each split has its own"
            yield of_image(each, LEAK, what, remedy)
        earlier = first[each.content]
        apart = [e for e in earlier if not set(where[e.record]) & set(mine)]
        if apart:
            there = f"{apart[0].record.file.name} in {', '.join(where[apart[0].record])}"
            what = f"in {', '.join(mine)} is the same image as {there}"
            remedy = "remove one of the two, otherwise results are measured on training images"
            yield of_image(each, LEAK, what, remedy)
        elif earlier:
            what = f"is the same image as {earlier[0].record.file.name}"
            yield of_image(each, "duplicate image", what, "remove one of the two")
        earlier.append(each)


def _parted_cases(parts: Parts, data: DataConfig) -> Iterator[Finding]:
    """Cases with images in several made splits: in one folder, or with one name in theirs."""
    if data.group is not None or data.root is None:  # samples of Python code lie in no folder
        return
    root = as_path(str(data.root))
    paths = {
        record: PurePosixPath(path_below(record, root))
        for records in parts.values()
        for record in records
        if record.group is None
    }
    pattern = _case_pattern(sorted(set(paths.values()))) if paths else None
    if pattern is None:
        return
    rule = re.compile(pattern)
    where: dict[str, set[str]] = defaultdict(set)
    for split, records in parts.items():
        for match in (rule.search(str(paths[r])) for r in records if r in paths):
            if match:
                where[match[1 if rule.groups else 0]].add(split)
    parted = sorted(case for case, splits in where.items() if len(splits) > 1)
    if parted:
        most = f"{parted[0]} in {' and '.join(sorted(where[parted[0]]))}"
        what = f"{len(parted)} of {len(where)} cases have images in several splits ({most})"
        remedy = f"legal if their images are not alike; data.group='{pattern}' keeps cases together"
        yield Finding(data.place, "cases in two splits", what, remedy)


def _case_pattern(paths: Sequence[PurePosixPath]) -> str | None:
    """A regular expression for the cases of these images; ``None`` if names do not show any."""
    folders = [[name for name in path.parts[:-1] if not _is_of_layout(name)] for path in paths]
    if all(folders) and len(paths) >= _PARTS_OF_CASES * len({tuple(f) for f in folders}):
        before = paths[0].parts.index(folders[0][0])
        first = {path.parts[:before] for path in paths}
        if len(first) == 1 and len({f[0] for f in folders}) > 1:
            above = "".join(f"{re.escape(name)}/" for name in first.pop())
            return f"^{above}([^/]+)/"
    cases = [re.search(_CASE_WORDS, path.name) for path in paths]
    known = {match[0] for match in cases if match}
    if all(cases) and 1 < len(known) and len(paths) >= _PARTS_OF_CASES * len(known):
        return _CASE_WORDS
    return None


def _is_of_layout(folder: str) -> bool:
    """Whether a folder's name stands for images, masks or a split, and therefore not for a case."""
    return role_of_folder(folder)[0] is not None or folder.lower() in SPLIT_NAMES


def _class_zero(looks: Sequence[Look], data: DataConfig) -> Iterator[Finding]:
    """Class 0 as an object, if no setting says whether it is background."""
    known = data.name in DATASETS or data.background is not None or data.ignore == 0
    if data.masks != "classes" or known:
        return
    zeros_in = [each for each in looks if 0 in each.class_objects]
    objects = sum(each.objects for each in looks)
    zeros = sum(each.class_objects.get(0, 0) for each in looks)
    if zeros_in:
        what = (
            f"class 0 is prompted as an object in {len(zeros_in)} of {len(looks)} images: "
            f"{objects} "
            f"objects, {objects - zeros} without it"
        )
        remedy = "set data.background=0 if it is background; legal if it is a class like others"
        yield Finding(data.place, "class 0 as object", what, remedy)


def _many_regions(looks: Sequence[Look], data: DataConfig) -> Iterator[Finding]:
    """Masks with several regions that are treated as one object, if there are many of them."""
    known = data.objects != "auto" or data.name in DATASETS
    many = sum(each.regions > 1 for each in looks)
    if not known and many >= _MANY_REGIONS * sum(each.regions > 0 for each in looks) > 0:
        what = (
            f"{many} of {len(looks)} masks have several regions, and one box or point stands for "
            "all of them"
        )
        remedy = "set data.objects=component if each is an object; legal if they belong together"
        yield Finding(data.place, "several regions in a mask", what, remedy)


def as_lines(findings: Sequence[Finding]) -> list[str]:
    """One line per kind of finding, with the first of them."""
    lines = []
    for kind in dict.fromkeys(row.kind for row in findings):
        alike = [row for row in findings if row.kind == kind]
        more = f" ({len(alike)} in all)" if len(alike) > 1 else ""
        name = Path(alike[0].file).name
        lines.append(f"{kind}: {name} {alike[0].what}{more}; {alike[0].remedy}")
    return lines
