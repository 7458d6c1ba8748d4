"""The modules that version 0.1.0 documented, under the names that it had for them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

HOMES: dict[str, tuple[str, ...]] = {
    "samtune.display": ("samtune.report.terminal",),
    "samtune.metrics.seen": ("samtune.metrics.image_result",),
    "samtune.merging": ("samtune.model.merging",),
    "samtune.predictor": ("samtune.inference.predictor",),
    "samtune.types": ("samtune.geometry", "samtune.prompts", "samtune.batch"),
}
"""Where the names of each are now."""


class MovedModules(MetaPathFinder, Loader):
    """Finds a moved module, and fills it with what its homes define."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Only those of :data:`HOMES`, which no file has."""
        return ModuleSpec(fullname, self) if fullname in HOMES else None

    def exec_module(self, module: ModuleType) -> None:
        """Gives the module the public names of its homes."""
        for home in HOMES[module.__name__]:
            import_module(home)
            public = {k: v for k, v in vars(sys.modules[home]).items() if not k.startswith("_")}
            vars(module).update(public)
