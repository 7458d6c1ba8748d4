"""Images and masks selected by patterns, if file names alone do not tell them apart."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from samtune.data.bounds import is_outside
from samtune.data.config import DataConfig
from samtune.data.layouts.base import SplitRecords, check_kind, splits_on_disk
from samtune.data.pairing import PairFile, nfc
from samtune.data.partners import named_files, names_of, records_of_files, refuse_alone
from samtune.data.problems import DataError, complain
from samtune.data.reading import SUFFIXES
from samtune.data.record import Record
from samtune.data.sources import sliced
from samtune.data.trees import roles_of
from samtune.data.volumes import is_volume
from samtune.data.walking import data_files_below, existing_folder
from samtune.options import is_pattern

_WILD = re.compile(r"\*\*/|\*\*|\*|\?|\[[^\]]+\]")
_OF_WILD = {"**/": "((?:.*/)?)", "**": "(.*)", "*": "([^/]*)", "?": "([^/])"}


def with_patterns(data: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of ``data`` with a pattern in ``masks`` moved to ``mask_files``."""
    if not is_pattern(data.get("masks")):
        return dict(data)
    rest = {key: value for key, value in data.items() if key != "masks"}
    return {**rest, "mask_files": data["masks"]}


def find_by_patterns(root: Path, config: DataConfig) -> SplitRecords:
    """The records of ``data.images`` and ``data.mask_files``; without one, all other files count.

    If both have the same number of wildcards, an image and a mask belong together if their
    wildcards match the same text; otherwise names decide as usual.

    Raises:
        InputError: A pattern matches no file, or a file has no partner.
    """
    base = existing_folder(root)
    images, masks = (_files(base, p, key) for p, key in (
        (config.images, "data.images"), (config.mask_files, "data.mask_files")
    ))  # fmt: skip
    others = set(data_files_below(base)) if images is None or masks is None else set()
    images = sorted(others - set(masks or ())) if images is None else images
    masks = sorted(others - set(images)) if masks is None else masks
    for both in sorted(set(images) & set(masks))[:1]:
        what = "is an image and a mask by data.images and data.mask_files"
        complain(DataError(both, "mask not clear", what, "give patterns that tell them apart"))
    records = _by_wildcards(base, config, images, masks) or _by_names(base, images, masks)
    check_kind(records, config)
    parts = splits_on_disk(records, base)
    return {split: sliced(part, config.slice_axis) for split, part in parts.items()}


def _files(base: Path, pattern: str | None, key: str) -> list[Path] | None:
    """The files that match a pattern, or all files of a folder."""
    if pattern is None:
        return None
    within = not is_outside(base / pattern, base)
    if within and (base / pattern).is_dir() and not is_volume(base / pattern):
        return [each.path for each in named_files(base / pattern)]
    names = glob.glob(os.path.join(glob.escape(str(base)), pattern), recursive=True)
    paths = [Path(name) for name in names if not is_outside(Path(name), base)]
    files = [p for p in paths if is_volume(p) or (p.is_file() and p.suffix.lower() in SUFFIXES)]
    if not files:
        what = f"{key}={pattern} names no image file"
        remedy = "give a pattern below the folder, as in images/*.jpg or **/*_mask.png"
        raise DataError(base, "no such files", what, remedy)
    return sorted(files)


def _by_wildcards(
    base: Path, config: DataConfig, images: Sequence[Path], masks: Sequence[Path]
) -> list[Record]:
    """The records by the text that the wildcards match; none if the patterns cannot be compared."""
    patterns = (config.images, config.mask_files)
    if None in patterns or len({len(_WILD.findall(str(p))) for p in patterns}) > 1:
        return []
    tables = []
    for pattern, files in zip(patterns, (images, masks), strict=True):
        keys = [_captures(str(pattern), file.relative_to(base).as_posix()) for file in files]
        if len(set(keys)) < len(keys) or None in keys:
            return []
        tables.append(dict(zip(keys, files, strict=True)))
    if not tables[0].keys() & tables[1].keys():
        return []
    for (mine, other), partner in (((0, 1), "mask"), ((1, 0), "image")):
        alone = sorted(tables[mine][k] for k in tables[mine].keys() - tables[other].keys())
        refuse_alone(alone, partner, base)
    both = sorted(tables[0].keys() & tables[1].keys(), key=str)
    places = [_file_at(tables[0][key], base) for key in both]
    records = [
        Record(tables[0][key], tables[1][key], name)
        for key, name in zip(both, names_of(places), strict=True)
    ]
    return sorted(records, key=lambda record: record.name)


def _captures(pattern: str, name: str) -> tuple[str, ...] | None:
    parts, end = [], 0
    for wild in _WILD.finditer(pattern):
        parts.append(re.escape(pattern[end : wild.start()]))
        parts.append(_OF_WILD.get(wild[0], f"({wild[0].replace('[!', '[^')})"))
        end = wild.end()
    match = re.fullmatch("".join(parts) + re.escape(pattern[end:]), name, re.DOTALL)
    return tuple(map(nfc, match.groups())) if match else None


def _by_names(base: Path, images: Sequence[Path], masks: Sequence[Path]) -> list[Record]:
    places = {each.path: each for each in (*_roles(images, base), *_roles(masks, base))}
    records, lacking, alone = records_of_files(
        [places[p] for p in images], [places[p] for p in masks]
    )
    refuse_alone(lacking, "mask", base)
    refuse_alone(alone, "image", base)
    return records


def _roles(files: Sequence[Path], base: Path) -> list[PairFile]:
    """The files with the folders that count, whatever roles their names suggest."""
    roles = roles_of(files, base)
    return [PairFile(each.path, each.place) for each in (*roles.images, *roles.masks)]


def _file_at(file: Path, base: Path) -> PairFile:
    return PairFile(file, file.relative_to(base).parts[:-1])
