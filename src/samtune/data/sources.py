"""Finds image and mask files on disk and pairs them by file stem."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from samtune.data.config import SPLITS
from samtune.data.pairing import nfc
from samtune.data.partners import by_stem, named_files, pair, records_of_files
from samtune.data.problems import DataError, complain
from samtune.data.reading import SUFFIXES
from samtune.data.record import Record
from samtune.data.stored import Stored
from samtune.data.volumes import Whole, is_volume, slices, stem_of
from samtune.data.walking import SPLIT_NAMES, data_files, existing_folder, image_files
from samtune.errors import InputError
from samtune.texts import read_text

__all__ = [
    "SPLIT_NAMES",
    "Record",
    "by_lists",
    "by_stem",
    "existing_folder",
    "find_layout",
    "find_records",
    "image_files",
    "is_plain",
    "lines_of",
    "sliced",
    "split_lists",
]

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages")
MASK_FOLDERS = ("masks", "mask", "gt", "labels", "label", "annotations")


def find_layout(root: str | Path) -> dict[str | None, list[Record]]:
    """All pairs of a data set by split, each list sorted by name; key ``None`` if it has no splits.

    The known layouts, with folder names in upper or lower case and any of the usual spellings:

    - ``ROOT/images`` and ``ROOT/masks``, optionally with ``ROOT/train.txt``, ``val.txt`` or
      ``validation.txt``, ``test.txt`` that list file names or stems, one per line;
    - ``ROOT/images/{train,val,test}`` and ``ROOT/masks/{train,val,test}``;
    - ``ROOT/{train,val,test}/images`` and ``.../masks``.

    Raises:
        InputError: The layout is unknown, a partner is missing, two files have the same stem, a
            listed file does not exist, or there are no pairs.
    """
    base = existing_folder(root)
    folders = _pair_of_folders(base)
    if folders is None:
        parts = _split_folders(base)
        inside = {name: _pair_of_folders(path) for name, path in parts.items()}
        if not any(inside.values()):
            raise _nothing_found(base)
        for name in (name for name, both in inside.items() if both is None):
            complain(_no_pair(parts[name]))
        return {name: pair(*both) for name, both in inside.items() if both}
    images, masks = folders
    parts = {} if data_files(images) else _split_folders(images)
    if parts:
        truths = {name: _mask_part(masks, name, path) for name, path in parts.items()}
        return {name: pair(parts[name], truth) for name, truth in truths.items() if truth}
    lists = split_lists(base)
    if lists:
        return dict(_by_lists(images, masks, lists).items())
    return {None: pair(images, masks)}


def find_records(root: str | Path, split: str | None = None) -> list[Record]:
    """The pairs of one split of a folder, or of all splits.

    Raises:
        InputError: See :func:`find_layout`; or the folder does not have the split.
    """
    layout = find_layout(root)
    if split is None:
        return [record for records in layout.values() for record in records]
    if split not in layout:
        have = ", ".join(sorted(name for name in layout if name)) or "none"
        raise InputError(
            f"{root}: has no split {split!r} (splits found: {have}); add it or omit it"
        )
    return layout[split]


def sliced(records: Iterable[Record], axis: int = 0, whole: bool = False) -> list[Record]:
    """The records, with volumes replaced by their slices, see :func:`.volumes.slices`.

    Raises:
        InputError: A volume cannot be read or does not fit its mask.
    """
    pieces = []
    for record in records:
        image, mask = record.image, record.mask
        if isinstance(image, Stored) or isinstance(mask, Stored) or not is_volume(image):
            pieces.append(record)
            continue
        try:
            parts = slices(image, mask, axis, whole)
        except InputError as error:
            complain(error)
            continue
        names = [f"{record.name}_{i:04d}" for i in range(len(parts))]
        if isinstance(parts[0][0], Whole):
            pieces.append(Record(*parts[0], record.name))
        else:
            pieces += [Record(*p, n, record.name) for p, n in zip(parts, names, strict=True)]
    return pieces


def is_plain(root: Path) -> bool:
    """Whether a folder holds images beside mask pictures, so that :func:`find_layout` reads it."""
    if not root.is_dir():
        return False
    both = [_pair_of_folders(path) for path in (root, *_split_folders(root).values())]
    masks = [pair[1] for pair in both if pair]
    masks += [part for folder in masks for part in _split_folders(folder).values()]
    return any(_any_image(folder) for folder in masks)


def _any_image(folder: Path) -> bool:
    return any(p.suffix.lower() in SUFFIXES or is_volume(p) for p in folder.iterdir())


def _subfolders(folder: Path) -> dict[str, Path]:
    return {p.name.lower(): p for p in sorted(folder.iterdir()) if p.is_dir()}


def _pair_of_folders(base: Path) -> tuple[Path, Path] | None:
    inside = _subfolders(base)
    images = next((inside[n] for n in IMAGE_FOLDERS if n in inside), None)
    masks = next((inside[n] for n in MASK_FOLDERS if n in inside), None)
    return (images, masks) if images and masks else None


def _split_folders(base: Path) -> dict[str, Path]:
    named = {SPLIT_NAMES[n]: p for n, p in _subfolders(base).items() if n in SPLIT_NAMES}
    return {split: named[split] for split in SPLITS if split in named}


def _mask_part(masks: Path, split: str, images: Path) -> Path | None:
    parts = _split_folders(masks)
    if split not in parts:
        remedy = f"add the masks of the split {split!r} or move its images elsewhere"
        what = f"has no partner folder in {masks}"
        complain(DataError(images, "split without masks", what, remedy))
    return parts.get(split)


def split_lists(base: Path) -> dict[str, Path]:
    """The files at a root that list the images of a split, as ``train.txt``."""
    named = {SPLIT_NAMES[p.stem.lower()]: p for p in sorted(base.glob("*.txt"))
             if p.stem.lower() in SPLIT_NAMES}  # fmt: skip
    return {split: named[split] for split in SPLITS if split in named}


def _by_lists(images: Path, masks: Path, lists: Mapping[str, Path]) -> dict[str, list[Record]]:
    files = named_files(images)
    pictures = {each.stem: each.path for each in files}
    records = {record.name: record for record in records_of_files(files, named_files(masks))[0]}

    def lacking(stem: str) -> tuple[Path, str]:
        return (masks, "mask") if stem in pictures else (images, "image")

    return by_lists(records, lists, lacking)


def by_lists(
    records: Mapping[str, Record],
    lists: Mapping[str, Path],
    lacking: Callable[[str], tuple[Path, str]],
) -> dict[str, list[Record]]:
    """The records listed in files, by split; unlisted records are not used.

    Args:
        records: The records by the names that a line may contain, without endings: stems, or paths
            with slashes. A record may have several names.
        lists: The file of each split, with one name per line.
        lacking: For messages: the folder that was searched, and the missing kind, image or mask.
    """
    owner: dict[Record, Path] = {}
    result = {}
    for split, file in lists.items():
        names = sorted({_name_on(line, records) for line in lines_of(file)} - {""})
        if not names:
            remedy = "give one name per line or remove the list"
            complain(DataError(file, "empty list", "lists no file", remedy))
        for name in (name for name in names if name not in records):
            folder, what = lacking(name)
            found = f"lists {name!r}, but {folder} has no {what} of that stem"
            complain(
                DataError(file, "listed but missing", found, f"add the {what} or remove the line")
            )
        there = [name for name in names if name in records]
        for name in there:
            other = owner.setdefault(records[name], file)
            if other != file:
                what = (
                    f"{name!r} is also listed in {other.name}, but a file can only be in one split"
                )
                complain(DataError(file, "listed twice", what, "keep it in one of the two"))
        mine = (records[name] for name in there if owner[records[name]] == file)
        result[split] = list(dict.fromkeys(mine))
    return result


def lines_of(file: Path, errors: str = "strict") -> list[str]:
    """The lines of a text, without spaces around them and without the empty ones.

    Args:
        file: A file of UTF-8 text.
        errors: The treatment of other bytes, as Python's ``bytes.decode`` takes it.

    Raises:
        InputError: It cannot be read.
    """
    try:
        lines = [line.strip() for line in read_text(file, errors).splitlines()]
    except OSError as error:
        what = f"cannot be read ({error.strerror or error})"
        raise DataError(file, "unreadable list", what, "write it again") from None
    except UnicodeDecodeError:
        what, remedy = "is not UTF-8 text", "save it as UTF-8"
        raise DataError(file, "unreadable list", what, remedy) from None
    return [line for line in lines if line]


def _name_on(line: str, records: Mapping[str, Record]) -> str:
    """The name on a line, including its folders if records are known by them."""
    path = Path(line.strip().replace("\\", "/"))
    known = path.suffix.lower() in SUFFIXES or is_volume(path)
    stem = nfc(stem_of(path) if known else path.name)
    whole = nfc(path.with_name(stem).as_posix()) if path.name else ""
    return whole if whole in records else stem


def _no_pair(part: Path) -> DataError:
    what = "lacks the folders of images and masks that the other splits have"
    remedy = "add them or move this folder elsewhere"
    return DataError(part, "split without masks", what, remedy)


def _nothing_found(base: Path) -> DataError:
    there = sorted(p.name + ("/" if p.is_dir() else "") for p in base.iterdir())
    listing = ", ".join(there[:8]) + (", ..." if len(there) > 8 else "") or "nothing"
    return DataError(
        base,
        "no folders",
        "no folders of images and masks found (looked for "
        f"{'|'.join(IMAGE_FOLDERS)} and {'|'.join(MASK_FOLDERS)}, also in train|val|test; "
        f"there is: {listing})",
        "rename the two folders, e.g. images and masks, or give patterns for the files, as in "
        "data.images='photos/*.jpg' data.mask_files='truth/*.png'",
    )
