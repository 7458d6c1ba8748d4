"""``input.resize=spline``: SAMed (Zhang and Liu 2023) resizes by ``scipy.ndimage.zoom``.

Slices are resized to the frame by cubic splines; labels and class maps are resized both ways by
taking the nearest pixel. The corner pixels of both sizes coincide. Prompts are scaled by the factor
of the sides, which differs by less than half a coarser pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samtune.errors import InputError, is_installed
from samtune.geometry import RESIZES, Geometry, Resize
from samtune.ops.resize import nearest_in_zoom

NOWHERE = -10.0
"""Logit of all masks at pixels that a zoom leaves empty: background, or the first class."""
_Array = TypeVar("_Array", bound=NDArray[Any])


@RESIZES.register("spline")
@dataclass(frozen=True)
class Spline(Resize):
    """SciPy's zoom: images by cubic splines, labels and masks by the nearest pixel."""

    does_itself = {"tiles": "whole", "first_size": None, "antialias": True, "direct_masks": False}  # noqa: RUF012

    @property
    def leaves_pixels_out(self) -> bool:
        """True, because for some sizes a zoom finds no pixel for the last row or column."""
        return True

    @classmethod
    def check_installed(cls) -> None:
        """Checks that scipy is installed.

        Raises:
            InputError: It is missing.
        """
        if not is_installed("scipy"):
            raise InputError("input.resize=spline: needs scipy; pip install 'samtune[metrics]'")

    def image(self, image: NDArray[np.uint8], geometry: Geometry) -> Tensor:
        """Resizes an image ``(h0, w0, 3)`` uint8 into the frame as float32, which may leave 0..255.

        Raises:
            InputError: scipy is missing.
        """
        floats = image.transpose(2, 0, 1).astype(np.float64)
        if image.shape[:2] != geometry.model:
            self.check_installed()
            from scipy.ndimage import zoom

            factors = [b / a for a, b in zip(image.shape[:2], geometry.model, strict=True)]
            floats = np.stack([zoom(channel, factors, order=3) for channel in floats])
        return torch.from_numpy(floats).float()

    def pick(self, labels: _Array, size: tuple[int, int]) -> _Array:
        """Takes the pixels of SciPy's zoom; a row or column that it leaves empty is 0."""
        rows, columns = (
            nearest_in_zoom(a, b).numpy() for a, b in zip(labels.shape, size, strict=True)
        )
        inside = (rows >= 0)[:, None] & (columns >= 0)
        return labels[rows][:, columns] * inside  # type: ignore[return-value]

    def unfit(self, logits: Tensor, geometry: Geometry) -> Tensor:
        """Takes the nearest pixels; where the zoom finds none all logits are :data:`NOWHERE`."""
        sides = zip(geometry.resized, geometry.original, strict=True)
        rows, columns = (nearest_in_zoom(a, b).to(logits.device) for a, b in sides)
        picked = logits[..., rows, :][..., columns]
        return picked.masked_fill((rows < 0)[:, None] | (columns < 0), NOWHERE)
