"""Ways in which data sets lie on disk; each finds the records of a folder, by split."""

from samtune.data.layouts.base import LAYOUTS, Found, Layout, find

__all__ = ["LAYOUTS", "Found", "Layout", "find"]
