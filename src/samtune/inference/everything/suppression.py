"""Suppression of what shows the same object twice, by boxes or by masks.

Boxes are compared on their device, block by block, so that tens of thousands need little memory.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samtune.inference.everything.instances import Instances
from samtune.inference.everything.run_lengths import as_coco

BLOCK = 1024
"""Boxes that are compared with all others at once."""


def suppressed_boxes(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """The indices of the boxes that stay, by falling score (non-maximum suppression).

    A box goes if its IoU with a better one that stays is above the threshold. Of equal scores the
    first is the better one. An empty box has no IoU, and stays.

    Args:
        boxes: ``(N, 4)`` xyxy.
        scores: ``(N,)``.
        threshold: IoU above it is too much.
    """
    order = scores.sort(stable=True, descending=True).indices
    boxes = boxes[order].float()
    stays = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    for begin in range(0, len(boxes), BLOCK):
        block = boxes[begin : begin + BLOCK]
        better = boxes[:begin][stays[:begin]]
        free = ~(ious(better, block) > threshold).any(0)
        stays[begin : begin + len(block)] = _best(ious(block, block) > threshold, free)
    return order[stays]


def _best(alike: Tensor, free: Tensor) -> Tensor:
    """``(n,)``: which of ``n`` stay, of those that are free and in order.

    Each round settles at least one more, so that it ends where going through them one by one would.

    Args:
        alike: ``(n, n)`` bool: which show the same.
        free: ``(n,)`` bool.
    """
    ahead = (alike & free[:, None]).triu(1)
    stays = free
    while True:
        again = free & ~(ahead & stays[:, None]).any(0)
        if bool((again == stays).all()):
            return stays
        stays = again


def ious(first: Tensor, second: Tensor) -> Tensor:
    """IoU of boxes ``(n, 4)`` and ``(m, 4)`` xyxy: ``(n, m)``; NaN of two empty ones."""
    low = torch.maximum(first[:, None, :2], second[None, :, :2])
    high = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    overlap = (high - low).clamp(min=0).prod(2)
    area, other = ((boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (first, second))
    return overlap / (area[:, None] + other[None] - overlap)


def suppressed_masks(instances: Instances, threshold: float) -> NDArray[np.int64]:
    """The indices of the instances that stay if their masks are compared, by falling score.

    Args:
        instances: The instances of one image.
        threshold: IoU of two masks above it is too much.
    """
    from pycocotools import mask as coco

    order = np.argsort(-instances.scores, kind="stable")
    masks = [as_coco(each, instances.size) for each in instances.counts]
    boxes = instances.boxes
    stays: list[int] = []
    for i in order.tolist():
        rows = np.array(stays, np.int64)
        low = np.maximum(boxes[i, :2], boxes[rows, :2])
        high = np.minimum(boxes[i, 2:], boxes[rows, 2:])
        near = [masks[k] for k in rows[(high > low).all(1)]]
        if not near or coco.iou([masks[i]], near, [0] * len(near)).max() <= threshold:
            stays.append(i)
    return np.array(stays, np.int64)
