"""Masks of images that EXIF turns: in the orientation of the stored pixels, or upright."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from samtune.data.config import DataConfig
from samtune.data.problems import remark
from samtune.data.reading import orientation_of
from samtune.data.sources import Record
from samtune.data.stored import path_of
from samtune.data.tiffs import turned


def upright(
    record: Record, values: NDArray[np.integer], size: tuple[int, int], config: DataConfig
) -> NDArray[np.integer]:
    """Turns mask values ``(h, w)`` like the image if they have the orientation of stored pixels.

    That is the case if only the stored image has their size, or if ``data.turn_masks`` is set.

    Args:
        record: The files.
        values: The mask as stored.
        size: Height and width of the upright image.
        config: How masks are read.
    """
    fits = values.shape == size
    if fits and not config.turn_masks:
        return values
    orientation = orientation_of(record.image)
    if orientation == 1 or (record.mask and orientation_of(record.mask) != 1):
        return values
    whole = turned(values, orientation)
    if whole.shape != size or not (config.turn_masks or orientation > 4):
        return values
    if not config.turn_masks:
        remark(
            path_of(record.mask or record.image),
            "mask turned",
            "has the size of the image as stored, so it is turned as EXIF turns the image",
            "legal; export the masks upright to be sure",
        )
    return np.ascontiguousarray(whole)


def remark_turn(
    record: Record, values: NDArray[np.integer], size: tuple[int, int], data: DataConfig
) -> None:
    """Remarks an image that EXIF turns although its mask also fits the stored pixels."""
    orientation = orientation_of(record.image)
    if orientation == 1 or data.turn_masks or not values.any():
        return
    if orientation <= 4 or size[0] == size[1]:
        what = f"EXIF turns the image (orientation {orientation}), and its mask fits both ways"
        remedy = (
            "legal; look at an overlay, and set data.turn_masks=true if masks have the orientation "
            "of the stored pixels"
        )
        remark(record.file, "EXIF orientation", what, remedy)
