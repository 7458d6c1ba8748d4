"""Ways in which data sets lie on disk; each finds the records of a folder, by split."""

from samtune.data.layouts import coco, folders
from samtune.data.layouts.base import LAYOUTS, Found, Layout, defaults_of, find, with_defaults

LAYOUTS.update({module.LAYOUT.name: module.LAYOUT for module in (coco, folders)})

__all__ = ["LAYOUTS", "Found", "Layout", "defaults_of", "find", "with_defaults"]
