"""``data.augment=kyyle``: the changes of images in Kyyle2114's Fine-tuning-Segment-Anything."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from samtune.data.augmentations import AUGMENTATIONS, Augmentation, turn
from samtune.data.labels import Labels

DEGREES, SHIFT, ZOOM = 45.0, 0.0625, 0.1
"""Greatest rotation, greatest shift as a fraction of the side, and greatest change of scale."""


@AUGMENTATIONS.register("kyyle")
class OneOfFour(Augmentation):
    """Half of the images stay as they are; the others get one of four changes, equally likely.

    The changes: mirrored left to right; mirrored top to bottom; turned by quarters; shifted, scaled
    and rotated, with the image mirrored at its edges.
    """

    @staticmethod
    def change(image: NDArray[np.uint8], labels: Labels) -> tuple[NDArray[np.uint8], Labels]:
        """One of the four, or none."""
        choice, quarter = (torch.rand(2) * torch.tensor([8, 4])).int().tolist()
        if choice > 3:
            return image, labels
        if choice == 3:
            return _shifted_scaled_rotated(image, labels)
        turns, mirrored = [(0, 1), (2, 1), (quarter, 0)][choice]
        return turn(image, labels, turns, mirrored)


def _shifted_scaled_rotated(
    image: NDArray[np.uint8], labels: Labels
) -> tuple[NDArray[np.uint8], Labels]:
    import cv2

    turn, zoom, right, down = (2 * torch.rand(4) - 1).tolist()
    h, w = labels.map.shape
    centre = ((w - 1) / 2, (h - 1) / 2)
    matrix = cv2.getRotationMatrix2D(centre, turn * DEGREES, 1 + zoom * ZOOM)
    matrix[:, 2] += right * SHIFT * w, down * SHIFT * h

    def warped(array: NDArray[Any], how: int) -> NDArray[Any]:
        return cv2.warpAffine(array, matrix, (w, h), flags=how, borderMode=cv2.BORDER_REFLECT_101)

    moved = warped(labels.map.astype(np.float32), cv2.INTER_NEAREST).astype(labels.map.dtype)
    valid = labels.valid
    if valid is not None:
        valid = warped(valid.astype(np.uint8), cv2.INTER_NEAREST) > 0
    return warped(image, cv2.INTER_LINEAR), Labels(moved, labels.classes, valid)
