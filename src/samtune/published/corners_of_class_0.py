"""``data.corners=class_0``: Generalized SAM (Kato et al. 2024) rotates images and masks alike.

Its masks become black in the corners too, which is class 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from samtune.data.config import DataConfig
from samtune.data.corners import CORNERS, Corners
from samtune.data.labels import Labels


@CORNERS.register("class_0")
class CornersOfClass0(Corners):
    """The corners get class 0, which is the background if masks have one."""

    @staticmethod
    def label(labels: Labels, empty: NDArray[np.bool_], data: DataConfig) -> Labels:
        """The labels with the corners set to class 0 and not ignored."""
        valid = None if labels.valid is None else labels.valid | empty
        if data.masks != "classes" or data.background == 0:
            return Labels(np.where(empty, 0, labels.map), labels.classes, valid)
        classes = labels.classes
        if not (classes == 0).any():
            classes = np.append(classes, 0)
        first = int(np.flatnonzero(classes == 0)[0]) + 1
        moved = labels.map.astype(np.promote_types(labels.map.dtype, np.min_scalar_type(first)))
        moved[empty] = first
        return Labels(moved, classes, valid)
