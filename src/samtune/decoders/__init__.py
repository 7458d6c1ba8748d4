"""Decoders, one per file; importing this package registers them all.

Changes of the encoder belong to `adapters`.
"""

from importlib import import_module
from pkgutil import iter_modules

from samtune.decoders.base import DECODERS, Decoder, Features

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["DECODERS", "Decoder", "Features"]
