"""What the corners of a training image are that become empty when it is rotated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from samtune.registry import Registry

if TYPE_CHECKING:
    from samtune.data.config import DataConfig
    from samtune.data.labels import Labels


class Corners:
    """The labels of corners without a pixel of the image; they are black in the image."""

    @staticmethod
    def label(labels: Labels, empty: NDArray[np.bool_], data: DataConfig) -> Labels:
        """The labels with those of the corners.

        Args:
            labels: Of the rotated image, where corners are not valid.
            empty: ``(h, w)``, true in the corners.
            data: The settings.
        """
        raise NotImplementedError


CORNERS: Registry[Corners] = Registry("corners", "data.corners", "samtune.published")
"""The values of ``data.corners``."""


@CORNERS.register("ignore")
class IgnoredCorners(Corners):
    """They are left out of losses and metrics."""

    @staticmethod
    def label(labels: Labels, empty: NDArray[np.bool_], data: DataConfig) -> Labels:
        """The labels as they are."""
        return labels
