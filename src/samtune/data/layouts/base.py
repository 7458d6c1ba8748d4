"""The interface of a layout, and the choice of one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from samtune.data.colours import colour_settings
from samtune.data.config import DataConfig
from samtune.data.object_files import ObjectFiles
from samtune.data.pairing import nfc
from samtune.data.problems import DataError, of_files
from samtune.data.sources import Record, by_lists, existing_folder, is_plain, split_lists
from samtune.data.trees import role_of_folder
from samtune.data.volumes import stem_of
from samtune.data.walking import SPLIT_NAMES
from samtune.errors import InputError, nearest
from samtune.files import as_path
from samtune.registry import Members

SplitRecords = dict[str | None, list[Record]]
"""Records by split, each list sorted by name; the key ``None`` if there are no splits."""
Settings = Mapping[str, Any]
"""Settings of ``data`` by name, only those that were set."""
SUPPLIED = ("masks", "classes", "class_names", "background", "ignore", "colors")
"""Settings that a layout may derive from its files."""


def nothing(root: Path, given: Settings) -> Settings:
    """The defaults of a layout whose files do not describe their values."""
    return {}


@dataclass(frozen=True)
class Layout:
    """One way in which images and masks lie on disk."""

    name: str
    about: str
    """One line that describes the files."""
    fits: Callable[[Path], bool]
    """Whether a folder or file looks like this layout; must be cheap, for ``data.layout=auto``."""
    find: Callable[[Path, DataConfig], SplitRecords]
    """The records.

    Raises:
        InputError: Something is missing or wrong; the message names the file and the remedy.
    """
    defaults: Callable[[Path, Settings], Settings] = nothing
    """Some of :data:`SUPPLIED` from the files, given the settings so far, which override them.

    Raises:
        InputError: See ``find``.
    """


def _layout_itself(layout: Any, name: str) -> Layout:
    """A layout of another package, under its name here.

    Raises:
        TypeError: It is not a layout.
    """
    if not isinstance(layout, Layout):
        raise TypeError("is no samtune.data.layouts.Layout")
    return replace(layout, name=name)


LAYOUTS: Members[Layout] = Members("layout", _layout_itself)
"""Layouts by name. ``auto`` uses the first that fits, so the general one comes last; it never uses
those of other packages, so that nothing is imported without a request."""


def find(config: DataConfig) -> SplitRecords:
    """The records of ``config.root``, by ``data.name`` or ``data.layout``, or by the folder's look.

    Raises:
        InputError: There is no root, the layout is unknown, or the layout refuses the files.
    """
    from samtune.data.named import DATASETS

    if not config.root:
        raise InputError(
            "data.root: no folder given; name that of images and masks, or set data.root=FOLDER"
        )
    root = as_path(config.root)
    if config.images is not None or config.mask_files is not None:
        from samtune.data.layouts.patterns import find_by_patterns

        return find_by_patterns(root, config)
    if config.layout == "auto" and config.name in DATASETS:
        return DATASETS[config.name].find(existing_folder(root), config)
    return layout_of(root, config.layout).find(root, config)


def layout_of(root: Path, name: str = "auto") -> Layout:
    """The layout of a name, or the one that a folder or file looks like.

    A folder of images beside one of mask pictures always has the plain layout.

    Raises:
        InputError: An unknown name.
    """
    if name == "auto":
        plain = is_plain(root)
        looks = (layout for layout in LAYOUTS.values() if not plain and layout.fits(root))
        return next(looks, LAYOUTS["folders"])
    check_layout(name)
    return LAYOUTS[name]


def check_layout(name: str) -> None:
    """Refuses a word that is not the name of a layout.

    Raises:
        InputError: The name is unknown; the message lists the known ones.
    """
    known = ["auto", *LAYOUTS.names()]
    if name != "auto" and name not in LAYOUTS:
        raise InputError(
            f"data.layout={name}: must be one of {', '.join(known)}{nearest(name, known)}"
        )


def defaults_of(settings: Settings) -> dict[str, Any]:
    """The settings that a published set, or otherwise the files at ``data.root``, imply.

    The result is empty if the folder or layout does not exist; :func:`find` reports that.

    Raises:
        DataError: The layout refuses the files.
    """
    from samtune.data.named import DATASETS

    if settings.get("name") in DATASETS:
        return dict(DATASETS[settings["name"]].defaults)
    root, name = settings.get("root"), settings.get("layout", "auto")
    if not isinstance(root, str) or (name != "auto" and name not in LAYOUTS):
        return {}
    if set(SUPPLIED) - {"colors"} <= set(settings):
        return {}
    path = as_path(root)
    if not path.exists() or settings.get("images") or settings.get("mask_files"):
        return {}
    try:
        known = dict(layout_of(path, name).defaults(path, settings))
        if isinstance(settings.get("colors"), str | Mapping):
            known |= colour_settings(settings)
        return known
    except InputError as error:
        raise of_files(error, root) from error


def with_defaults(config: DataConfig) -> DataConfig:
    """The settings completed by those that the files imply, as on the command line.

    Raises:
        InputError: See :func:`defaults_of`.
    """
    given = {f.name: getattr(config, f.name) for f in fields(config)}
    given = {f.name: given[f.name] for f in fields(config) if given[f.name] != f.default}
    known = defaults_of(given)
    return replace(config, **{key: value for key, value in known.items() if key not in given})


def by_folder(records: Iterable[Record], root: Path) -> SplitRecords:
    """Records by the split named by a folder above their image.

    If some images are in such folders, the others are in no split and are not used.
    """
    parts: SplitRecords = defaultdict(list)
    for record in records:
        parts[_split_of(record.file, root)].append(record)
    if len(parts) > 1:
        parts.pop(None, None)
    return dict(parts)


def splits_on_disk(records: Sequence[Record], root: Path) -> SplitRecords:
    """Records by the lists at the root, as ``train.txt``, otherwise by :func:`by_folder`.

    Raises:
        InputError: A list is empty, or a name in it does not exist or is in another list.
    """
    lists = split_lists(root)
    if not lists:
        return by_folder(records, root)
    return dict(by_lists(_listable(records, root), lists, lambda name: (root, "pair")).items())


def _listable(records: Sequence[Record], root: Path) -> dict[str, Record]:
    """Records by the names that a list may use: their path below the root, or their stem."""
    by_stem: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_stem[nfc(stem_of(record.file))].append(record)
    names = {stem: alike[0] for stem, alike in by_stem.items() if len(alike) == 1}
    names |= {record.name: record for record in records}
    for record in records:
        path = record.file.relative_to(root)
        names[nfc(path.with_name(stem_of(path)).as_posix())] = record
    return names


def check_kind(records: Iterable[Record], config: DataConfig) -> None:
    """Refuses to read mask files of single objects as class maps.

    Raises:
        InputError: There are such files; the message names the first.
    """
    first = next((r.mask for r in records if isinstance(r.mask, ObjectFiles)), None)
    if first is not None and config.masks == "classes":
        what = "is a mask of one object, whose class is unknown"
        remedy = "set data.masks=instance, or data.masks=binary for one foreground"
        raise DataError(first.path, "object files", what, remedy)


def _split_of(file: Path, root: Path) -> str | None:
    for name in file.relative_to(root).parts[:-1]:
        rest = role_of_folder(name)[1] or name
        if rest.lower() in SPLIT_NAMES:
            return SPLIT_NAMES[rest.lower()]
    return None


def unique_names(paths: Iterable[Path], root: Path) -> list[str]:
    """Unique names for records: the stems, or the paths below ``root`` if stems repeat."""
    paths = list(paths)
    stems = [stem_of(path) for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    return [
        "_".join((*(p.relative_to(root) if p.is_relative_to(root) else p).parts[:-1], stem))
        for p, stem in zip(paths, stems, strict=True)
    ]


def some(names: Iterable[object], most: int = 3) -> str:
    """The first few of many names, for messages."""
    listed = [str(name) for name in names]
    return ", ".join(listed[:most]) + (", ..." if len(listed) > most else "")
