"""Grids of points, and the crops of an image that are asked besides the whole.

Both are those of SAM's automatic mask generation (Kirillov et al. 2023, arXiv:2304.02643,
appendix B).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from samtune.errors import InputError
from samtune.inference.everything.run_lengths import Box

Points = NDArray[np.float64]
"""``(n, 2)`` xy as fractions of an image's width and height."""


def point_grid(side: int) -> Points:
    """A grid of ``side`` by ``side`` points, each in the middle of its cell, row by row."""
    places = (np.arange(side) + 0.5) / side
    return np.stack(np.meshgrid(places, places), -1).reshape(-1, 2)


def grids_of_layers(side: int, layers: int, downscale: int) -> list[Points]:
    """The grid of the whole image, and of each layer of crops, which have fewer points on a side.

    Args:
        side: Points on a side of the whole image's grid.
        layers: Number of layers of crops.
        downscale: The points on a side are divided by it from layer to layer.
    """
    return [point_grid(int(side / downscale**layer)) for layer in range(layers + 1)]


def check_grids(grids: Sequence[ArrayLike], layers: int) -> list[Points]:
    """Grids as a user gives them: one for the image, and one for each layer of crops.

    Raises:
        InputError: Another number of grids, another shape, or points outside 0 to 1.
    """
    if len(grids) != layers + 1:
        raise InputError(
            f"point_grids of {len(grids)}: must be {layers + 1}, one for the image and one for "
            "each of crop_n_layers"
        )
    arrays = [np.asarray(grid, np.float64) for grid in grids]
    for array in arrays:
        if array.ndim != 2 or array.shape[1] != 2 or not len(array):
            raise InputError(
                f"point_grids: one of the shape {array.shape}; each must be (n, 2), xy as "
                "fractions of the image"
            )
        if not bool(((array >= 0) & (array <= 1)).all()):
            raise InputError(
                f"point_grids: go from {array.min():g} to {array.max():g}; give fractions of the "
                "image's width and height, 0 to 1"
            )
    return arrays


def crop_boxes(size: tuple[int, int], layers: int, overlap: float) -> list[tuple[Box, int]]:
    """The whole image, and ``2**layer`` by ``2**layer`` overlapping crops of each layer.

    Args:
        size: ``(h, w)`` of the image.
        layers: Number of layers of crops.
        overlap: The overlap of the crops of the first layer, as a fraction of the image's shorter
            side; half of it in the next layer, and so on.

    Returns:
        The box of each, and its layer; 0 is the whole image.
    """
    h, w = size
    boxes: list[tuple[Box, int]] = [((0, 0, w, h), 0)]
    for layer in range(1, layers + 1):
        count = 2**layer
        shared = int(overlap * min(h, w) * (2 / count))
        wide, high = (math.ceil((shared * (count - 1) + side) / count) for side in (w, h))
        for column in range(count):
            for row in range(count):
                x, y = (wide - shared) * column, (high - shared) * row
                if x < w and y < h:  # of an image of a few pixels the last ones are empty
                    boxes.append(((x, y, min(x + wide, w), min(y + high, h)), layer))
    return boxes


def is_near_crop_edge(
    boxes: NDArray[np.int64], crop: Box, size: tuple[int, int], near: int = 20
) -> NDArray[np.bool_]:
    """``(N,)``: whether a side is near a side of the crop that is not one of the image.

    Args:
        boxes: ``(N, 4)`` xyxy in the image; here the last column and row are part of it.
        crop: The crop.
        size: ``(h, w)`` of the image.
        near: Pixels.
    """
    image = (0, 0, size[1], size[0])
    at_crop = np.abs(boxes - np.array(crop)) <= near
    at_image = np.abs(boxes - np.array(image)) <= near
    return (at_crop & ~at_image).any(1)
