"""Names for exchangeable parts: one decorator feeds config, help, docs and tests.

Parts of other packages are available under their names too (:mod:`samtune.registry.outside`).
"""

from samtune.registry.names import Members, Registry, checked_options, no_such_name, settings
from samtune.registry.outside import Outside
from samtune.registry.places import KINDS, Plugin, installed, named_in, trust

__all__ = [
    "KINDS",
    "Members",
    "Outside",
    "Plugin",
    "Registry",
    "checked_options",
    "installed",
    "named_in",
    "no_such_name",
    "settings",
    "trust",
]
