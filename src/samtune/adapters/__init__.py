"""Adaptation methods, one per file; importing this package registers them all.

Facts about a base that several methods share belong to `sam`.
"""

from importlib import import_module
from pkgutil import iter_modules

from samtune.adapters.base import ADAPTERS, Adapter
from samtune.adapters.stack import Stack

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["ADAPTERS", "Adapter", "Stack"]
