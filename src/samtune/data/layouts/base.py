"""The contract of a layout, and the choice of one."""

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
"""Settings of ``data`` by name, only those that somebody made."""
SUPPLIED = ("masks", "classes", "class_names", "background", "ignore", "colors")
"""What a layout may know of itself."""


def nothing(root: Path, given: Settings) -> Settings:
    """The defaults of a layout that knows nothing of what its values mean."""
    return {}


@dataclass(frozen=True)
class Layout:
    """One way in which images and masks lie on disk."""

    name: str
    about: str
    """One line: what lies where."""
    fits: Callable[[Path], bool]
    """Whether a folder or file looks like it; cheap, for ``data.layout=auto``."""
    find: Callable[[Path, DataConfig], SplitRecords]
    """The records.

    Raises:
        InputError: What is missing or wrong, with its file and remedy.
    """
    defaults: Callable[[Path, Settings], Settings] = nothing
    """Some of :data:`SUPPLIED` as the files say them, given what is set already; they stand below
    that.

    Raises:
        InputError: As ``find``.
    """


def _layout_itself(layout: Any, name: str) -> Layout:
    """A layout that another package brings, under the name that it has here.

    Raises:
        TypeError: It is none.
    """
    if not isinstance(layout, Layout):
        raise TypeError("is no samtune.data.layouts.Layout")
    return replace(layout, name=name)


LAYOUTS: Members[Layout] = Members("layout", _layout_itself)
"""By name. ``auto`` takes the first that fits, so the general one comes last; of those that other
packages bring it takes none, so that nothing is imported unasked."""


def find(config: DataConfig) -> SplitRecords:
    """The records of ``config.root``: as ``data.name`` or ``data.layout`` says, or as it looks.

    Raises:
        InputError: No root, an unknown layout, or what the layout refuses.
    """
    from samtune.data.named import DATASETS

    if not config.root:
        raise InputError("data.root: no folder given; set data.root=FOLDER with images and masks")
    root = as_path(config.root)
    if config.images is not None or config.mask_files is not None:
        from samtune.data.layouts.patterns import find_by_patterns

        return find_by_patterns(root, config)
    if config.layout == "auto" and config.name in DATASETS:
        return DATASETS[config.name].find(existing_folder(root), config)
    return layout_of(root, config.layout).find(root, config)


def layout_of(root: Path, name: str = "auto") -> Layout:
    """The layout of that name, or the one that a folder or file looks like.

    A folder of images beside one of mask pictures is never taken for anything else.

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
    """Refuses a word that names no layout.

    Raises:
        InputError: With the names that there are.
    """
    known = ["auto", *LAYOUTS.names()]
    if name != "auto" and name not in LAYOUTS:
        raise InputError(
            f"data.layout={name}: must be one of {', '.join(known)}{nearest(name, known)}"
        )


def defaults_of(settings: Settings) -> dict[str, Any]:
    """What a published set, or else the files at ``data.root``, say of themselves.

    Empty where there is no such folder or layout: :func:`find` says so in its turn.

    Raises:
        DataError: What the layout refuses.
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
    """The settings with what the files say of themselves, as the command line completes them.

    Raises:
        InputError: As :func:`defaults_of`.
    """
    given = {f.name: getattr(config, f.name) for f in fields(config)}
    given = {f.name: given[f.name] for f in fields(config) if given[f.name] != f.default}
    known = defaults_of(given)
    return replace(config, **{key: value for key, value in known.items() if key not in given})


def by_folder(records: Iterable[Record], root: Path) -> SplitRecords:
    """Records by the split that a folder above their image is called like.

    If some are in such a folder, the others are in no split and are not used.
    """
    parts: SplitRecords = defaultdict(list)
    for record in records:
        parts[_split_of(record.file, root)].append(record)
    if len(parts) > 1:
        parts.pop(None, None)
    return dict(parts)


def splits_on_disk(records: Sequence[Record], root: Path) -> SplitRecords:
    """Records by the lists at the root, as ``train.txt``, or else as :func:`by_folder` has them.

    Raises:
        InputError: A list without a name, or with one that is not there or in another list.
    """
    lists = split_lists(root)
    if not lists:
        return by_folder(records, root)
    return dict(by_lists(_listable(records, root), lists, lambda name: (root, "pair")).items())


def _listable(records: Sequence[Record], root: Path) -> dict[str, Record]:
    """Records by what a list may call them: by their path below the root, or their stem."""
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
    """Refuses to read mask files of single objects as maps of classes.

    Raises:
        InputError: It names the first.
    """
    first = next((r.mask for r in records if isinstance(r.mask, ObjectFiles)), None)
    if first is not None and config.masks == "classes":
        what = "is a mask of one object, of which no class is known"
        remedy = "set data.masks=instance, or data.masks=binary for one foreground"
        raise DataError(first.path, "object files", what, remedy)


def _split_of(file: Path, root: Path) -> str | None:
    for name in file.relative_to(root).parts[:-1]:
        rest = role_of_folder(name)[1] or name
        if rest.lower() in SPLIT_NAMES:
            return SPLIT_NAMES[rest.lower()]
    return None


def unique_names(paths: Iterable[Path], root: Path) -> list[str]:
    """Names of files for records: the stems, or below ``root`` the whole paths if those repeat."""
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
