"""Images and masks in folders of their own, paired by file stem."""

from __future__ import annotations

from pathlib import Path

from samtune.data.config import DataConfig
from samtune.data.layouts.base import Layout, Settings, SplitRecords, check_kind
from samtune.data.object_files import ObjectFiles
from samtune.data.problems import complaints
from samtune.data.sources import find_layout, sliced


def _find(root: Path, config: DataConfig) -> SplitRecords:
    layout = find_layout(root)
    check_kind((record for records in layout.values() for record in records), config)
    return {split: sliced(r, config.slice_axis) for split, r in layout.items()}


def _defaults(root: Path, given: Settings) -> Settings:
    """Instances, if each object has a mask file of its own."""
    layout: SplitRecords = {}
    if "masks" not in given:
        with complaints():  # what is wrong is said when the records are needed
            layout = find_layout(root)
    masks = (record.mask for records in layout.values() for record in records)
    return {"masks": "instance"} if any(isinstance(m, ObjectFiles) for m in masks) else {}


LAYOUT = Layout(
    "folders",
    "images/ and masks/ paired by file stem, with or without split folders or lists",
    lambda root: root.is_dir(),
    _find,
    _defaults,
)
