"""The labels of the corners that become empty when a training image is rotated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from samtune.registry import Registry

if TYPE_CHECKING:
    from samtune.data.config import DataConfig
    from samtune.data.labels import Labels


class Corners:
    """The labels of the empty corners; in the image they are black."""

    @staticmethod
    def label(labels: Labels, empty: NDArray[np.bool_], data: DataConfig) -> Labels:
        """The labels, with those of the corners set.

        Args:
            labels: The labels of the rotated image, in which corners are ignored.
            empty: ``(h, w)``, true in the corners.
            data: The settings.
        """
        raise NotImplementedError


CORNERS: Registry[Corners] = Registry("corners", "data.corners", "samtune.published")
"""The values of ``data.corners``."""


@CORNERS.register("ignore")
class IgnoredCorners(Corners):
    """The corners are left out of losses and metrics."""

    @staticmethod
    def label(labels: Labels, empty: NDArray[np.bool_], data: DataConfig) -> Labels:
        """Returns the labels unchanged."""
        return labels
