"""``input.first_size``: Generalized SAM (Kato et al. 2024) stretches images of Trans10k twice."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from samtune.geometry import (
    INPUT_RULES,
    Geometry,
    InputRule,
    nearest_pixels,
    resized_bytes,
)

_Array = TypeVar("_Array", bound=NDArray[Any])


@INPUT_RULES.register("first_size")
class SizeBeforeTheFrame(InputRule):
    """Images and labels are stretched to another size before any other step."""

    def _size(self, original: tuple[int, int]) -> tuple[int, int]:
        return self.policy.first_size or original

    def content(self, original: tuple[int, int], frame: tuple[int, int]) -> tuple[int, int]:
        """The size within the frame of an image that was stretched."""
        return super().content(self._size(original), frame)

    def image(self, image: NDArray[np.uint8], geometry: Geometry) -> Tensor:
        """Stretches an image ``(h0, w0, 3)`` uint8, then brings it into the frame."""
        stretched = resized_bytes(image, self._size(geometry.original))
        return super().image(stretched, geometry)

    def labels(self, labels: _Array, geometry: Geometry) -> _Array:
        """Stretches a map ``(h0, w0)``, then brings it into the frame."""
        stretched = nearest_pixels(labels, self._size(geometry.original))
        return super().labels(stretched, geometry)
