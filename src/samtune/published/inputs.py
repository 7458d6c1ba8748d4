"""``input.preset``: how images enter the models of published systems, shared by their recipes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from samtune.geometry import PRESETS, Preset


@PRESETS.register("cat_sam")
class CatSam(Preset):
    """CAT-SAM's frame of 1024, stretched without antialiasing, prompts on whole pixels."""

    settings: ClassVar[Mapping[str, Any]] = {
        "size": 1024,
        "resize": "stretch",
        "antialias": False,
        "round_prompts": True,
        "direct_masks": True,
    }


@PRESETS.register("gsam")
class GeneralizedSam(Preset):
    """Generalized SAM's stretched images, normalised by the constants of its code."""

    settings: ClassVar[Mapping[str, Any]] = {
        "resize": "stretch",
        "mean": [118.83, 120.105, 96.9],
        "std": [49.725, 49.47, 48.96],
    }


@PRESETS.register("samed")
class Samed(Preset):
    """SAMed's slices of 512, resized by splines; pixels are divided by 255."""

    settings: ClassVar[Mapping[str, Any]] = {
        "size": 512,
        "resize": "spline",
        "mean": [0.0, 0.0, 0.0],
        "std": [255.0, 255.0, 255.0],
    }


@PRESETS.register("sam_adapter")
class SamAdapter(Preset):
    """SAM-Adapter's frame of 1024, to which images are stretched."""

    settings: ClassVar[Mapping[str, Any]] = {"size": 1024, "resize": "stretch"}


@PRESETS.register("ts_sam")
class TsSam(Preset):
    """TS-SAM's frame of 1024, to which images are stretched."""

    settings: ClassVar[Mapping[str, Any]] = {"size": 1024, "resize": "stretch"}
