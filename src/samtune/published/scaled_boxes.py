"""``prompts.box_scale``: the boxes of Kyyle2114's Fine-tuning-Segment-Anything."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from samtune.data.config import PromptConfig
from samtune.data.prompters import BOX_RULES, BoxRule


@BOX_RULES.register("box_scale")
class ScaledBoxes(BoxRule):
    """Boxes of another size around the same centre, in whole pixels, also in evaluation."""

    @staticmethod
    def boxes(
        tight: NDArray[np.int64], size: tuple[int, ...], config: PromptConfig
    ) -> NDArray[np.int64]:
        """The boxes of :func:`scaled_boxes`."""
        return scaled_boxes(tight, size, config.box_scale or 1.0)


def scaled_boxes(
    boxes: NDArray[np.int64], size: tuple[int, ...], scale: float = 1.0
) -> NDArray[np.int64]:
    """Boxes of ``scale`` times the sides about the same centre, in whole pixels.

    It repeats ``make_box_prompt``, which drops fractions of a pixel. A box that leaves the image on
    the left or above is moved inside and keeps its size; a far side that reaches the image's edge
    ends on the last pixel instead, even at scale 1. Boxes of negative size, which objects without
    pixels have, become ``0 0 0 0``.

    Args:
        boxes: ``(N, 4)`` xyxy, far edges exclusive.
        size: ``(h, w)`` of the image.
        scale: Factor of both sides.
    """
    boxes = np.where((boxes[:, 2:] > boxes[:, :2]).all(1, keepdims=True), boxes, 0)
    corner, side = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    scaled = (side * scale).astype(np.int64)
    corner = np.maximum(corner - ((scaled - side) / 2).astype(np.int64), 0)
    edge = np.array([size[1], size[0]])
    scaled = np.where(corner + scaled >= edge, edge - corner - 1, scaled)
    return np.concatenate([corner, corner + scaled], axis=1)
