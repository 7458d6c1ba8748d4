"""Changes of training images: which settings can be combined, and where changes act."""

from __future__ import annotations

import re

from samtune.data.config import DataConfig
from samtune.data.draws import DRAWS
from samtune.data.intensity import reading
from samtune.errors import InputError
from samtune.options import as_yaml


def check_settings(data: DataConfig) -> None:
    """Checks the settings of the data against each other, above all those that change images.

    Raises:
        InputError: No such layout, a group that is no regular expression, a crop that is none,
            corners without a rotation, draws that do not know the changes or do not vary between
            views, an inversion of masks without a foreground, bands or a range that are none, or
            names for another number of classes.
    """
    reading(data)
    _check_group(data)
    if data.layout != "auto":
        from samtune.data.layouts.base import check_layout

        check_layout(data.layout)
    if data.class_names and data.classes not in (None, len(data.class_names)):
        raise InputError(
            f"data.class_names: {len(data.class_names)} names for {data.classes} classes; give one "
            "name per class"
        )
    crop = data.crop
    if crop is not None and not (0 < crop[0] <= crop[1] <= 1 or in_pixels(crop)):
        raise InputError(
            f"data.crop={list(crop)}: must be a range of areas such as [0.1,1], or a height and "
            "width in pixels such as [256,256]"
        )
    if data.corners != "ignore" and not data.rotate:
        raise InputError(
            f"data.corners={data.corners}: corners only become empty with data.rotate; set it, as "
            "in data.rotate=90"
        )
    DRAWS[as_yaml(data.redraw)].check(data)
    if data.views is not None and not anew(data):
        raise InputError(
            f"data.views={data.views}: data.redraw={as_yaml(data.redraw)} has one view of each "
            "image; leave one of the two out"
        )
    if data.invert and data.masks not in ("auto", "binary"):
        raise InputError(
            f"data.invert=true: data.masks={data.masks} has no foreground and background to "
            "exchange; leave it out, or set data.masks=binary"
        )


def _check_group(data: DataConfig) -> None:
    try:
        re.compile(data.group or "")
    except (re.error, RecursionError, OverflowError) as error:
        raise InputError(
            f"data.group={data.group}: is no regular expression ({error}); give one as in "
            "'patient_\\d+', or '^[^/]+' for the first folder"
        ) from None


def check_changes(data: DataConfig, tiles: str) -> None:
    """Checks the settings of the data, especially those that change training images.

    Args:
        data: The settings.
        tiles: How images are cut, ``input.tiles``.

    Raises:
        InputError: Such a change.
    """
    if tiles != "whole" and (data.crop or data.rotate):
        name = "crop" if data.crop else "rotate"
        raise InputError(
            f"data.{name}: input.tiles={tiles} already cuts the images; leave one of the two out"
        )


def images_vary(data: DataConfig, tiles: str) -> bool:
    """Whether a training image changes from epoch to epoch without end.

    Args:
        data: The settings.
        tiles: How images are cut, ``input.tiles``.
    """
    changes = changes_images(data) or tiles != "whole"
    return anew(data) and data.views is None and changes


def changes_images(data: DataConfig) -> bool:
    """Whether training images are augmented, cropped or rotated."""
    return data.augment != "none" or data.crop is not None or bool(data.rotate)


def anew(data: DataConfig) -> bool:
    """Whether ``data.redraw`` draws something else in every epoch."""
    return DRAWS[as_yaml(data.redraw)].varies


def check_own_size(data: DataConfig) -> None:
    """Checks that images keep their own size until they are fitted into the model's frame.

    Raises:
        InputError: They change in the frame, after their masks were resampled.
    """
    if acts_in_frame(data):
        name = f"rotate={data.rotate:g}" if data.rotate else f"crop={list(data.crop or ())}"
        raise InputError(
            f"data.{name}: changes images in the model's frame, so the loss cannot be computed at "
            "their own size; leave it out, or set train.loss_at=frame"
        )


def in_pixels(crop: tuple[float, float]) -> bool:
    """Whether a crop is a height and width in whole pixels, and not a range of areas."""
    return min(crop) > 1 and all(float(side).is_integer() for side in crop)


def acts_in_frame(data: DataConfig) -> bool:
    """Whether crops and rotations act in the model's frame instead of on the original image."""
    return bool(data.rotate) or (data.crop is not None and in_pixels(data.crop))


def training_frame(data: DataConfig, frame: tuple[int, int]) -> tuple[int, int]:
    """The frame of training: the crop's size if it has one, otherwise the model's."""
    if data.crop is None or not in_pixels(data.crop):
        return frame
    return int(data.crop[0]), int(data.crop[1])
