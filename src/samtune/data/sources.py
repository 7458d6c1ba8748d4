"""Finds image and mask files on disk and pairs them by file stem."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from samtune.data.config import SPLITS
from samtune.data.problems import DataError, complain
from samtune.data.reading import SUFFIXES
from samtune.data.stored import Stored, path_of
from samtune.data.volumes import Whole, is_volume, slices, stem_of
from samtune.errors import InputError
from samtune.geometry import InputPolicy

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages")
MASK_FOLDERS = ("masks", "mask", "gt", "labels", "label", "annotations")
MASK_ENDINGS = ("_mask", "_gt", "_label", "_segmentation")
SPLIT_NAMES = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
_EXAMPLES = 3


@dataclass(frozen=True)
class Record:
    """One image with its mask, if it has one."""

    image: Path | Stored
    mask: Path | Stored | None
    name: str
    """The image file's stem, or what stands for it."""
    group: str | None = None
    """The volume that it is a slice of; made splits do not part it."""

    @property
    def file(self) -> Path:
        """The file of the image, for messages."""
        return path_of(self.image)

    @property
    def label(self) -> str:
        """What tells it apart: the file's name, or of a slice its own."""
        return self.file.name if self.group is None else self.name


def find_layout(root: str | Path) -> dict[str | None, list[Record]]:
    """All pairs of a data set by split, each list sorted by name; key ``None`` if it has no splits.

    Known layouts, folder names in any case and any of the usual spellings:

    - ``ROOT/images`` and ``ROOT/masks``, optionally with ``ROOT/train.txt``, ``val.txt`` or
      ``validation.txt``, ``test.txt`` that list file names or stems, one a line;
    - ``ROOT/images/{train,val,test}`` and ``ROOT/masks/{train,val,test}``;
    - ``ROOT/{train,val,test}/images`` and ``.../masks``.

    Raises:
        InputError: No known layout, a missing partner, two files of one stem, a listed file that
            is not there, or no pair at all.
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
    parts = {} if _data_files(images) else _split_folders(images)
    if parts:
        truths = {name: _mask_part(masks, name, path) for name, path in parts.items()}
        return {name: pair(parts[name], truth) for name, truth in truths.items() if truth}
    lists = _split_lists(base)
    if lists:
        return dict(_by_lists(images, masks, lists).items())
    return {None: pair(images, masks)}


def find_records(root: str | Path, split: str | None = None) -> list[Record]:
    """The pairs of one split of a folder as it lies on disk, or of all splits.

    Raises:
        InputError: As :func:`find_layout`, or the folder has no such split.
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


def find_images(path: str | Path, policy: InputPolicy | None = None) -> list[Record]:
    """The images to predict on: of one file, or of all in a folder, without masks.

    A volume or DICOM series is as many images as it has slices.

    Args:
        path: A file or folder.
        policy: Along which axis volumes are cut, and whether arrays have bands.

    Raises:
        InputError: The path does not exist or holds no image.
    """
    start = Path(path).expanduser()
    axis, whole = (0, False) if policy is None else (policy.slice_axis, policy.bands is not None)
    if start.is_file() or (start.is_dir() and is_volume(start)):
        return sliced([Record(start, None, stem_of(start))], axis, whole)
    files = _data_files(existing_folder(start))
    if not files:
        raise InputError(
            f"{start}: holds no image file (looked for {', '.join(sorted(SUFFIXES))}); "
            "give a folder with images directly inside, or one file"
        )
    return sliced([Record(file, None, stem_of(file)) for file in files], axis, whole)


def sliced(records: Iterable[Record], axis: int = 0, whole: bool = False) -> list[Record]:
    """The records with volumes in place of pictures taken apart, see :func:`.volumes.slices`.

    Raises:
        InputError: A volume that cannot be read, or that does not go with its mask.
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


def existing_folder(path: str | Path) -> Path:
    """The path as a folder that exists.

    Raises:
        InputError: There is no such folder.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise DataError(folder, "no such folder", f"the folder {what}", "check the path")
    return folder


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


def image_files(folder: Path) -> list[Path]:
    """The image files directly in a folder, sorted, hidden ones left out."""
    return sorted(
        p for p in folder.iterdir()
        if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file()
    )  # fmt: skip


def _data_files(folder: Path) -> list[Path]:
    """Image files, arrays, volumes and folders that are DICOM series, sorted."""
    volumes = [
        path for path in folder.iterdir()
        if not path.name.startswith(".") and path.name.lower() not in SPLIT_NAMES
        and is_volume(path)
    ]  # fmt: skip
    return sorted([*image_files(folder), *volumes])


def pair(images: Path, masks: Path) -> list[Record]:
    """Pairs the images of one folder with the masks of another; every file needs its partner.

    Raises:
        InputError: A missing partner, two files of one stem, or no files.
    """
    pictures = by_stem(_data_files(images))
    truths = _masks_by_stem(masks, pictures)
    if not pictures and not truths:
        remedy = f"put images here and masks in {masks}"
        complain(DataError(images, "no pairs", "no image and mask pairs", remedy))
    _refuse_alone([pictures[s] for s in sorted(pictures.keys() - truths.keys())], "mask", masks)
    _refuse_alone([truths[s] for s in sorted(truths.keys() - pictures.keys())], "image", images)
    stems = sorted(pictures.keys() & truths.keys())
    return [Record(pictures[stem], truths[stem], stem) for stem in stems]


def by_stem(files: Iterable[Path], stems: Iterable[str] | None = None) -> dict[str, Path]:
    """Files by their stem, or by the given stems.

    Raises:
        InputError: Two files share a stem.
    """
    table: dict[str, Path] = {}
    files = list(files)
    for file, stem in zip(files, stems or [stem_of(f) for f in files], strict=True):
        if stem in table:
            what = f"has the same stem {stem!r} as {table[stem].name}, so the pair is not clear"
            complain(DataError(file, "stem twice", what, "keep one of the two"))
        table.setdefault(stem, file)
    return table


def _masks_by_stem(folder: Path, pictures: Mapping[str, Path]) -> dict[str, Path]:
    files = _data_files(folder)
    return by_stem(files, [_image_stem(stem_of(file), pictures) for file in files])


def _image_stem(stem: str, pictures: Mapping[str, Path]) -> str:
    if stem in pictures:
        return stem
    lower = stem.lower()
    ending = next((e for e in MASK_ENDINGS if lower.endswith(e)), "")
    return stem[: len(stem) - len(ending)]


def _refuse_alone(files: list[Path], partner: str, folder: Path) -> None:
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


def _split_lists(base: Path) -> dict[str, Path]:
    named = {SPLIT_NAMES[p.stem.lower()]: p for p in sorted(base.glob("*.txt"))
             if p.stem.lower() in SPLIT_NAMES}  # fmt: skip
    return {split: named[split] for split in SPLITS if split in named}


def _by_lists(images: Path, masks: Path, lists: Mapping[str, Path]) -> dict[str, list[Record]]:
    pictures = by_stem(_data_files(images))
    truths = _masks_by_stem(masks, pictures)
    owner: dict[str, Path] = {}
    result = {}
    for split, file in lists.items():
        stems = sorted({_listed_stem(line) for line in _lines(file)} - {""})
        if not stems:
            remedy = "give one name a line or remove the list"
            complain(DataError(file, "empty list", "lists no file", remedy))
        there = [
            stem
            for stem in stems
            if _is_there(stem, file, pictures, images, "image")
            and _is_there(stem, file, truths, masks, "mask")
        ]
        for stem in there:
            other = owner.setdefault(stem, file)
            if other != file:
                what = f"{stem!r} is also listed in {other.name}, but splits must not share files"
                complain(DataError(file, "listed twice", what, "keep it in one of the two"))
        result[split] = [Record(pictures[s], truths[s], s) for s in there if owner[s] == file]
    return result


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        what, remedy = "is not UTF-8 text", "save the list of names as UTF-8"
        raise DataError(file, "unreadable list", what, remedy) from None


def _listed_stem(line: str) -> str:
    name = Path(line.strip()).name
    known = Path(name).suffix.lower() in SUFFIXES or is_volume(Path(name))
    return stem_of(Path(name)) if known else name


def _is_there(stem: str, file: Path, table: Mapping[str, Path], folder: Path, what: str) -> bool:
    if stem not in table:
        found = f"lists {stem!r}, but {folder} has no {what} of that stem"
        complain(DataError(file, "listed but missing", found, f"add the {what} or remove the line"))
    return stem in table


def _no_pair(part: Path) -> DataError:
    what = "has no folders of images and masks as the other splits have"
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
        "name the two folders so, e.g. images and masks",
    )
