"""Hugging Face data sets as ``save_to_disk`` wrote them, with columns of images and masks."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from samtune.data.bounds import refuse_outside
from samtune.data.config import SPLITS, DataConfig
from samtune.data.layouts.base import Layout, SplitRecords, some
from samtune.data.quiet import opened_picture
from samtune.data.reading import LOSSY, pillow_pixels
from samtune.data.sources import SPLIT_NAMES, Record
from samtune.data.stored import Stored
from samtune.data.volumes import Role
from samtune.errors import InputError

COLUMNS: dict[Role, tuple[str, ...]] = {
    "image": ("image", "img", "images", "pixel_values"),
    "mask": ("mask", "label", "annotation", "segmentation", "segmentation_mask", "masks", "labels"),
}
"""Names of the columns, the more likely first."""


@dataclass(frozen=True)
class Cell(Stored):
    """One picture of a data set."""

    split: str | None
    column: str
    index: int
    role: Role
    suffix: str = ""
    """Ending of the file from which it was made, if there was one."""

    def read(self) -> NDArray:
        """``(h, w)`` or ``(h, w, channels)`` as stored; palettes as indices in a mask."""
        cell = _table(self.path, self.split)[self.index][self.column]
        if cell is None:
            raise InputError(
                f"{self.path}: row {self.index} has no {self.column}; remove it with filter()"
            )
        source = io.BytesIO(cell["bytes"]) if cell["bytes"] is not None else cell["path"]
        with opened_picture(source) as opened:
            return pillow_pixels(opened, colours=self.role == "image")

    @property
    def lossy(self) -> bool:
        """Whether it is a JPEG."""
        return self.suffix.lower() in LOSSY


@lru_cache(maxsize=4)
def _loaded(path: Path, modified: int) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            f"{path}: reading it needs datasets; pip install 'samtune[datasets]'"
        ) from error
    try:
        return datasets.load_from_disk(str(path))
    except Exception as error:  # it raises the errors of its readers
        reason = " ".join(str(error).split()).replace(str(path), "the folder")[:200]
        raise InputError(f"{path}: cannot be read ({reason}); save it again") from error


def _whole(path: Path) -> Any:
    return _loaded(path, path.stat().st_mtime_ns)


def _table(path: Path, split: str | None) -> Any:
    return _undecoded(path, split, path.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _undecoded(path: Path, split: str | None, modified: int) -> Any:
    """A split with its pictures as bytes, not decoded."""
    import datasets

    table = _whole(path) if split is None else _whole(path)[split]
    for name, feature in table.features.items():
        if isinstance(feature, datasets.Image):
            table = table.cast_column(name, datasets.Image(decode=False))
    return table


def _fits(root: Path) -> bool:
    if not root.is_dir():
        return False
    return (root / "dataset_dict.json").is_file() or (
        (root / "state.json").is_file() and (root / "dataset_info.json").is_file()
    )


def _find(root: Path, config: DataConfig) -> SplitRecords:
    if not _fits(root):
        raise InputError(
            f"{root}: no data set of save_to_disk, and none is downloaded; in Python "
            "datasets.load_dataset(NAME).save_to_disk(FOLDER), then data.root=FOLDER"
        )
    whole = _whole(root)
    if hasattr(whole, "features"):
        return {None: _records(root, None, config.outside)}
    unknown = [name for name in whole if name.lower() not in SPLIT_NAMES]
    if unknown:
        raise InputError(
            f"{root}: has the split {some(unknown)}; call them train, validation and test"
        )
    found = {SPLIT_NAMES[name.lower()]: _records(root, name, config.outside) for name in whole}
    return {split: found[split] for split in SPLITS if split in found}


def _records(root: Path, split: str | None, outside: bool) -> list[Record]:
    table = _table(root, split)
    image, mask = (_column(root, table.features, role) for role in COLUMNS)
    if not len(table):
        raise InputError(f"{root}: the split {split or 'all'} has no row; save it again")
    for column in (image, mask):
        refuse_outside(root, _elsewhere(table, column), root, outside)
    width = len(str(len(table) - 1))
    return [
        Record(
            Cell(root, split, image, i, "image"),
            Cell(root, split, mask, i, "mask", Path(path or "").suffix),
            f"{split or 'row'}_{i:0{width}d}",
        )
        for i, path in enumerate(_paths(table, mask))
    ]


def _paths(table: Any, column: str) -> list[str | None]:
    """The file names that the pictures of a column had; reads no pictures."""
    cells = table.data.column(column).combine_chunks()
    return cells.field("path").to_pylist()


def _elsewhere(table: Any, column: str) -> list[Path]:
    """The files of pictures that are not stored within the table."""
    cells = table.data.column(column).combine_chunks()
    rows = cells.filter(cells.field("bytes").is_null()).field("path").to_pylist()
    return [Path(path) for path in rows if path]


def _column(root: Path, features: Any, role: Role) -> str:
    import datasets

    pictures = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    known = next((name for name in COLUMNS[role] if name in pictures), None)
    if known is None:
        raise InputError(
            f"{root}: no column of {role}s (looked for {', '.join(COLUMNS[role])}; columns of "
            f"pictures: {some(pictures, 8) or 'none'}); rename one of them to {role}"
        )
    return known


LAYOUT = Layout(
    "huggingface",
    "a folder of datasets' save_to_disk, with a column image and one mask or label",
    _fits,
    _find,
)
