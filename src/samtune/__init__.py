"""samtune fine-tunes the Segment Anything Model with every published parameter-efficient method."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    """Of the installed package."""

    from samtune.checkpoint import load, save
    from samtune.engine import FitConfig, fit
    from samtune.errors import InputError
    from samtune.evaluation import evaluate
    from samtune.finetuned import FineTuned
    from samtune.predictor import Predictor
    from samtune.sam.weights import load_sam
    from samtune.types import Prompts

_HOMES = {
    "FineTuned": "finetuned",
    "FitConfig": "engine",
    "InputError": "errors",
    "Predictor": "predictor",
    "Prompts": "types",
    "evaluate": "evaluation",
    "fit": "engine",
    "load": "checkpoint",
    "load_sam": "sam.weights",
    "save": "checkpoint",
}

__all__ = [
    "FineTuned",
    "FitConfig",
    "InputError",
    "Predictor",
    "Prompts",
    "evaluate",
    "fit",
    "load",
    "load_sam",
    "save",
]


def __getattr__(name: str) -> Any:
    # Public names load on first use: `samtune --help` must not pay for torch.
    if name == "__version__":
        from importlib.metadata import version

        return version("samtune")
    if name not in _HOMES:
        raise AttributeError(f"module 'samtune' has no attribute {name!r}")
    return getattr(import_module(f"samtune.{_HOMES[name]}"), name)
