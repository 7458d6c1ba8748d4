"""Images and masks that lie beside each other, or in folders of cases."""

from __future__ import annotations

from pathlib import Path

from samtune.data.config import DataConfig
from samtune.data.layouts.base import Layout, Settings, SplitRecords, check_kind, splits_on_disk
from samtune.data.pairing import assign
from samtune.data.partners import records_of_files, refuse_alone
from samtune.data.problems import DataError, complain
from samtune.data.sources import sliced
from samtune.data.trees import Roles, roles_of
from samtune.data.walking import data_files_below, existing_folder


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
        remedy = "name masks as NAME_mask, or say which files they are with data.mask_files=PATTERN"
        raise DataError(base, "no pairs", what, remedy)
    check_kind(records, config)
    parts = splits_on_disk(records, base)
    return {split: sliced(part, config.slice_axis) for split, part in parts.items()}


def defaults(root: Path, given: Settings) -> Settings:
    """Instance masks, if each object has its own mask file."""
    roles = _roles(root)
    of_objects = bool(assign(roles.images, roles.masks).objects)
    return {"masks": "instance"} if of_objects and "masks" not in given else {}


def _roles(root: Path) -> Roles:
    return roles_of(data_files_below(root), root)


def _unclear(root: Path, one: Path, other: Path, count: int) -> DataError:
    endings = sorted({one.suffix, other.suffix})
    images, masks = (f"'**/*{ending}'" for ending in (endings[0], endings[-1]))
    return DataError(
        root,
        "mask not clear",
        f"{count} times two files have one name, as {one.name} and {other.name}, and nothing says "
        "which is the mask",
        f"say so, as in data.images={images} data.mask_files={masks}, or the other way round",
    )


LAYOUT = Layout(
    "beside",
    "images and masks beside each other (a.jpg, a_mask.png), also in folders of cases",
    _fits,
    _find,
    defaults,
)
