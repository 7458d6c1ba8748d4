"""Images and masks in folders of their own, paired by file stem."""

from __future__ import annotations

from pathlib import Path

from samtune.data.config import DataConfig
from samtune.data.layouts.base import Layout, SplitRecords
from samtune.data.sources import find_layout, sliced


def _find(root: Path, config: DataConfig) -> SplitRecords:
    found = find_layout(root)
    return {split: sliced(r, config.slice_axis) for split, r in found.items()}


LAYOUT = Layout(
    "folders",
    "images/ and masks/ paired by file stem, with or without split folders or lists",
    lambda root: root.is_dir(),
    _find,
)
