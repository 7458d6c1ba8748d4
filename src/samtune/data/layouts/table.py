"""A CSV file with one line per pair of files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from samtune.data.bounds import refusal
from samtune.data.config import SPLITS, DataConfig
from samtune.data.layouts.base import Layout, SplitRecords, some, unique_names
from samtune.data.problems import DataError, complain
from samtune.data.sources import SPLIT_NAMES, Record, existing_folder, sliced
from samtune.errors import InputError
from samtune.files import as_path
from samtune.texts import parse_csv, read_text

COLUMNS = ("image", "mask")
_DELIMITERS = ",;\t"


def _fits(root: Path) -> bool:
    return root.suffix.lower() == ".csv" if root.is_file() else bool(_tables(root))


def _find(root: Path, config: DataConfig) -> SplitRecords:
    file = _table(root)
    rows = _rows(file)
    paths = [_path(file, row["image"]) for _, row in rows]
    by_split: SplitRecords = {}
    names = unique_names(paths, file.parent)
    owner: dict[Path, int] = {}
    for (line, row), image, name in zip(rows, paths, names, strict=True):
        mask = _path(file, row["mask"])
        faults = list(_faults(file, line, row, owner))
        outside = None if config.outside or faults else refusal(file, (image, mask), file.parent)
        faults += [outside] if outside else []
        for fault in faults:
            complain(fault)
        if not faults:
            split = SPLIT_NAMES.get(row.get("split", "").lower())
            by_split.setdefault(split, []).append(Record(image, mask, name))
    if None in by_split and len(by_split) > 1:
        what = "the column split is empty in some lines only"
        complain(DataError(file, "lines without split", what, "fill it in all, or in none"))
        by_split.setdefault("train", []).extend(by_split.pop(None))
    by_split = {split: sliced(records, config.slice_axis) for split, records in by_split.items()}
    order = {split: sorted(records, key=lambda r: r.name) for split, records in by_split.items()}
    return {split: order[split] for split in (*SPLITS, None) if split in order}


def _faults(
    file: Path, line: int, row: dict[str, str], owner: dict[Path, int]
) -> Iterator[DataError]:
    """The errors of a line; its image is recorded for that line."""
    image = _path(file, row["image"])
    first = owner.setdefault(image, line)
    if first != line:
        what = f"line {line} names the image {row['image']} again, after line {first}"
        yield DataError(file, "image twice", what, "keep one of the two")
    for what, path in (("image", image), ("mask", _path(file, row["mask"]))):
        if not path.exists():
            said = f"line {line} names the {what} {row[what]}, which is not there"
            yield DataError(file, f"missing {what}", said, "paths are relative to the CSV file")
    word = row.get("split", "").lower()
    if word and word not in SPLIT_NAMES:
        said = f"line {line} has the split {word!r}"
        yield DataError(file, "unknown split", said, "it must be train, val or test")


def _table(root: Path) -> Path:
    if root.is_file():
        return root
    files = _tables(existing_folder(root))
    alone = list(root.glob("*.csv"))
    if not files and len(alone) == 1:
        return alone[0]  # missing columns are reported for it
    if len(files) != 1:
        what = f"several CSV files ({some(f.name for f in files)})" if files else "no CSV file"
        raise InputError(
            f"{root}: {what} with the columns image and mask; set data.root to the file itself"
        )
    return files[0]


def _tables(folder: Path) -> list[Path]:
    """The CSV files directly in a folder whose first line names both columns."""
    files = sorted(folder.glob("*.csv")) if folder.is_dir() else []
    return [f for f in files if f.is_file() and set(COLUMNS) <= set(_header(f))]


def _header(file: Path) -> list[str]:
    with file.open(encoding="utf-8-sig", errors="replace") as lines:
        first = lines.readline()
    delimiter = max(_DELIMITERS, key=first.count)
    try:
        return [name.strip().lower() for name in next(parse_csv([first], delimiter), [])]
    except ValueError:  # a cell without an end
        return []


def _rows(file: Path) -> list[tuple[int, dict[str, str]]]:
    """The non-empty lines with their numbers, by column name in lower case."""
    columns = _header(file)
    missing = [name for name in COLUMNS if name not in columns]
    if missing:
        raise InputError(
            f"{file}: has no column {' and no column '.join(missing)} (found: {some(columns, 8)}); "
            "the first line names the columns image, mask and, if there are splits, split"
        )
    try:
        text = read_text(file).splitlines()
        delimiter = max(_DELIMITERS, key=text[0].count)
        lines = list(parse_csv(text[1:], delimiter))
    except UnicodeDecodeError:
        raise InputError(f"{file}: is not UTF-8 text; save it as UTF-8") from None
    except ValueError as error:
        raise InputError(f"{file}: is not readable as CSV ({error}); correct it") from None
    rows = []
    for line, cells in enumerate(lines, 2):
        row = dict(zip(columns, (cell.strip() for cell in cells), strict=False))
        if not any(row.values()):
            continue
        lacking = [name for name in COLUMNS if not row.get(name)]
        for name in lacking:
            what = f"line {line} has no {name}"
            complain(DataError(file, f"no {name}", what, "fill it or remove the line"))
        if not lacking:
            rows.append((line, row))
    if not rows:
        raise InputError(f"{file}: lists no pair; write one image and mask per line")
    return rows


def _path(file: Path, cell: str) -> Path:
    literal = file.parent / cell
    return literal if literal.exists() else file.parent / as_path(cell)


LAYOUT = Layout(
    "csv",
    "a CSV file with the columns image, mask and perhaps split; paths relative to it",
    _fits,
    _find,
)
