"""Ways in which data sets lie on disk; each finds the records of a folder, by split."""

from samtune.data.layouts import coco, folders, sa1b, table, voc, yolo
from samtune.data.layouts.base import LAYOUTS, Found, Layout, defaults_of, find, with_defaults

LAYOUTS.update({each.LAYOUT.name: each.LAYOUT for each in (sa1b, voc, yolo, coco, table, folders)})

__all__ = ["LAYOUTS", "Found", "Layout", "defaults_of", "find", "with_defaults"]
