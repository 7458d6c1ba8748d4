"""The settings of ``samtune everything``, named and set as those of SAM's official generator."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, TypeVar

from samtune.options import Count, CountOrZero, Fraction, NotNegative, Range, Settings, setting

HEADER = "everything"
"""The entry of a checkpoint's header that holds what was fitted for a grid of points."""
FITTED = "settings"
"""The values, in that entry."""
OF_BASE = "zero_shot"
"""The fit of the base on the same images, in that entry."""


@dataclass(frozen=True)
class EverythingConfig(Settings):
    """How ``samtune everything`` finds objects: grid of points, thresholds and crops."""

    section = "everything"

    points_per_side: Count = setting(32, level="expert")
    """Points per side of the grid of point prompts, on the image or, if images are cut, on each
    tile."""
    points_per_batch: Count = setting(64, level="expert")
    """Points that are answered together; larger values use a GPU better and need more memory."""
    pred_iou_thresh: Fraction = setting(0.88, level="expert")
    """Masks stay if the model's own estimate of their IoU is above it; 0 keeps all."""
    stability_score_thresh: Fraction = setting(0.95, level="expert")
    """Masks stay if their stability is at least this; 0 keeps all. Stability is the IoU of the mask
    at a higher and at a lower threshold of the logits."""
    stability_score_offset: NotNegative = setting(1.0, level="expert")
    """Distance of these two thresholds from the one between inside and outside, in logits."""
    box_nms_thresh: Fraction = setting(0.7, level="expert")
    """IoU of the boxes of two masks above which only the mask with the higher score stays."""
    mask_nms_thresh: Fraction = setting(1.0, level="expert")
    """The same by the IoU of the masks themselves; 1 turns it off. It separates objects whose boxes
    overlap and whose masks do not."""
    crop_n_layers: CountOrZero = setting(0, level="expert")
    """Layers of crops that are searched besides the whole image: 4 crops, 16 more, 64 more, ..."""
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
    """Three masks per point instead of one. By default three for a plain base and for a model that
    was trained with train.multimask, else one."""
    seam_iou_thresh: Fraction = setting(0.5, level="expert")
    """Masks of two tiles are one object if their IoU where the tiles overlap is at least this."""


Config = TypeVar("Config", bound=Settings)


def fitted_settings(about: Mapping[str, Any], section: str = HEADER) -> dict[str, Any]:
    """The settings that were fitted for a model, see ``samtune calibrate``: ``{}`` if none were.

    Args:
        about: The entries of its header.
        section: The section of the settings, which is the name of their entry.
    """
    entry = about.get(section)
    values = entry.get(FITTED) if isinstance(entry, Mapping) else None
    return dict(values) if isinstance(values, Mapping) else {}


def with_fitted(
    usual: Config, about: Mapping[str, Any], chosen_names: Collection[str] = ()
) -> Config:
    """Settings with the values that were fitted for a model, but for those that somebody chose.

    Args:
        usual: The settings without a fit, in which chosen ones have their values.
        about: The entries of the model's header.
        chosen_names: Names of the settings that somebody chose.

    Raises:
        InputError: A value that is out of its range.
    """
    fitted = {
        k: v for k, v in fitted_settings(about, usual.section).items() if k not in chosen_names
    }
    return replace(usual, **fitted) if fitted else usual  # type: ignore[type-var]
