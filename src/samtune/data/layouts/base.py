"""The contract of a layout, and the choice of one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from samtune.data.config import DataConfig
from samtune.data.sources import Record, existing_folder, find_layout
from samtune.errors import InputError, nearest

Found = dict[str | None, list[Record]]
"""Records by split, each list sorted by name; the key ``None`` if there are no splits."""


@dataclass(frozen=True)
class Layout:
    """One way in which images and masks lie on disk."""

    name: str
    about: str
    """One line: what lies where."""
    fits: Callable[[Path], bool]
    """Whether a folder or file looks like it; cheap, for ``data.layout=auto``."""
    find: Callable[[Path, DataConfig], Found]
    """The records.

    Raises:
        InputError: What is missing or wrong, with its file and remedy.
    """


def _folders(root: Path, config: DataConfig) -> Found:
    return find_layout(root)


LAYOUTS: dict[str, Layout] = {
    "folders": Layout(
        "folders",
        "images/ and masks/ paired by file stem, with or without split folders or lists",
        lambda root: root.is_dir(),
        _folders,
    ),
}
"""By name. ``auto`` takes the first that fits, so the general one comes last."""


def find(config: DataConfig) -> Found:
    """The records of ``config.root``: as ``data.name`` or ``data.layout`` says, or as it looks.

    Raises:
        InputError: No root, an unknown layout, or what the layout refuses.
    """
    from samtune.data.named import DATASETS

    if not config.root:
        raise InputError("data.root: no folder given; set data.root=FOLDER with images and masks")
    root = Path(config.root).expanduser()
    if config.layout == "auto" and config.name in DATASETS:
        return DATASETS[config.name].find(existing_folder(root), config)
    if config.layout == "auto":
        name = next((n for n, layout in LAYOUTS.items() if layout.fits(root)), "folders")
        return LAYOUTS[name].find(root, config)
    if config.layout not in LAYOUTS:
        known = ["auto", *LAYOUTS]
        raise InputError(
            f"data.layout={config.layout}: must be one of {', '.join(known)}"
            f"{nearest(config.layout, known)}"
        )
    return LAYOUTS[config.layout].find(root, config)
