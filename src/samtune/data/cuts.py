"""Training on views of images, cut as in inference: tiles and crops."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from samtune.data.draws import Draws
from samtune.data.labels import Labels, extents
from samtune.data.transforms import part
from samtune.geometry import InputPolicy
from samtune.ops.tiling import Window, around, extent, least_crop
from samtune.prompts import NONE


def drawn_view(
    image: NDArray[np.uint8],
    labels: Labels,
    policy: InputPolicy,
    draws: Draws,
    modes: Container[str],
) -> tuple[NDArray[np.uint8], Labels]:
    """One random view of an image, with its region of the labels.

    ``tiled``: a tile at a random position that contains a random pixel of a random object, because
        inference only prompts such tiles; without prompts it uses every tile, so half of the tiles
        lie anywhere. ``crop``: the window around a random object's box, only with this object,
        slightly moved and scaled. ``whole``, and ``crop`` without prompts: the image as it is.
    """
    free = NONE in modes
    if policy.tiles == "whole" or (policy.tiles == "crop" and free):
        return image, labels
    size, ids = (image.shape[0], image.shape[1]), np.unique(labels.map)
    ids = ids[ids > 0]
    if policy.tiles == "crop":
        if not len(ids):
            return image, labels
        chosen = draws.one_of(ids)
        window = _crop(extents(labels.map, len(labels))[chosen - 1], policy, size, draws)
        alone = np.where(labels.map == chosen, labels.map, 0).astype(labels.map.dtype)
        return part(image, replace(labels, map=alone), window)
    h, w = extent(policy.size, policy.scale, size)
    low, high = (0, 0), (size[0] - h, size[1] - w)
    if len(ids) and not (free and draws.lies_anywhere()):
        pixels = np.flatnonzero(labels.map == draws.one_of(ids))
        at = divmod(draws.one_of(pixels), size[1])
        low = (max(0, at[0] - h + 1), max(0, at[1] - w + 1))
        high = (min(high[0], at[0]), min(high[1], at[1]))
    y, x = draws.tile_corner(low, high)
    return part(image, labels, (y, x, y + h, x + w))


def _crop(
    box: NDArray[np.int64], policy: InputPolicy, size: tuple[int, int], draws: Draws
) -> Window:
    x0, y0, x1, y1 = (float(edge) for edge in box)
    side = max(x1 - x0, y1 - y0) * policy.margin / 4
    moved = np.array([x0, y0, x1, y1]) + np.tile(draws.shift(side), 2)
    least = least_crop(extent(policy.size, policy.scale, size))
    return around(moved.tolist(), policy.margin * draws.margin(0.75, 1.25), least, size)
