"""The modules that version 0.1.0 documented, importable under their names of that version."""

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
"""The current modules that define the names of each former module."""


class MovedModules(MetaPathFinder, Loader):
    """Finds a moved module, and fills it with the definitions of its current modules."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Finds only the modules in :data:`HOMES`, for which there is no file."""
        return ModuleSpec(fullname, self) if fullname in HOMES else None

    def exec_module(self, module: ModuleType) -> None:
        """Fills the module with the public names of its current modules, and documents them."""
        homes = HOMES[module.__name__]
        module.__doc__ = f"Moved to {', '.join(homes)}."
        for home in homes:
            vars(module).update(_defined_in(import_module(home)))


def _defined_in(home: ModuleType) -> dict[str, Any]:
    """The classes, functions and constants that a module defines, without its imports."""
    return {
        name: value
        for name, value in vars(home).items()
        if not name.startswith("_")
        and not isinstance(value, ModuleType)
        and (
            f"{value.__module__}.".startswith(f"{home.__name__}.")
            if isinstance(value, type | FunctionType)
            else name.isupper()
        )
    }
