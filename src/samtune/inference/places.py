"""Output places of predictions, which never overwrite input or files of others."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from samtune.data.pictures import Paths
from samtune.data.quiet import opened_picture
from samtune.data.reading import SUFFIXES
from samtune.data.sources import is_plain
from samtune.data.volumes import stem_of
from samtune.errors import InputError
from samtune.files import as_path, check_room, free_path, lies_in, same_place
from samtune.folder_lock import LOCK
from samtune.inference.format_folders import refuse_foreign
from samtune.texts import parse_json, read_json

REMEDY = "free some space or choose another --out"
ENTRIES = "predictions.json"
JOURNAL = "predictions.partial.jsonl"
OVERLAYS = "overlays"
RASTERS = ".samtune-rasters"
STRIPS = ".strips"
"""The ending of the file beside a raster's mask with what is done of it, until all is."""
_LONGEST = 1000
"""Maximum number of characters in a journal's first line."""
_SIGNATURE = "samtune"
"""The entry of a PNG that marks it as written by a prediction, with a digest of its pixels."""


@dataclass(frozen=True)
class Places:
    """The output files of one prediction."""

    folder: Path
    overlays: bool
    masks: bool = True
    """Whether masks are written as PNG."""

    @property
    def entries(self) -> Path:
        """The list of all masks."""
        return self.folder / ENTRIES

    @property
    def rasters(self) -> Path:
        """The folder of the rasters that are done, until all is."""
        return self.folder / RASTERS

    def raster(self, name: str) -> Path:
        """The mask of an image that is answered tile by tile."""
        return self.rasters / f"{name}.tif"

    def strips(self, name: str) -> Path:
        """The strips of the mask of such an image that are done, until all are."""
        return self.rasters / f"{name}.tif{STRIPS}"

    @property
    def journal(self) -> Path:
        """The list of finished images, until all are finished."""
        return self.folder / JOURNAL

    def are_written(self, name: str) -> bool:
        """Whether an image's pictures exist as a prediction wrote them."""
        return all(_is_signed(file) for file in self.pictures(name))

    def pictures(self, name: str) -> list[Path]:
        """All pictures of an image."""
        masks = [self.mask(name)] if self.masks else []
        return [*masks, *([self.overlay(name)] if self.overlays else [])]

    def ignores_case(self) -> bool:
        """Whether the folder, which is locked, takes ``A`` and ``a`` for one name."""
        return (self.folder / LOCK.swapcase()).exists()

    def subfolders(self, names: Iterable[str]) -> set[Path]:
        """The folders below :attr:`folder` in which files of these images are written."""
        files = (each for name in names for each in (*self.pictures(name), self.raster(name)))
        return {file.parent for file in files} - {self.folder}

    def mask(self, name: str) -> Path:
        """The mask of an image."""
        return self.folder / f"{name}.png"

    def overlay(self, name: str) -> Path:
        """The picture of an image with its mask."""
        return self.folder / OVERLAYS / f"{name}.png"

    def remove_former(self, names: Collection[str]) -> None:
        """Removes the masks and overlays of images that only the earlier list of masks has.

        Other files stay, as those that no prediction wrote, or that have changed since.

        Args:
            names: The images that this prediction has answered.
        """
        if not self.entries.is_file():
            return
        fold = str.casefold if self.ignores_case() else str
        answered = {fold(name) for name in names}
        for label in {str(row["image"]) for row in read_json(self.entries)}:
            name = str(Path(label).with_name(stem_of(Path(label)))) if _is_file(label) else label
            if fold(name) in answered:
                continue
            for file in (self.mask(name), self.overlay(name)):
                if lies_in(file, self.folder) and _is_signed(file):
                    file.unlink()

    @staticmethod
    def of(
        out: str | Path,
        source: Paths,
        names: Sequence[str],
        sources: Iterable[str | Path | None] = (),
        overlays: bool = True,
        masks: bool = True,
        formats: Iterable[str] = (),
    ) -> Places:
        """The places below a folder, after checking that they collide with nothing else.

        Args:
            out: The folder.
            source: The image or the folder of images to predict on, or several of them.
            names: The names of the images.
            sources: Other input files, such as the model's.
            overlays: Whether pictures are written.
            masks: Whether masks are written as PNG.
            formats: Folders that are written besides.

        Raises:
            InputError: The folder lies in the source, or contains a file that no prediction wrote.
        """
        refuse_source(out, source)
        places = Places(as_path(out), overlays, masks)
        files = [file for name in names for file in places.pictures(name)]
        read = [as_path(each) for each in (*paths_of(source), *sources) if each is not None]
        for file in (*files, places.entries, places.journal):
            if not file.exists():
                continue
            is_read = any(same_place(file, each) for each in read)
            if is_read or not _is_written_here(file):
                why = "this command reads" if is_read else "no samtune predict wrote"
                raise InputError(
                    f"--out={out}: holds {file.relative_to(places.folder)}, which {why}; choose "
                    f"another folder, as in --out={_beside(places.folder)}"
                )
        for folder in (places.folder / each for each in formats):
            refuse_foreign(folder, _beside(places.folder), read)
        others = [p for p in _pictures(places.folder) if p not in files and not _is_signed(p)]
        if others:
            raise InputError(
                f"--out={out}: holds {others[0].name}, and masks would be mixed with those "
                f"pictures; choose another folder, as in --out={_beside(places.folder)}"
            )
        check_room(places.folder, REMEDY)
        return places


def _is_file(label: str) -> bool:
    """Whether an entry's image is a file's name, and not that of a slice."""
    return Path(label).suffix.lower() in SUFFIXES


def paths_of(source: Paths) -> list[str | Path]:
    """One path or several, as a list."""
    return [source] if isinstance(source, str | Path) else list(source)


def default_out(source: Paths) -> Path:
    """The default folder for masks: ``NAME-masks``, named after the image or the folder.

    It lies in the current folder, unless that is what is read.
    """
    first = as_path(paths_of(source)[0])
    name = f"{stem_of(first.resolve())}-masks" if len(paths_of(source)) == 1 else "masks"
    here, folder = Path.cwd().resolve(), first.resolve()
    return folder.parent / name if first.is_dir() and lies_in(here, folder) else Path(name)


def refuse_source(out: str | Path, source: Paths) -> None:
    """Refuses an output folder that is the images' folder, or among their data set's folders.

    Args:
        out: The folder to write to.
        source: The image or the folder of images to predict on, or several of them.

    Raises:
        InputError: The message suggests another folder.
    """
    for each in paths_of(source):
        _refuse_one(out, each)


def _refuse_one(out: str | Path, source: str | Path) -> None:
    folder, origin = as_path(out), as_path(source)
    images = origin if origin.is_dir() else origin.parent
    onto = lies_in(folder, images) if origin.is_dir() else same_place(folder, images)
    beside = images
    if not onto and folder.is_dir() and lies_in(images, folder) and is_plain(folder):
        onto, beside = True, folder
    if onto:
        raise InputError(
            f"--out={out}: {origin} is read, and nothing is written there; choose another folder, "
            f"as in --out={_beside(beside)}"
        )


def signed_png(picture: NDArray[np.integer]) -> bytes:
    """A picture as PNG, marked as written by a prediction."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    buffer, info = io.BytesIO(), PngInfo()
    info.add_text(_SIGNATURE, _digest(picture))
    Image.fromarray(picture).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def _is_written_here(file: Path) -> bool:
    """Whether a prediction wrote a file and it has not changed since."""
    if file.name == JOURNAL:
        with suppress(OSError, ValueError), file.open(encoding="utf-8") as opened:
            row = parse_json(opened.readline(_LONGEST))
            return isinstance(row, dict) and set(row) == {"of"}
        return False
    if file.name != ENTRIES:
        return _is_signed(file)
    try:
        rows = read_json(file)
    except (OSError, ValueError):
        return False
    keys = {"image", "segmentation", "bbox", "area", "score"}
    return isinstance(rows, list) and all(isinstance(r, dict) and keys <= r.keys() for r in rows)


def _is_signed(file: Path) -> bool:
    try:
        with opened_picture(file) as opened:
            signature = opened.info.get(_SIGNATURE)
            return signature is not None and signature == _digest(np.asarray(opened))
    except (OSError, ValueError, SyntaxError):
        return False


def _digest(picture: NDArray[np.integer]) -> str:
    return f"predict {blake2b(np.ascontiguousarray(picture).tobytes(), digest_size=16).hexdigest()}"


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())


def _beside(folder: Path) -> Path:
    """A free folder beside another, to suggest in a message."""
    place = folder if folder.name not in ("", "..") else folder.resolve()
    return free_path(place.with_name(f"{place.name}-predicted"))
