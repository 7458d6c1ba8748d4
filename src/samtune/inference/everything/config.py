"""The settings of masks of everything, with the names and defaults of SAM's official generator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from samtune.options import Count, CountOrZero, Fraction, NotNegative, Range, Settings, setting

HEADER = "everything"
"""The entry of a checkpoint's header that holds what was fitted for it."""
FITTED = "settings"
"""The values, in that entry."""


@dataclass(frozen=True)
class EverythingConfig(Settings):
    """The grid of points, the thresholds and the crops of masks of everything."""

    section = "everything"

    points_per_side: Count = setting(32, level="expert")
    """Points on a side of the grid that is asked; of a model that cuts images, of each tile."""
    points_per_batch: Count = setting(64, level="expert")
    """Points that are answered together; more for a GPU, and more memory."""
    pred_iou_thresh: Fraction = setting(0.88, level="expert")
    """Masks stay whose IoU the model expects to be above it; 0 for all."""
    stability_score_thresh: Fraction = setting(0.95, level="expert")
    """Masks stay whose stability is at least this; 0 for all. Stability is the IoU of the mask at a
    higher and at a lower threshold of the logits."""
    stability_score_offset: NotNegative = setting(1.0, level="expert")
    """How far these two thresholds are from the one between inside and outside."""
    box_nms_thresh: Fraction = setting(0.7, level="expert")
    """Two masks whose boxes have an IoU above it count as one; that of the higher score stays."""
    mask_nms_thresh: Fraction = setting(1.0, level="expert")
    """Likewise, by the IoU of the masks themselves; 1 compares none. It separates objects whose
    boxes overlap and whose masks do not."""
    crop_n_layers: CountOrZero = setting(0, level="expert")
    """Layers of crops that are asked besides the whole image: 4 crops, 16 more, 64 more, ..."""
    crop_nms_thresh: Fraction = setting(0.7, level="expert")
    """The same as box_nms_thresh, between crops; masks of the smaller crop stay."""
    crop_overlap_ratio: Annotated[float, Range(at_least=0, below=1)] = setting(
        512 / 1500, level="expert"
    )
    """Overlap of the crops of the first layer, as a fraction of the image's shorter side."""
    crop_n_points_downscale_factor: Count = setting(1, level="expert")
    """The points on a side are divided by it from layer to layer."""
    min_mask_region_area: CountOrZero = setting(0, level="expert")
    """Holes and islands of a mask with fewer pixels are filled and removed; 0 leaves them."""
    multimask_output: bool | None = setting(None, level="expert")
    """Three masks per point; by default three of a base and of a model that was trained for three,
    and one of others."""
    seam_iou_thresh: Fraction = setting(0.5, level="expert")
    """Masks of two tiles are one object if their IoU where the tiles overlap is at least this."""


def fitted_settings(about: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that were fitted for a model, see ``samtune calibrate``: ``{}`` if none were.

    Args:
        about: The entries of its header.
    """
    entry = about.get(HEADER)
    values = entry.get(FITTED) if isinstance(entry, Mapping) else None
    return dict(values) if isinstance(values, Mapping) else {}


def settings_for(about: Mapping[str, Any], changes: Mapping[str, Any]) -> EverythingConfig:
    """Settings as they were changed, else as they were fitted for a model, else the defaults.

    Args:
        about: The entries of the model's header.
        changes: By name.

    Raises:
        InputError: No such setting, or a value that is out of its range.
    """
    known = EverythingConfig(**changes)
    fitted = {k: v for k, v in fitted_settings(about).items() if k not in changes}
    return replace(known, **fitted) if fitted else known
