"""samtune fine-tunes the Segment Anything Model with published parameter-efficient methods."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from samtune.moved import MovedModules

if TYPE_CHECKING:
    __version__: str
    """Version of the installed package."""

    from samtune.data.config import DataConfig, PromptConfig
    from samtune.data.from_python import data_from
    from samtune.data.opening import open_data
    from samtune.errors import InputError
    from samtune.evaluation.prepare import prepare
    from samtune.evaluation.streaming import evaluate
    from samtune.exports.writing import export
    from samtune.geometry import InputPolicy
    from samtune.inference.everything.config import EverythingConfig
    from samtune.inference.everything.generator import MaskGenerator
    from samtune.inference.everything.watershed import WatershedConfig, WatershedGenerator
    from samtune.inference.predictor import Predictor
    from samtune.metrics.config import EvalConfig
    from samtune.model.bundle import bundle
    from samtune.model.checkpoint import load, save
    from samtune.model.finetuned import FineTuned
    from samtune.prompts import Prompts
    from samtune.registry import trust
    from samtune.sam.weights import load_sam
    from samtune.training.engine import fit
    from samtune.training.schedule import FitConfig

_HOMES = {
    "DataConfig": "data.config",
    "EvalConfig": "metrics.config",
    "EverythingConfig": "inference.everything.config",
    "FineTuned": "model.finetuned",
    "FitConfig": "training.schedule",
    "InputError": "errors",
    "InputPolicy": "geometry",
    "MaskGenerator": "inference.everything.generator",
    "Predictor": "inference.predictor",
    "PromptConfig": "data.config",
    "Prompts": "prompts",
    "WatershedConfig": "inference.everything.watershed",
    "WatershedGenerator": "inference.everything.watershed",
    "bundle": "model.bundle",
    "data_from": "data.from_python",
    "evaluate": "evaluation.streaming",
    "export": "exports.writing",
    "fit": "training.engine",
    "load": "model.checkpoint",
    "load_sam": "sam.weights",
    "open_data": "data.opening",
    "prepare": "evaluation.prepare",
    "save": "model.checkpoint",
    "trust": "registry",
}

__all__ = [
    "DataConfig",
    "EvalConfig",
    "EverythingConfig",
    "FineTuned",
    "FitConfig",
    "InputError",
    "InputPolicy",
    "MaskGenerator",
    "Predictor",
    "PromptConfig",
    "Prompts",
    "WatershedConfig",
    "WatershedGenerator",
    "bundle",
    "data_from",
    "evaluate",
    "export",
    "fit",
    "load",
    "load_sam",
    "open_data",
    "prepare",
    "save",
    "trust",
]


def __getattr__(name: str) -> Any:
    # Public names load on first use: `samtune --help` must not pay for torch.
    if name == "__version__":
        from importlib.metadata import version

        return version("samtune")
    if name not in _HOMES:
        raise AttributeError(f"module 'samtune' has no attribute {name!r}")
    return getattr(import_module(f"samtune.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    # Not what this file itself imports: a notebook shows this list.
    return sorted([*__all__, "__version__", *(name for name in globals() if name[:2] == "__")])


sys.meta_path.append(MovedModules())
