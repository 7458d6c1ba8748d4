"""Resizing of an image to the model's frame, with the method names of ``ResizeLongestSide``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samtune.data.transforms import fit_geometry
from samtune.geometry import Geometry, InputPolicy, resized_bytes


@dataclass(frozen=True)
class FrameTransform:
    """Brings images and coordinates of any size into the frame of a model, without padding."""

    policy: InputPolicy

    def _place(self, original_size: tuple[int, int]) -> Geometry:
        return fit_geometry(original_size, self.policy.size, self.policy.resize)

    def apply_image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """An image ``(h, w, 3)`` uint8 at its size in the frame."""
        return np.array(resized_bytes(image, self._place((image.shape[0], image.shape[1])).resized))

    def apply_coords_torch(self, coords: Tensor, original_size: tuple[int, int]) -> Tensor:
        """Points ``(..., 2)`` xy of an image of ``(h, w)``, in the frame."""
        return self._place(original_size).to_model(coords.to(torch.float32))

    def apply_boxes_torch(self, boxes: Tensor, original_size: tuple[int, int]) -> Tensor:
        """Boxes ``(N, 4)`` xyxy of an image of ``(h, w)``, in the frame."""
        return self.apply_coords_torch(boxes.reshape(-1, 2, 2), original_size).reshape(-1, 4)

    def apply_coords(
        self, coords: NDArray[np.floating], original_size: tuple[int, int]
    ) -> NDArray[np.float32]:
        """Does the same as :meth:`apply_coords_torch`, for an array."""
        return self.apply_coords_torch(torch.as_tensor(coords), original_size).numpy()

    def apply_boxes(
        self, boxes: NDArray[np.floating], original_size: tuple[int, int]
    ) -> NDArray[np.float32]:
        """Does the same as :meth:`apply_boxes_torch`, for an array."""
        return self.apply_boxes_torch(torch.as_tensor(boxes), original_size).numpy()
