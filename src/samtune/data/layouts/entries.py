"""The annotations of each image by annotation tools, in a common form for records."""

from __future__ import annotations

import base64
import io
import json
import math
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from samtune.data.config import SPLITS, DataConfig
from samtune.data.layouts.base import SplitRecords, some, unique_names
from samtune.data.layouts.drawn import ListedMask, kind_of, runs_of
from samtune.data.layouts.places import Places
from samtune.data.problems import DataError, complain, remark
from samtune.data.quiet import opened_picture
from samtune.data.sources import Record
from samtune.data.stored import Stored
from samtune.errors import InputError
from samtune.texts import read_json

_CORNERS = 180
"""Number of corners of the polygon for an ellipse."""


class Area(NamedTuple):
    """One object of an image."""

    label: str
    segmentation: Any
    """COCO's form, in pixels."""
    name: str
    """Its name within the file, for messages."""
    level: int = 0
    ignored: bool = False
    """Whether its pixels are ignored."""


@dataclass
class Entry:
    """One image as a tool annotated it."""

    file: Path
    image: str
    """Its name or path as the tool wrote it."""
    size: tuple[int, int] | None
    """Height and width; ``None`` if the file does not give them."""
    areas: list[Area] = field(default_factory=list)
    split: str | None = None
    faults: list[DataError] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    """Annotations that are not areas, by their kind."""
    notes: list[tuple[str, str, str]] = field(default_factory=list)
    """Remarks: kind, finding and remedy."""
    picture: Stored | None = None
    """The image within the annotation file, if the file contains it."""

    def refuse(self, name: str, kind: str, what: str, remedy: str) -> None:
        """Records an object that cannot be read."""
        self.faults.append(DataError(self.file, kind, f"{name} {what}", remedy))

    def refuse_box(self, name: str) -> None:
        """Records a box that should be an outline."""
        remedy = "draw a polygon or mask, or make one from the box with samtune predict"
        self.refuse(name, "box, no outline", "is a box without an outline", remedy)


def labels_of(entries: Iterable[Entry], known: Iterable[str] = ()) -> list[str]:
    """Names of classes: those that the tool lists, then the others that occur, sorted."""
    first = list(dict.fromkeys(known))
    met = {area.label for entry in entries for area in entry.areas if not area.ignored}
    return [*first, *sorted(met - set(first))]


def records_of(
    entries: Sequence[Entry], places: Places, config: DataConfig, names: Sequence[str]
) -> SplitRecords:
    """The records of annotated images by split.

    Raises:
        InputError: Images are missing, or entries have errors.
    """
    paths: list[tuple[Entry, Path | Stored]] = []
    missing: dict[Path, list[str]] = {}
    for entry in entries:
        for fault in entry.faults:
            complain(fault)
        for kind, what, remedy in entry.notes:
            remark(entry.file, kind, what, remedy)
        if entry.left_out:
            said = ", ".join(f"{count} {kind}" for kind, count in sorted(entry.left_out.items()))
            what = f"contains {said}, which are not areas and are left out"
            remark(entry.file, "no areas", what, "legal; draw polygons or masks to use them")
        path = places.find(entry.image) or entry.picture
        if path is None:
            missing.setdefault(entry.file, []).append(entry.image)
        else:
            paths.append((entry, path))
    for file, lacking in missing.items():
        if outside := places.refusal(file, lacking):
            complain(outside)
            continue
        what = f"{len(lacking)} of its images are not there ({some(lacking)})"
        remedy = f"put them into {places.folders[0]}"
        complain(DataError(file, "missing image", what, remedy))
    _refuse_twice(paths)
    stems = _names(paths)
    by_split: SplitRecords = {}
    number = {name: i for i, name in enumerate(names)}
    for (entry, path), stem in zip(paths, stems, strict=True):
        mask = _mask(entry, path, number, config)
        by_split.setdefault(entry.split, []).append(Record(path, mask, stem))
    if None in by_split and len(by_split) > 1:  # images in no split may be used for training
        by_split.setdefault("train", []).extend(by_split.pop(None))
    order = {split: sorted(records, key=lambda r: r.name) for split, records in by_split.items()}
    return {split: order[split] for split in (*SPLITS, None) if split in order}


def _mask(
    entry: Entry, path: Path | Stored, number: Mapping[str, int], config: DataConfig
) -> ListedMask:
    objects = [
        [number.get(a.label, 0), a.segmentation, a.ignored, a.name, a.level] for a in entry.areas
    ]
    height, width = entry.size or (0, 0)
    image = None if entry.size else path
    kind = kind_of(config.masks)
    return ListedMask(entry.file, kind, height, width, json.dumps(objects), image)


def _refuse_twice(paths: Sequence[tuple[Entry, Path | Stored]]) -> None:
    owner: dict[Path | Stored, Entry] = {}
    for entry, path in paths:
        other = owner.setdefault(path, entry)
        if other is not entry:
            what = f"annotates {entry.image}, as {other.file.name} does for {other.image}"
            complain(DataError(entry.file, "image twice", what, "keep one of the two"))


def _names(paths: Sequence[tuple[Entry, Path | Stored]]) -> list[str]:
    files = [path if isinstance(path, Path) else Path(entry.image) for entry, path in paths]
    folders = [file.parent for file in files if file.is_absolute()]
    top = Path(os.path.commonpath(folders)) if folders else Path()
    return unique_names(files, top)


def ellipse(x: float, y: float, rx: float, ry: float, degrees: float = 0.0) -> list[float]:
    """The polygon of an ellipse around ``(x, y)`` with two radii, turned clockwise."""
    angles = np.arange(_CORNERS) * (2 * np.pi / _CORNERS)
    turn = math.radians(degrees)
    across, down = rx * np.cos(angles), ry * np.sin(angles)
    corners = np.stack(
        [x + across * math.cos(turn) - down * math.sin(turn),
         y + across * math.sin(turn) + down * math.cos(turn)], axis=1,
    )  # fmt: skip
    return [float(v) for v in corners.ravel()]


def within(inner: NDArray[np.bool_], left: int, top: int, size: tuple[int, int]) -> dict[str, Any]:
    """Run lengths of a mask placed in its image; pixels outside are removed."""
    whole = np.zeros(size, bool)
    y0, x0 = max(0, top), max(0, left)
    y1, x1 = min(size[0], top + inner.shape[0]), min(size[1], left + inner.shape[1])
    if y1 > y0 and x1 > x0:
        whole[y0:y1, x0:x1] = inner[y0 - top : y1 - top, x0 - left : x1 - left]
    return runs_of(whole)


def picture_mask(text: str) -> NDArray[np.bool_]:
    """The mask in a base64 picture, perhaps deflated or a data URL: in alpha, or what is not 0.

    Raises:
        ValueError: It is not a picture; other usual error types occur too.
    """
    content = base64.b64decode(text.partition("base64,")[2] or text)
    if content[:1] == b"\x78":
        content = zlib.decompress(content)
    with opened_picture(io.BytesIO(content)) as opened:
        array = np.asarray(opened)
    if array.ndim == 2:
        return array > 0
    alpha = array[..., -1] if array.shape[2] in (2, 4) else None
    if alpha is not None and (alpha != alpha.flat[0]).any():
        return alpha > 0
    return np.any(array[..., : 3 if array.shape[2] > 2 else 1] > 0, axis=2)


def json_head(file: Path, count: int = 1 << 16) -> str:
    """The beginning of a JSON file, which shows the tool that wrote it; empty if unreadable."""
    try:
        with file.open(encoding="utf-8-sig", errors="replace") as opened:
            return opened.read(count).lstrip()
    except OSError:
        return ""


@contextmanager
def form_of(file: Path, tool: str) -> Iterator[None]:
    """Turns the errors of reading a damaged export into one line.

    Raises:
        InputError: The error from inside, or the file does not have the tool's form.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # damaged data raise almost any type
        reason = " ".join(f"{type(error).__name__} {error}".split())[:80]
        what = f"is not in the form of {tool} ({reason})"
        raise DataError(file, "other form", what, "export it again") from error


def json_of(file: Path) -> Any:
    """The content of a JSON file.

    Raises:
        InputError: It is not readable as JSON.
    """
    try:
        return read_json(file)
    except (ValueError, OSError) as error:
        what = f"not readable as JSON ({str(error).splitlines()[0]})"
        raise DataError(file, "unreadable list", what, "export it again") from error
