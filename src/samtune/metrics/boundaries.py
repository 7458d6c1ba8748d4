"""Agreement of contours: boundary IoU, 95th percentile Hausdorff distance, surface Dice."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samtune.errors import InputError, is_installed
from samtune.metrics.image_result import ImageResult
from samtune.metrics.streamed import Rows, Streamed

Mask = NDArray[np.bool_]
BOUNDARIES = ("boundary_iou", "hd95", "nsd")


class BoundaryMetrics(Streamed):
    """Means over prompts of boundary IoU, HD95 and normalised surface Dice.

    :mod:`samtune.metrics.contract` says what empty masks score.

    Args:
        metrics: The metrics to compute; surface distances take most of the time, and need scipy.
        ratio: Width of boundary IoU's bands as a fraction of the image's diagonal.
        tolerance: Tolerance of the surface Dice, in pixels.
        **kwargs: torchmetrics' own options.

    Raises:
        InputError: A surface distance needs scipy, which is missing.
    """

    sums: Tensor
    """``(4,)``: number of masks, and their summed values."""

    def __init__(
        self,
        metrics: Collection[str] = BOUNDARIES,
        ratio: float = 0.02,
        tolerance: float = 2.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.metrics, self.ratio, self.tolerance = frozenset(metrics), ratio, tolerance
        if self.metrics & {"hd95", "nsd"}:
            need_scipy("hd95 and nsd")
        self.add_sums(sums=(4,))

    def update(self, image: ImageResult) -> None:
        """Adds one image."""
        for part in image.parts():
            for predicted, target in zip(*(m.cpu().numpy() for m in part), strict=True):
                row = [1.0, 0.0, 0.0, 0.0]
                if "boundary_iou" in self.metrics:
                    row[1] = boundary_iou(predicted, target, self.ratio)
                if self.metrics & {"hd95", "nsd"}:
                    row[2:] = surface_scores(predicted, target, self.tolerance)
                self.sums += torch.tensor(row, dtype=torch.float64).to(self.sums.device)

    def values(self, sums: Mapping[str, Tensor], rows: Rows | None = None) -> dict[str, Tensor]:
        """The metrics from R sums at once, see :meth:`Streamed.values`."""
        count, *totals = sums["sums"].unbind(-1)
        return {
            name: total / count
            for name, total in zip(BOUNDARIES, totals, strict=True)
            if name in self.metrics
        }


def boundary_iou(predicted: Mask, target: Mask, ratio: float = 0.02) -> float:
    """IoU of the bands inside two contours (Cheng et al. 2021, arXiv:2103.16562).

    Args:
        predicted: ``(h, w)``.
        target: ``(h, w)``.
        ratio: Width of a band as a fraction of the image's diagonal; at least one pixel.

    Returns:
        A value in 0..1; 1 if both masks are empty.
    """
    width = max(1, round(ratio * math.hypot(*target.shape)))
    either = predicted | target
    if not either.any():
        return 1.0
    window = _window(either)
    bands = [_band(mask[window], width) for mask in (predicted, target)]
    union = np.count_nonzero(bands[0] | bands[1])
    return np.count_nonzero(bands[0] & bands[1]) / union


def surface_scores(predicted: Mask, target: Mask, tolerance: float = 2.0) -> tuple[float, float]:
    """HD95 in pixels and the normalised surface Dice of two masks.

    Args:
        predicted: ``(h, w)``.
        target: ``(h, w)``.
        tolerance: Pixels up to which surfaces agree.

    Returns:
        ``(0, 1)`` if both are empty, ``(diagonal, 0)`` if only one is.
    """
    if not (predicted.any() and target.any()):
        both = predicted.any() == target.any()
        return (0.0, 1.0) if both else (math.hypot(*target.shape), 0.0)
    there, back = surface_distances(predicted, target)
    hd95 = max(float(np.percentile(d, 95)) for d in (there, back))
    near = np.count_nonzero(there <= tolerance) + np.count_nonzero(back <= tolerance)
    return hd95, near / (there.size + back.size)


def surface_distances(predicted: Mask, target: Mask) -> tuple[NDArray[np.float64], ...]:
    """Distances from each surface pixel of either mask to the other's nearest: two 1-D arrays.

    Args:
        predicted: ``(h, w)``, not empty.
        target: ``(h, w)``, not empty.
    """
    from scipy.ndimage import binary_erosion, distance_transform_edt

    window = _window(predicted | target)
    masks = [np.pad(mask[window], 1) for mask in (predicted, target)]
    edges = [mask & ~binary_erosion(mask) for mask in masks]
    away = [distance_transform_edt(~edge) for edge in edges]
    return away[1][edges[0]], away[0][edges[1]]


def need_scipy(what: str) -> None:
    """Checks that scipy is installed.

    Args:
        what: The metrics that need it.

    Raises:
        InputError: It is missing.
    """
    if not is_installed("scipy"):
        raise InputError(f"eval.metrics={what}: need scipy; pip install 'samtune[metrics]'")


def _window(mask: Mask) -> tuple[slice, slice]:
    """The rows and columns that a non-empty mask occupies."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _band(mask: Mask, width: int) -> Mask:
    """The pixels of a mask within ``width`` steps (to 8 neighbours) of its outside."""
    import cv2

    padded = np.pad(mask, 1).astype(np.uint8)
    inner = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=width)[1:-1, 1:-1]
    return mask & (inner == 0)
