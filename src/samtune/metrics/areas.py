"""Pixel counts of masks, and the scores that need nothing else."""

from __future__ import annotations

import torch
from torch import Tensor


def areas_of(predicted: Tensor, target: Tensor, valid: Tensor | None) -> Tensor:
    """Counts pixels of overlap, prediction and target: ``(N, 3)`` int64.

    For arguments and errors see :func:`samtune.metrics.masks.iou_dice`.
    """
    if predicted.dtype != torch.bool or target.dtype != torch.bool:
        raise ValueError(f"masks of {predicted.dtype} and {target.dtype}: threshold them to bool")
    if predicted.shape != target.shape or predicted.ndim != 3:
        shapes = f"{tuple(predicted.shape)} and {tuple(target.shape)}"
        raise ValueError(f"masks of shapes {shapes}: bring both to (N, h, w)")
    areas = torch.zeros(len(predicted), 3, dtype=torch.int64, device=predicted.device)
    for row, (mask, truth) in enumerate(zip(predicted, target, strict=True)):
        # one by one, because torch sums bool as int64, with eight bytes per pixel
        counted = valid if valid is None or valid.ndim == 2 else valid[row]
        sides = (mask, truth) if counted is None else (mask & counted, truth & counted)
        for column, each in enumerate((sides[0] & sides[1], *sides)):
            areas[row, column] = each.count_nonzero()
    return areas


def scores_of(areas: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and Dice ``(...)`` float64 from areas ``(..., 3)``; 1 if both masks are empty."""
    overlap, predicted, target = areas.double().unbind(-1)
    total = predicted + target
    iou, dice = overlap / (total - overlap), 2 * overlap / total
    return torch.where(total > 0, iou, 1.0), torch.where(total > 0, dice, 1.0)
