"""Checkpoints of other systems, one format per file; importing this package registers them all.

samtune's own checkpoints belong to `model`.
"""

from importlib import import_module
from pkgutil import iter_modules

from samtune.foreign.base import DIALECTS, Dialect
from samtune.foreign.convert import Imported, ImportRefused, import_checkpoint

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["DIALECTS", "Dialect", "ImportRefused", "Imported", "import_checkpoint"]
