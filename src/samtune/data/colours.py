"""Masks whose classes are colours, by a table from the settings or from an annotation tool."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from samtune.data.config import DataConfig
from samtune.data.problems import DataError, remark
from samtune.data.quiet import opened_picture
from samtune.errors import InputError
from samtune.files import as_path
from samtune.texts import parse_csv, parse_json, read_text
from samtune.texts.plain_yaml import as_words

Colour = tuple[int, int, int]
FILES = ("labelmap.txt", "label_colors.txt", "class_dict.csv", "obj_class_to_machine_color.json")
"""Names of colour files: of CVAT, CamVid and CVAT's export of it, Kaggle's copies of CamVid, and
Supervisely."""
BACKGROUND = ("background", "_background_", "__background__", "bg", "unlabeled", "unlabelled")
"""Names of the class that is no object, in lower case."""
VOC = "voc"
"""The word for Pascal VOC's colours, where 255 is the line around objects."""
_BLACK = (0, 0, 0)
_FIRST = 8
"""Number of masks that are checked for colours if a colour file lies beside them."""
_NEAR = 40
"""Largest distance at which a colour of a JPEG file counts as a damaged one of the table."""
_REMEDY = "write it as data.colors={road: [128,64,128]}, or as a file with a name and a colour each"


@dataclass(frozen=True)
class ColourTable:
    """The class numbers of colours."""

    colours: Mapping[Colour, int] = field(hash=False)
    """Class numbers by red, green and blue."""
    names: tuple[str, ...] = ()
    """Names of the classes by their numbers."""

    @property
    def background(self) -> int | None:
        """The class that is no object: the one with such a name, otherwise the black one."""
        named = [i for i, name in enumerate(self.names) if name.lower() in BACKGROUND]
        return named[0] if named else self.colours.get(_BLACK)

    def knows(self, array: NDArray) -> bool:
        """Whether the table contains all colours ``(h, w, 3)`` of a palette mask."""
        return {tuple(c) for c in np.unique(array.reshape(-1, 3), axis=0).tolist()} <= set(
            self.colours
        )

    def has_greys(self, array: NDArray) -> bool:
        """Whether all values of a grey mask are colours of the table, rather than class numbers."""
        values = np.unique(array[..., 0])
        greys = all((int(v),) * 3 in self.colours for v in values.tolist())
        return greys and bool((values >= max(1, len(self.names))).any())

    def numbers(self, array: NDArray, path: Path, lossy: bool) -> NDArray[np.integer]:
        """The class map ``(h, w)`` of a mask in grey or colours ``(h, w, channels)``.

        Transparent pixels are background; colours of a lossy file are mapped to the nearest of the
        table.

        Raises:
            InputError: A colour that is not in the table.
        """
        rgb = array[..., :3] if array.shape[2] > 2 else array[..., :1].repeat(3, 2)
        codes = rgb.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
        codes_there, where, counts = np.unique(codes, return_inverse=True, return_counts=True)
        numbers_there = [
            self._number((c >> 16, c >> 8 & 255, c & 255), lossy) for c in codes_there.tolist()
        ]
        clear = array[..., -1] == 0 if array.shape[2] in (2, 4) else np.zeros(rgb.shape[:2], bool)
        empty = self.background
        if empty is not None and clear.any() and not clear.all():
            where = where.reshape(rgb.shape[:2])
            counts = np.bincount(where[~clear].ravel(), minlength=len(codes_there))
        unknown = [i for i, number in enumerate(numbers_there) if number is None and counts[i]]
        if unknown:
            first = int(codes_there[max(unknown, key=lambda i: counts[i])])
            colour = [first >> 16, first >> 8 & 255, first & 255]
            more = f", and {len(unknown) - 1} more colours" if len(unknown) > 1 else ""
            raise DataError(
                path,
                "unknown colour",
                f"the colour {colour}{more} stands for no class",
                "add it to data.colors or to the file of colours, or export the mask as PNG",
            )
        kind = np.min_scalar_type(max(self.colours.values()))
        table = np.array([0 if number is None else number for number in numbers_there], kind)
        labels = table[where.reshape(rgb.shape[:2])]
        if empty is not None and not clear.all():
            labels[clear] = empty
        return labels

    def _number(self, colour: Colour, lossy: bool) -> int | None:
        if colour in self.colours or not lossy:
            return self.colours.get(colour)
        gaps = {each: sum((a - b) ** 2 for a, b in zip(colour, each, strict=True))
                for each in self.colours}  # fmt: skip
        nearest = min(gaps, key=gaps.__getitem__)
        return self.colours[nearest] if gaps[nearest] <= 3 * _NEAR**2 else None


def voc_colours(count: int = 256) -> list[Colour]:
    """Pascal VOC's colours by number, which LabelMe uses too: the bits of the number, spread."""
    spread = []
    for number in range(count):
        parts = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                parts[channel] |= (number >> (3 * bit + channel) & 1) << (7 - bit)
        spread.append((parts[0], parts[1], parts[2]))
    return spread


def table_of(config: DataConfig) -> ColourTable | None:
    """The table of ``data.colors``, if that is set.

    Raises:
        InputError: The file does not exist or has no colours.
    """
    if config.colors is None:
        return None
    if config.colors == VOC:
        colours = {colour: number for number, colour in enumerate(voc_colours())}
        return ColourTable(colours, config.class_names)
    if isinstance(config.colors, str):
        return table_in(as_path(config.colors))
    return _table(list(config.colors.items()), "data.colors")


def table_in(file: Path) -> ColourTable:
    """The table in a file of any known form.

    Raises:
        InputError: The file does not exist or has none of these forms.
    """
    if not file.is_file():
        raise InputError(f"data.colors={file}: no such file; {_REMEDY}")
    return _read(file, file.stat().st_mtime_ns)


def colour_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of ``data`` that follow from the table of colours in ``settings``.

    Raises:
        InputError: The file does not exist or has no colours.
    """
    if settings.get("masks", "classes") not in ("auto", "classes"):
        return {}
    table = table_of(DataConfig(colors=settings["colors"]))
    if table is None or not table.names:
        return {}
    known: dict[str, Any] = {"masks": "classes", "classes": len(table.names)}
    known["class_names"] = table.names
    if table.background is not None:
        known["background"] = table.background
    return known


def file_beside(root: Path, masks: Iterable[Path]) -> Path | None:
    """The colour file at a data set's root, if its first masks are coloured."""
    file = next((root / name for name in FILES if (root / name).is_file()), None)
    if file is None:
        return None
    return file if any(_is_coloured(mask) for mask in [*masks][:_FIRST]) else None


def _is_coloured(mask: Path) -> bool:
    with suppress(Exception), opened_picture(mask) as opened:
        if opened.mode == "P":
            return True
        array = np.asarray(opened)
        return array.ndim == 3 and array.shape[2] > 2 and bool(np.ptp(array[..., :3], axis=2).any())
    return False


@lru_cache(maxsize=8)
def _read(file: Path, modified: int) -> ColourTable:
    try:
        text = read_text(file)
        rows = list(_rows(file, text))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:80]
        raise InputError(f"{file}: no table of names and colours ({reason}); {_REMEDY}") from error
    return _table(rows, str(file))


def _rows(file: Path, text: str) -> Iterable[tuple[str, Any]]:
    if file.suffix.lower() in (".json", ".yaml", ".yml"):
        json_like = file.suffix.lower() == ".json"
        yield from _of_tree(parse_json(text) if json_like else as_words(text))
    elif file.suffix.lower() == ".csv":
        first, *others = parse_csv(text.splitlines(), skip_spaces=True)
        columns = [key.strip().lower() for key in first]
        for row in filter(None, others):
            cells = dict(zip(columns, row, strict=False))
            name = next(cells[key] for key in ("name", "class", "label") if key in cells)
            yield name, [cells[key] for key in ("r", "g", "b")]
    else:
        for line in text.splitlines():
            if not line.strip() or line.startswith("#"):
                continue
            words = line.split()
            if re.fullmatch(r"\d+\s+\d+\s+\d+\s+\S.*", line.strip()):
                yield " ".join(words[3:]), words[:3]
            else:
                name, colour = line.strip().split(":")[:2]
                yield name, colour.split(",") if colour.strip() else None


def _of_tree(tree: Any) -> Iterable[tuple[str, Any]]:
    """Names with colours: a mapping, or a list of entries as tools export their classes."""
    if isinstance(tree, Mapping):
        inner = next((tree[key] for key in ("classes", "colors", "labels") if key in tree), None)
        yield from tree.items() if inner is None else _of_tree(inner)
        return
    for entry in tree:
        name = next(entry[key] for key in ("title", "name", "label") if key in entry)
        yield str(name), entry.get("color", entry.get("color_rgb"))


def _table(rows: Sequence[tuple[str, Any]], origin: str) -> ColourTable:
    numbers: dict[Colour, int] = {}
    names = [str(name).strip() for name, _ in rows]
    colours = [_colour(value, name, origin) for name, (_, value) in zip(names, rows, strict=True)]
    if not names:
        raise InputError(f"{origin}: names no class; {_REMEDY}")
    if all(colour is None for colour in colours):  # names without colours mean VOC's colours
        colours = list(voc_colours(len(names)))
    if _BLACK not in colours and not any(name.lower() in BACKGROUND for name in names):
        names, colours = ["background", *names], [_BLACK, *colours]
    for number, (name, colour) in enumerate(zip(names, colours, strict=True)):
        if colour is None:
            raise InputError(f"{origin}: {name} has no colour; {_REMEDY}")
        if colour in numbers:
            raise InputError(
                f"{origin}: {names[numbers[colour]]} and {name} are both {list(colour)}; give each "
                "class a colour of its own"
            )
        numbers[colour] = number
    return ColourTable(numbers, tuple(names))


def _colour(value: Any, name: str, origin: str) -> Colour | None:
    if value in (None, [], "", "null", "~"):
        return None
    if isinstance(value, str) and re.fullmatch("#[0-9a-fA-F]{6}", value.strip()):
        digits = value.strip()[1:]
        return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:], 16)
    try:
        r, g, b = (int(part) for part in value)
        if not all(0 <= part <= 255 for part in (r, g, b)):
            raise ValueError
    except (ValueError, TypeError, OverflowError):
        raise InputError(
            f"{origin}: {name}={value}: a colour is red, green and blue of 0 to 255; {_REMEDY}"
        ) from None
    return r, g, b


def objects_of(array: NDArray, path: Path, void: int) -> NDArray[np.int32]:
    """Object numbers from 1, one per colour except black, of a map; VOC's line is ``void``.

    Args:
        array: ``(h, w, channels)``.
        path: The file, for remarks.
        void: The number of pixels that do not count.
    """
    codes = array[..., :3].astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    codes_there, where = np.unique(codes, return_inverse=True)
    line = (224 << 16) + (224 << 8) + 192
    order = {(r << 16) + (g << 8) + b: i for i, (r, g, b) in enumerate(voc_colours())}
    objects = sorted(
        (c for c in codes_there.tolist() if c not in (0, line)), key=lambda c: order.get(c, c)
    )
    if len(objects) >= void:
        remark(path, "many objects", f"{len(objects)} colours", "legal; export run lengths")
    number = {0: 0, line: void} | {
        code: i + 1 if i + 1 < void else i + 2 for i, code in enumerate(objects)
    }
    table = np.array([number[code] for code in codes_there.tolist()], np.int32)
    return table[where.reshape(codes.shape)]
