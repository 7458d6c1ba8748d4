"""Images and masks in separate folders, paired by file stem."""

from __future__ import annotations

from pathlib import Path

from samtune.data.colours import colour_settings, file_beside
from samtune.data.config import DataConfig
from samtune.data.layouts.base import Layout, Settings, SplitRecords, check_kind
from samtune.data.object_files import ObjectFiles
from samtune.data.problems import complaints
from samtune.data.sources import find_layout, sliced


def _find(root: Path, config: DataConfig) -> SplitRecords:
    layout = find_layout(root)
    check_kind((record for records in layout.values() for record in records), config)
    return {split: sliced(r, config.slice_axis) for split, r in layout.items()}


def _defaults(root: Path, settings: Settings) -> Settings:
    """Instance masks, if each object has its own mask file; classes from a file of colours."""
    layout: SplitRecords = {}
    if settings.get("masks", "auto") in ("auto", "classes"):
        with complaints():  # errors are reported when the records are needed
            layout = find_layout(root)
    masks = [record.mask for records in layout.values() for record in records]
    if "masks" not in settings and any(isinstance(mask, ObjectFiles) for mask in masks):
        return {"masks": "instance"}
    beside = file_beside(root, (mask for mask in masks if isinstance(mask, Path)))
    known = {"colors": str(beside)}
    return {**known, **colour_settings(known)} if beside and "colors" not in settings else {}


LAYOUT = Layout(
    "folders",
    "images/ and masks/ paired by file stem, with or without split folders or lists",
    lambda root: root.is_dir(),
    _find,
    _defaults,
)
