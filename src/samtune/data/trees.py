"""Images and masks in one tree of folders: told apart by the folders' names and their own."""

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
"""Files of a folder in which one is called only ``mask``."""
_FEW_VALUES = 2
"""Values of a picture that is taken for a mask if another of its name has more."""


@dataclass(frozen=True)
class Roles:
    """The files of a tree by what they are."""

    images: list[PairFile]
    masks: list[PairFile]
    unclear: list[tuple[Path, Path]]
    """Two files of one name, of which nothing says which one is the mask."""


def roles_of(files: Iterable[Path], root: Path) -> Roles:
    """Which files below a folder are images, and which are masks.

    A folder's word comes first (``images``, ``train_masks``), then the file's (``a_mask``). Of two
    files of one name the picture of two values is the mask, beside a JPEG the other one.

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
    """What a folder's name says its files are, ``image`` or ``mask``, and the rest of the name."""
    lower = nfc(name).lower()
    for role, words in (("mask", MASK_WORDS), ("image", (*IMAGE_WORDS, "imgs"))):
        if lower in words:
            return role, ""
        if (rest := without_word(lower, words)) is not None:
            return role, rest
    return None, name


def _role_of_folders(folders: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The role that the innermost folder with one says; the folders without that word."""
    for i in range(len(folders) - 1, -1, -1):
        role, rest = role_of_folder(folders[i])
        if role is not None:
            return role, (*folders[:i], *([rest] if rest else []), *folders[i + 1 :])
    return "", tuple(folders)


def _masks_by_name(files: Sequence[PairFile]) -> set[Path]:
    """Those with a mask's word, unless they are only images that are called so, as ``gas_mask``."""
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
    """The mask of two files of one name; ``known`` is what was seen of their endings before."""
    endings = [each.path.suffix.lower() for each in twins]
    if endings[0] == endings[1]:
        return None
    pictures = [ending in LOSSY for ending in endings]
    if any(pictures):
        return None if all(pictures) else twins[pictures.index(False)]
    key = frozenset(endings)
    if known.get(key) is None:
        plain = [_is_mask_like(each.path) for each in twins]
        known[key] = endings[plain.index(True)] if sum(plain) == 1 else None
    return None if known[key] is None else twins[endings.index(str(known[key]))]


def _is_mask_like(path: Path) -> bool:
    try:
        channels = read_channels(path)
    except InputError:
        return False
    return len(np.unique(channels)) <= _FEW_VALUES
