"""Small holes and islands of masks, filled and removed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from samtune.inference.everything.instances import Instances
from samtune.inference.everything.run_lengths import packed, unpacked

Mask = NDArray[np.bool_]


def without_small_regions(instances: Instances, least: int) -> tuple[Instances, NDArray[np.bool_]]:
    """Instances without holes and islands of fewer than ``least`` pixels.

    Pixels that touch in a corner are connected. The largest island stays, however small.

    Args:
        instances: The instances of one image.
        least: In pixels.

    Returns:
        The instances, and ``(N,)``: which of them are as they were.
    """
    (h, w), counts = instances.size, list(instances.counts)
    for i in range(len(instances)):
        x0, y0, x1, y1 = instances.box(i)
        # what reaches the margin goes on outside for so many pixels, so it is no small hole
        window = max(x0 - least, 0), max(y0 - least, 0), min(x1 + least, w), min(y1 + least, h)
        mask = unpacked(counts[i], instances.size, window)
        mended = _without_islands(~_without_small(~mask, least), least)
        if not np.array_equal(mended, mask):
            counts[i] = packed(mended, window[:2], instances.size)
    same = np.array([a == b for a, b in zip(counts, instances.counts, strict=True)], bool)
    columns = ("classes", "points", "stability", "windows")
    others = {name: getattr(instances, name) for name in columns}
    return Instances.of_counts(counts, instances.size, instances.scores, **others), same


def _without_small(mask: Mask, least: int) -> Mask:
    """A mask ``(h, w)`` without its regions of fewer pixels."""
    import cv2

    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    stays = stats[:, cv2.CC_STAT_AREA] >= least
    stays[0] = False  # what is not in the mask
    return stays[labels]


def _without_islands(mask: Mask, least: int) -> Mask:
    import cv2

    stays = _without_small(mask, least)
    if stays.any() or not mask.any():
        return stays
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
