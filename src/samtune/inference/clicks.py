"""Iterative clicks: each next click is placed where the last answer is wrong.

The evaluation's click is in the middle of the largest wrong region; the training's is drawn from
the whole wrong area, as SAM was trained (Kirillov et al. 2023, arXiv:2304.02643, appendix A).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samtune.data.prompters import central
from samtune.prompts import ABSENT, NEGATIVE, POSITIVE


def central_clicks(masks: Tensor, targets: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """A click in the middle of each mask's largest error, a missed or an extra region.

    Args:
        masks: ``(N, h, w)`` bool, the last answers.
        targets: ``(N, h, w)`` bool.
        valid: ``(h, w)`` bool; errors elsewhere do not count.

    Returns:
        Pixels ``(N, 2)`` xy, and labels ``(N,)``: 1 where the object was missed, 0 on extra
        foreground, ``ABSENT`` if there is no error.
    """
    xy, labels = torch.zeros(len(masks), 2), torch.full((len(masks),), ABSENT)
    for row, (mask, target) in enumerate(zip(masks, targets, strict=True)):
        missed, wrong = (target & ~mask & valid).numpy(), (mask & ~target & valid).numpy()
        regions = [(*_largest(missed), POSITIVE), (*_largest(wrong), NEGATIVE)]
        area, region, corner, label = max(regions, key=lambda each: each[0])
        if area:
            xy[row] = torch.from_numpy(central(region, 1)[0] + corner)
            labels[row] = label
    return xy, labels


def random_clicks(masks: Tensor, targets: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """A click drawn uniformly from each mask's wrong pixels, with torch's random numbers.

    Args:
        masks: ``(N, h, w)`` bool, the last answers.
        targets: ``(N, h, w)`` bool.
        valid: ``(N, h, w)`` bool.

    Returns:
        Pixels and labels, see :func:`central_clicks`.
    """
    xy = torch.zeros(len(masks), 2, device=masks.device)
    labels = torch.full((len(masks),), ABSENT, device=masks.device)
    width = masks.shape[-1]
    for row, wrong in enumerate((masks ^ targets) & valid):  # one by one: floats need memory
        lots = torch.rand(wrong.numel(), device=wrong.device).masked_fill_(~wrong.flatten(), -1.0)
        lot, pixel = lots.max(0)
        xy[row, 0], xy[row, 1] = pixel % width, pixel // width
        # by a tensor of one index, as a single number would be read from the device
        label = torch.where(targets[row].flatten()[pixel[None]][0], POSITIVE, NEGATIVE)
        labels[row] = torch.where(lot < 0, ABSENT, label)
    return xy, labels


def _largest(region: NDArray[np.bool_]) -> tuple[int, NDArray[np.bool_], NDArray[np.int64]]:
    """Area, pixels and corner ``xy`` of the largest connected part (8 neighbours)."""
    import cv2

    _, parts, stats, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8), connectivity=8)
    if len(stats) == 1:
        return 0, region, np.zeros(2, np.int64)
    part = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    x, y, w, h, area = (int(value) for value in stats[part])
    return area, parts[y : y + h, x : x + w] == part, np.array([x, y], np.int64)
