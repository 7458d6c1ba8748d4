"""Finds the image of each mask by file names."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from samtune.data.volumes import stem_of

MASK_WORDS = (
    "mask", "masks", "msk", "gt", "gts", "groundtruth", "ground_truth", "truth", "label", "labels",
    "lbl", "seg", "segmentation", "annotation", "annotations",
)  # fmt: skip
"""Words before or after a mask's name that its image's name lacks."""
IMAGE_WORDS = ("image", "images", "img", "im", "photo", "rgb", "sat", "orig", "original", "input")
"""Words before or after an image's name that its mask's name lacks."""
_COPY = re.compile(r"(?P<name>.+?)(?P<copy>\s*\(\d+\))?", re.DOTALL)
"""A name with the number in brackets that file managers append to copies."""
_NUMBERED = re.compile(r"(?P<name>.+?)[ _.\-]?(?P<number>\d+)", re.DOTALL)


@dataclass(frozen=True)
class PairFile:
    """A file, with the properties by which it is paired."""

    path: Path
    place: tuple[str, ...] = ()
    """The folders that contain it, without those that say image or mask."""
    apart: bool = True
    """Whether a mask may have the same name as its image, because they differ in something else."""

    @property
    def stem(self) -> str:
        """Its name without its ending, with ``nfc`` in NFC: file systems differ in that."""
        return nfc(stem_of(self.path))


@dataclass
class Pairing:
    """The masks of each image, and files without a partner."""

    masks: dict[Path, list[Path]] = field(default_factory=lambda: defaultdict(list))
    """Masks by image; several if each object has a mask file, or if two masks conflict."""
    objects: set[Path] = field(default_factory=set)
    """Masks of one object each, according to their numbers or folders."""
    alone: list[Path] = field(default_factory=list)
    """Masks without an image."""


def nfc(name: str) -> str:
    """A name in Unicode's NFC form, in which equal letters have equal codes."""
    return unicodedata.normalize("NFC", name)


def without_word(stem: str, words: Sequence[str]) -> str | None:
    """A name without the word before or behind it, or ``None`` if it has none of them.

    ``a_mask``, ``mask-a``, ``a.mask`` and ``a (1)_mask`` have one, in upper or lower case; the
    number in ``a_mask (1)`` is kept.
    """
    match = _COPY.fullmatch(stem)
    name, copy = (match["name"], match["copy"] or "") if match else (stem, "")
    either = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
    for form in (rf"(?P<rest>.+?)[ _.\-]+(?:{either})", rf"(?:{either})[ _.\-]+(?P<rest>.+)"):
        found = re.fullmatch(form, name, re.IGNORECASE | re.DOTALL)
        if found:
            return found["rest"] + copy
    return None


def object_stem(stem: str) -> str | None:
    """The image's name in the name of a one-object mask: ``a`` in ``a_mask_3`` and ``a_mask3``."""
    match = _NUMBERED.fullmatch(stem)
    return without_word(match["name"], MASK_WORDS) if match else None


def is_mask_name(stem: str) -> bool:
    """Whether a name contains a word for masks."""
    return without_word(stem, MASK_WORDS) is not None or object_stem(stem) is not None


def is_mask_word(stem: str) -> bool:
    """Whether a name is only a word for masks."""
    return nfc(stem).lower() in MASK_WORDS


def assign(images: Sequence[PairFile], masks: Sequence[PairFile]) -> Pairing:
    """Assigns each mask to an image by the mask's name or folder.

    A mask's name is tried as it is (if the mask lies apart), without the word for masks, and with
    an object's number; first literally, then without a word for images, then in any case. A file
    named only ``mask`` belongs to the only image beside it. A folder with the name of an image
    contains masks of its objects, and so does a folder of masks beside a single image with another
    name.

    Args:
        images: The images.
        masks: The masks; some may belong to no image.
    """
    index, result = _Index(images), Pairing()
    numbered: dict[Path, list[Path]] = defaultdict(list)
    for mask in masks:
        stem = mask.stem
        plain = [stem] if mask.apart else []
        if (worded := without_word(stem, MASK_WORDS)) is not None:
            plain.append(worded)
        image = index.first(mask.place, plain)
        if image is None and not mask.apart and is_mask_word(stem):
            image = index.alone_at(mask.place)
        if image is None and (named := object_stem(stem)) is not None:
            image = index.first(mask.place, [named])
            result.objects |= {mask.path} if image else set()
        if image is None and mask.apart:
            image = index.of_folder(mask.place)
            result.objects |= {mask.path} if image else set()
        if image is not None:
            result.masks[image].append(mask.path)
            continue
        match = _NUMBERED.fullmatch(stem)
        image = index.first(mask.place, [match["name"]]) if match and mask.apart else None
        if image is None:
            result.alone.append(mask.path)
        else:
            numbered[image].append(mask.path)
    for image, numbers in numbered.items():
        if image in result.masks:  # it has its mask already; these are of missing images
            result.alone += numbers
        else:
            result.masks[image] = numbers
            result.objects |= set(numbers)
    return result


class _Index:
    """Images by place and name, in several forms."""

    def __init__(self, images: Iterable[PairFile]) -> None:
        self.by_form: list[dict[tuple[tuple[str, ...], str], list[Path]]] = [
            defaultdict(list) for _ in range(3)
        ]
        self.at_place: dict[tuple[str, ...], list[Path]] = defaultdict(list)
        for image in images:
            place = tuple(map(nfc, image.place))
            worded = without_word(image.stem, IMAGE_WORDS) or image.stem
            self.at_place[place].append(image.path)
            for table, form in zip(self.by_form, (image.stem, worded, worded.lower()), strict=True):
                table[place, form].append(image.path)

    def first(self, place: Sequence[str], stems: Iterable[str]) -> Path | None:
        """The image with the first of these names that exists, if it is unique."""
        place, stems = tuple(map(nfc, place)), list(stems)
        for stem in stems:
            worded = without_word(stem, IMAGE_WORDS) or stem
            for table, form in zip(self.by_form, (stem, worded, worded.lower()), strict=True):
                found = table.get((place, form), [])
                if found:
                    return found[0] if len(found) == 1 or table is self.by_form[0] else None
        return None

    def of_folder(self, place: Sequence[str]) -> Path | None:
        """The image with the name of the folder, or the only image at its place."""
        place = tuple(map(nfc, place))
        if place and (image := self.first(place[:-1], [place[-1]])) is not None:
            return image
        return self.alone_at(place) if place else None

    def alone_at(self, place: Sequence[str]) -> Path | None:
        """The only image at a place."""
        here = self.at_place.get(tuple(map(nfc, place)), [])
        return here[0] if len(here) == 1 else None
