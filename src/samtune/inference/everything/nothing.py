"""Advice for a search that found no object."""

from __future__ import annotations

from samtune.inference.everything.config import EverythingConfig, fitted_settings
from samtune.inference.everything.instances import InstanceGenerator
from samtune.inference.everything.watershed import WatershedConfig

AFTER_FIT = "set lower ones, or calibrate on images such as these"
BEFORE_FIT = (
    "fit them on annotated images (samtune calibrate CHECKPOINT --out FILE), or set lower ones"
)


def remedy_if_nothing(generator: InstanceGenerator) -> str:
    """A sentence about the thresholds that nothing passed, and what to do.

    Args:
        generator: The generator that found no object in any image.
    """
    config = getattr(generator, "config", None)
    if not isinstance(config, EverythingConfig | WatershedConfig):
        return "no object"  # of a function of the user's own
    model = generator.model
    fitted = bool(fitted_settings(model.about or {}, config.section))
    todo = AFTER_FIT if fitted else BEFORE_FIT
    cut = model.input.tiles == "whole"
    larger = "; for objects of a few pixels input.tiles=tiled input.scale=2" if cut else ""
    if isinstance(config, EverythingConfig):
        limits = f"pred_iou_thresh {config.pred_iou_thresh:g} and stability_score_thresh "
        limits += f"{config.stability_score_thresh:g}"
        example = "everything.pred_iou_thresh=0.5 everything.stability_score_thresh=0.5"
        sams = "" if fitted else " (SAM's own suit few tuned models)"
        return (
            f"no object: no mask passed {limits}{sams}; {todo}, as in {example}; more points find "
            f"smaller objects (everything.points_per_side={2 * config.points_per_side}){larger}"
        )
    limits = f"foreground {config.foreground:g}, min_area {config.min_area}"
    return (
        f"no object: no region passed watershed.{limits}; {todo}, as in watershed.foreground="
        f"{config.foreground / 2:g} watershed.min_area=0{larger}"
    )
