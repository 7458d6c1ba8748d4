"""The modules that version 0.1.0 documented, under the names that it had for them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import FunctionType, ModuleType
from typing import Any

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
        """Gives the module the public names that its homes define, and says where they are."""
        homes = HOMES[module.__name__]
        module.__doc__ = f"Moved to {', '.join(homes)}."
        for home in homes:
            vars(module).update(_defined_in(import_module(home)))


def _defined_in(home: ModuleType) -> dict[str, Any]:
    """The classes, functions and constants of a module, without what it imports."""
    return {
        name: value
        for name, value in vars(home).items()
        if not name.startswith("_")
        and not isinstance(value, ModuleType)
        and (
            value.__module__ == home.__name__
            if isinstance(value, type | FunctionType)
            else name.isupper()
        )
    }
