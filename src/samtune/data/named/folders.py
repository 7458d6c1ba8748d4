"""Data sets of picture files: which folders hold the images and masks of each split."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from samtune.data.config import DataConfig
from samtune.data.named.base import incomplete
from samtune.data.problems import complain
from samtune.data.sources import Record, by_stem, image_files
from samtune.data.stored import Stored

SplitRecords = dict[str | None, list[Record]]
"""Records by split; the key ``None`` if the authors make none."""
Source = Callable[[Path], Path | Stored]
"""How a mask file is read: the path itself, or an image within it."""


@dataclass(frozen=True)
class Part:
    """Two folders below the root; each step of a path may be one of several names, ``a|b``."""

    images: str
    masks: str
    stems: str = ""
    """Pattern of the images that belong to the set, if the folder holds others too."""
    ending: str = ""
    """The suffix that a mask's stem has after the image's."""
    prefix: str = ""
    """The prefix of a record's name, if other folders may have the same stems."""


Packing = Mapping[str | None, Sequence[Part]]
"""One way of packing a data set: the parts of each split."""


def packed(
    name: str, *packings: Packing, tops: Sequence[str] = (), mask: Source = lambda path: path
) -> Callable[[Path, DataConfig], SplitRecords]:
    """A function that finds a data set that is distributed as folders.

    Args:
        name: The data set's.
        packings: The ways in which it is packed; the first complete one is used.
        tops: Folders that an archive unpacks to: the root may contain or be one of them.
        mask: How a mask file is read.
    """

    def find(root: Path, config: DataConfig) -> SplitRecords:
        return find_packed(name, root, packings, tops, mask)

    return find


def find_packed(
    name: str,
    root: Path,
    packings: Sequence[Packing],
    tops: Sequence[str] = (),
    mask: Source = lambda path: path,
) -> SplitRecords:
    """The records of the first complete packing; see :func:`packed`.

    Raises:
        InputError: There is none; the message says what the nearest one lacks.
    """
    nearest: tuple[float, list[str]] = (0.0, [])
    for base in bases(root, tops):
        for packing in packings:
            paths = list(dict.fromkeys(_folders(packing)))
            missing = [path for path in paths if below(base, path) is None]
            if not missing:
                return _records(name, root, base, packing, mask)
            there = 1 - len(missing) / len(paths)
            if there > nearest[0]:
                nearest = there, missing
    raise incomplete(name, root, nearest[1] or list(dict.fromkeys(_folders(packings[0]))))


def bases(root: Path, tops: Sequence[str]) -> list[Path]:
    """The root, and the folders in it that an archive unpacks to."""
    inner = [below(root, top) for top in tops]
    return [root, *(path for path in inner if path is not None)]


def below(base: Path, path: str) -> Path | None:
    """A folder below another, in any case; each step may be one of several names, ``a|b``."""
    for step in path.split("/"):
        inside = {p.name.lower(): p for p in sorted(base.iterdir()) if p.is_dir()}
        found = next((inside[n] for n in step.lower().split("|") if n in inside), None)
        if found is None:
            return None
        base = found
    return base


def match_pairs(
    name: str, root: Path, pictures: Mapping[str, Path], truths: Mapping[str, Path], where: str
) -> list[tuple[str, Path, Path]]:
    """Key, image and mask of each pair, sorted by key.

    Args:
        name: The data set's.
        root: Its folder.
        pictures: Image files by the key that they share with their mask.
        truths: Mask files by the same key.
        where: The folder of both, for the message.

    Raises:
        InputError: There is none, or one lacks its partner, as after an interrupted download or
            unpacking.
    """
    lonely = {f"the mask of {p.name}": p for key, p in pictures.items() if key not in truths}
    lonely |= {f"the image of {p.name}": p for key, p in truths.items() if key not in pictures}
    if lonely:
        complain(incomplete(name, root, lonely, list(lonely.values())))
    elif not pictures:
        complain(incomplete(name, root, [f"all images in {where}"]))
    return [(key, pictures[key], truths[key]) for key in sorted(pictures.keys() & truths.keys())]


def by_split(*splits: str | tuple[str, str], images: str, masks: str, **kinds: str) -> Packing:
    """A packing whose folders differ in the split's name, ``{}`` in ``images`` and ``masks``.

    Args:
        splits: Names of splits, with the name in folders if it differs.
        images: Pattern of the image folder.
        masks: Pattern of the mask folder.
        kinds: Further fields of :class:`Part`.
    """
    named = [(split, split) if isinstance(split, str) else split for split in splits]
    return {
        split: (Part(images.replace("{}", word), masks.replace("{}", word), **kinds),)
        for split, word in named
    }


def prefixed(prefix: str, packing: Packing) -> Packing:
    """The same packing inside a folder."""
    return {
        split: [replace(p, images=prefix + p.images, masks=prefix + p.masks) for p in parts]
        for split, parts in packing.items()
    }


def _folders(packing: Packing) -> Iterator[str]:
    for parts in packing.values():
        for part in parts:
            yield part.images
            yield part.masks


def _records(name: str, root: Path, base: Path, packing: Packing, mask: Source) -> SplitRecords:
    by_split: SplitRecords = {}
    unused: dict[str, dict[str, Path]] = {}
    for split, parts in packing.items():
        by_split[split] = []
        for part in parts:
            images, folder = below(base, part.images), below(base, part.masks)
            assert images is not None and folder is not None
            pictures = by_stem(f for f in image_files(images) if re.match(part.stems, f.stem))
            truths = _truths(folder, part)
            rest = unused.setdefault(part.masks, dict(truths))
            # Splits may share a folder of masks, so masks unused by one split may belong to
            # another.
            mine = {key: path for key, path in truths.items() if key in pictures}
            for key in mine:
                rest.pop(key, None)
            for key, image, truth in match_pairs(name, root, pictures, mine, part.images):
                by_split[split].append(Record(image, mask(truth), part.prefix + key))
        by_split[split].sort(key=lambda record: record.name)
    alone = [path for rest in unused.values() for path in rest.values()]
    if alone:
        complain(incomplete(name, root, [f"the image of {path.name}" for path in alone], alone))
    return by_split


def _truths(folder: Path, part: Part) -> dict[str, Path]:
    files = image_files(folder)
    stems = [file.stem.removesuffix(part.ending) for file in files]
    kept = [(f, s) for f, s in zip(files, stems, strict=True) if re.match(part.stems, s)]
    return by_stem((f for f, _ in kept), [s for _, s in kept]) if kept else {}
