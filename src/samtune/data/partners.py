"""Image files and their mask files become records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from samtune.data.object_files import ObjectFiles
from samtune.data.pairing import PairFile, assign, nfc
from samtune.data.problems import DataError, complain
from samtune.data.record import Record
from samtune.data.stored import Stored
from samtune.data.volumes import stem_of
from samtune.data.walking import data_files, data_files_below

_EXAMPLES = 3


def pair(images: Path, masks: Path) -> list[Record]:
    """Pairs the images of one folder with the masks of another; every file needs its partner.

    Files in subfolders are paired within folders of the same name. An image may have several masks
    if each shows one object, see :func:`.pairing.assign`.

    Raises:
        InputError: A partner is missing, two files have the same stem, or there are no files.
    """
    pictures, truths = named_files(images), named_files(masks)
    if not pictures and not truths:
        remedy = f"put images here and masks in {masks}"
        complain(DataError(images, "no pairs", "no image and mask pairs", remedy))
    records, lacking, alone = records_of_files(pictures, truths)
    refuse_alone(lacking, "mask", masks)
    refuse_alone(alone, "image", images)
    return records


def records_of_files(
    pictures: Sequence[PairFile], truths: Sequence[PairFile]
) -> tuple[list[Record], list[Path], list[Path]]:
    """The records of images and masks, sorted by name; images without masks; masks without images.

    Args:
        pictures: The images.
        truths: The masks.

    Raises:
        InputError: Two files of one stem.
    """
    table: dict[tuple[tuple[str, ...], str], PairFile] = {}
    for each in pictures:
        first = table.setdefault((each.place, each.stem), each)
        if first is not each:
            complain(_stem_twice(each.path, first.path, each.stem))
    singles = list(table.values())
    paired = assign(singles, truths)
    lacking = [each.path for each in singles if each.path not in paired.masks]
    whole = [each for each in singles if each.path in paired.masks]
    of_objects = bool(paired.objects)
    records = []
    for each, name in zip(whole, names_of(whole), strict=True):
        files = sorted(paired.masks[each.path])
        plain = [file for file in files if file not in paired.objects]
        for file in plain[1:]:
            complain(_stem_twice(file, plain[0], each.stem))
        parts = (*plain[:1], *(file for file in files if file in paired.objects))
        mask: Path | Stored = ObjectFiles(parts[0], parts) if of_objects else parts[0]
        records.append(Record(each.path, mask, name))
    return sorted(records, key=lambda r: r.name), sorted(lacking), sorted(paired.alone)


def names_of(files: Sequence[PairFile]) -> list[str]:
    """A name for each file: its stem, preceded by its folders if stems repeat."""
    names = [each.stem for each in files]
    for joint in ("_", "__", "-"):
        if len(set(names)) == len(names):
            break
        names = [joint.join((*map(nfc, each.place), each.stem)) for each in files]
    return names


def named_files(folder: Path) -> list[PairFile]:
    """The files of a folder, or if it contains none directly those of its subfolders."""
    if files := data_files(folder):
        return [PairFile(file) for file in files]
    below = data_files_below(folder)
    return [PairFile(file, file.relative_to(folder).parts[:-1]) for file in below]


def by_stem(files: Iterable[Path], stems: Iterable[str] | None = None) -> dict[str, Path]:
    """Files by their stem, or by the given stems.

    Raises:
        InputError: Two files share a stem.
    """
    table: dict[str, Path] = {}
    files = list(files)
    for file, stem in zip(files, stems or [stem_of(f) for f in files], strict=True):
        if stem in table:
            complain(_stem_twice(file, table[stem], stem))
        table.setdefault(stem, file)
    return table


def refuse_alone(files: Sequence[Path], partner: str, folder: Path) -> None:
    """Reports files without their partner.

    Args:
        files: Images or masks without a partner; there may be none.
        partner: The missing partner, image or mask.
        folder: The folder that was searched.

    Raises:
        InputError: There are such files.
    """
    if not files:
        return
    examples = ", ".join(f.name for f in files[:_EXAMPLES]) + (
        ", ..." if len(files) > _EXAMPLES else ""
    )
    alone = "image" if partner == "mask" else "mask"
    lack = "an image" if partner == "image" else "a mask"
    complain(
        DataError(
            files[0].parent,
            f"unmatched {alone}",
            f"{len(files)} file(s) without {lack} of the same stem in {folder} ({examples})",
            f"add the {partner} or remove the file",
            files,
        )
    )


def _stem_twice(file: Path, other: Path, stem: str) -> DataError:
    what = f"has the same stem {stem!r} as {other.name}, so the pair is not clear"
    return DataError(file, "stem twice", what, "keep one of the two")
