"""Images and masks that lie beside each other, or in folders of cases."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from samtune.data.config import DataConfig
from samtune.data.layouts.base import Layout, Settings, SplitRecords
from samtune.data.object_files import ObjectFiles
from samtune.data.pairing import assign
from samtune.data.partners import records_of_files, refuse_alone
from samtune.data.problems import DataError, complain
from samtune.data.record import Record
from samtune.data.sources import sliced
from samtune.data.trees import Roles, role_of_folder, roles_of
from samtune.data.walking import SPLIT_NAMES, data_files_below, existing_folder


def _fits(root: Path) -> bool:
    if not root.is_dir():
        return False
    roles = _roles(root)
    return bool(roles.masks) and bool(assign(roles.images, roles.masks).masks)


def _find(root: Path, config: DataConfig) -> SplitRecords:
    base = existing_folder(root)
    roles = _roles(base)
    for one, other in roles.unclear[:1]:
        complain(_unclear(base, one, other, len(roles.unclear)))
    records, lacking, alone = records_of_files(roles.images, roles.masks)
    unclear = {path for both in roles.unclear for path in both}
    refuse_alone([path for path in lacking if path not in unclear], "mask", base)
    refuse_alone(alone, "image", base)
    if not records:
        what = "no image has a mask beside it"
        remedy = "name masks as NAME_mask, or say which files they are with data.masks=PATTERN"
        raise DataError(base, "no pairs", what, remedy)
    check_kind(records, config)
    return {
        split: sliced(part, config.slice_axis) for split, part in by_folder(records, base).items()
    }


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


def defaults(root: Path, given: Settings) -> Settings:
    """Instances, if each object has a mask file of its own."""
    roles = _roles(root)
    of_objects = bool(assign(roles.images, roles.masks).objects)
    return {"masks": "instance"} if of_objects and "masks" not in given else {}


def _roles(root: Path) -> Roles:
    return roles_of(data_files_below(root), root)


def _split_of(file: Path, root: Path) -> str | None:
    for name in file.relative_to(root).parts[:-1]:
        rest = role_of_folder(name)[1] or name
        if rest.lower() in SPLIT_NAMES:
            return SPLIT_NAMES[rest.lower()]
    return None


def _unclear(root: Path, one: Path, other: Path, count: int) -> DataError:
    endings = sorted({one.suffix, other.suffix})
    images, masks = (f"'**/*{ending}'" for ending in (endings[0], endings[-1]))
    return DataError(
        root,
        "mask not clear",
        f"{count} times two files have one name, as {one.name} and {other.name}, and nothing says "
        "which is the mask",
        f"say so, as in data.images={images} data.masks={masks}, or the other way round",
    )


LAYOUT = Layout(
    "beside",
    "images and masks beside each other (a.jpg, a_mask.png), also in folders of cases",
    _fits,
    _find,
    defaults,
)
