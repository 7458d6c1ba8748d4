"""Images and masks in one tree of folders, told apart by the names of folders and files."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from samtune.data.pairing import (
    IMAGE_WORDS,
    MASK_WORDS,
    PairFile,
    is_mask_name,
    is_mask_word,
    nfc,
    object_stem,
    without_word,
)
from samtune.data.reading import LOSSY, read_channels
from samtune.errors import InputError

_PAIR = 2
"""Number of files in a folder in which one is named only ``mask``."""
_FEW_VALUES = 2
"""Number of values up to which a picture counts as a mask if another with its name has more."""
_EVEN = 0.5
"""Fraction of pixels equal to the next one below which a picture is plainly a photograph."""


@dataclass(frozen=True)
class Roles:
    """The files of a tree by role."""

    images: list[PairFile]
    masks: list[PairFile]
    unclear: list[tuple[Path, Path]]
    """Two files with the same name, if nothing shows which one is the mask."""


def roles_of(files: Iterable[Path], root: Path) -> Roles:
    """Determines which files below a folder are images, and which are masks.

    Words in folder names come first (``images``, ``train_masks``), then those in file names
    (``a_mask``). Of two files with the same name, the picture with two values is the mask; if one
    is a JPEG, the other one is, unless that is plainly a photograph.

    Args:
        files: The files, each below the root.
        root: The folder.
    """
    images: list[PairFile] = []
    masks: list[PairFile] = []
    rest: list[PairFile] = []
    for file in files:
        role, place = _role_of_folders(file.relative_to(root).parts[:-1])
        named = PairFile(file, place)
        {"image": images, "mask": masks}.get(role, rest).append(named)
    by_name = _masks_by_name(rest)
    masks += [replace(each, apart=False) for each in rest if each.path in by_name]
    twins: dict[tuple[tuple[str, ...], str], list[PairFile]] = defaultdict(list)
    for each in rest:
        if each.path not in by_name:
            twins[each.place, each.stem].append(each)
    of_endings: dict[frozenset[str], str | None] = {}
    unclear = []
    for group in twins.values():
        mask = _mask_of_twins(group, of_endings) if len(group) == 2 else None
        if len(group) == 2 and mask is None:
            unclear.append((group[0].path, group[1].path))
        images += [each for each in group if each is not mask]
        masks += [mask] if mask else []
    return Roles(images, masks, unclear)


def role_of_folder(name: str) -> tuple[str | None, str]:
    """The role that a folder's name gives its files, and the rest of the name."""
    lower = nfc(name).lower()
    for role, words in (("mask", MASK_WORDS), ("image", (*IMAGE_WORDS, "imgs"))):
        if lower in words:
            return role, ""
        if (rest := without_word(lower, words)) is not None:
            return role, rest
    return None, name


def _role_of_folders(folders: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The role from the innermost folder that has one; the folders without that word."""
    for i in range(len(folders) - 1, -1, -1):
        role, rest = role_of_folder(folders[i])
        if role is not None:
            return role, (*folders[:i], *([rest] if rest else []), *folders[i + 1 :])
    return "", tuple(folders)


def _masks_by_name(files: Sequence[PairFile]) -> set[Path]:
    """Files with a word for masks, unless they are images with such a name, as ``gas_mask``."""
    targets: dict[tuple[tuple[str, ...], str], bool] = {}
    for each in files:
        for stem in (without_word(each.stem, MASK_WORDS), object_stem(each.stem)):
            if stem is not None:
                targets[each.place, stem] = True
    stems = Counter((each.place, each.stem) for each in files)
    beside = Counter(each.place for each in files)
    by_name = set()
    for each in files:
        if is_mask_word(each.stem) and beside[each.place] == _PAIR:
            by_name.add(each.path)
        if is_mask_name(each.stem):
            mine = (without_word(each.stem, MASK_WORDS), object_stem(each.stem))
            lacks = not any((each.place, stem) in stems for stem in mine if stem is not None)
            key = (each.place, each.stem)
            if not (lacks and (key in targets or stems[key] > 1)):
                by_name.add(each.path)
    return by_name


def _mask_of_twins(
    twins: Sequence[PairFile], known: dict[frozenset[str], str | None]
) -> PairFile | None:
    """The mask of two files with the same name; ``known`` are findings about their endings."""
    endings = [each.path.suffix.lower() for each in twins]
    if endings[0] == endings[1]:
        return None
    pictures, key = [ending in LOSSY for ending in endings], frozenset(endings)
    if all(pictures):
        return None
    if any(pictures):
        other = twins[pictures.index(False)]
        if key not in known:
            known[key] = None if _is_photograph(other.path) else other.path.suffix.lower()
        return None if known[key] is None else other
    if known.get(key) is None:
        plain = [_is_mask_like(each.path) for each in twins]
        known[key] = endings[plain.index(True)] if sum(plain) == 1 else None
    return None if known[key] is None else twins[endings.index(str(known[key]))]


def _is_photograph(path: Path) -> bool:
    """Whether most pixels differ from the next one, as never in a mask."""
    try:
        channels = np.ma.getdata(read_channels(path))
    except InputError:
        return False
    equal = (channels[:, 1:] == channels[:, :-1]).all(-1)
    return bool(equal.size) and float(equal.mean()) < _EVEN


def _is_mask_like(path: Path) -> bool:
    try:
        channels = read_channels(path)
    except InputError:
        return False
    return len(np.unique(channels)) <= _FEW_VALUES
