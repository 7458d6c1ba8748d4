"""Maps the original to the model's frame, and draws random views of images with their masks."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt
from typing import Any, TypeVar

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from samtune.data.changes import acts_in_frame, in_pixels
from samtune.data.config import DataConfig
from samtune.data.corners import CORNERS
from samtune.data.draws import Draws
from samtune.data.labels import Labels, cut_apart
from samtune.geometry import RESIZES, Geometry, InputPolicy
from samtune.ops.tiling import Window

_Array = TypeVar("_Array", bound=NDArray[Any])


def fit_geometry(
    original: tuple[int, int], size: tuple[int, int], resize: str = "longest"
) -> Geometry:
    """The geometry of an image of ``original`` (height, width) in a frame of ``size``.

    Args:
        original: The image's height and width.
        size: The frame's.
        resize: The way of resizing, a value of ``input.resize``.

    Raises:
        InputError: The way of resizing is unknown.
    """
    return RESIZES[resize]().place(original, size)


def fit_image(
    image: NDArray[np.uint8], size: tuple[int, int], resize: str = "longest"
) -> tuple[Tensor, Geometry]:
    """Resizes an image ``(h, w, 3)`` uint8 RGB into the model's frame.

    The default is Pillow's antialiased bilinear resize, as in ``SamPredictor``; an image that
    already fits keeps its bytes.

    Returns:
        Pixels ``(3, H, W)``, zero where padded right and below, uint8 (float32 with ``spline``),
        and the geometry.

    Raises:
        InputError: The way of resizing is unknown, or a package that it needs is missing.
    """
    return fit(image, InputPolicy(size, resize))


def fit(
    image: NDArray[np.uint8], policy: InputPolicy, pixels: Tensor | None = None
) -> tuple[Tensor, Geometry]:
    """Resizes an image into the model's frame by its input policy, see :func:`fit_image`.

    Pixels are also float32 if the policy turns off antialiasing or feeds bytes unchanged.

    Args:
        image: ``(h, w, 3)`` uint8 RGB.
        policy: How it enters the frame.
        pixels: The pixels of an earlier call, if there was one: they are copied, and of the image
            only the size matters.
    """
    way = policy.way()
    geometry = way.place((image.shape[0], image.shape[1]), policy.size)
    if pixels is not None:
        return pixels.clone(), geometry
    if policy.channels == "bgr":
        image = np.ascontiguousarray(image[..., ::-1])
    return way.image(image, geometry), geometry


def fit_mask(mask: _Array, geometry: Geometry) -> _Array:
    """Resizes a map ``(h, w)`` of labels or bools into the model's frame: nearest pixel, 0 outside.

    A valid map of ones therefore becomes false in the padding.
    """
    return geometry.resize.labels(mask, geometry)


def cropped_rotated(
    image: NDArray[np.uint8],
    labels: Labels,
    data: DataConfig,
    policy: InputPolicy,
    draws: Draws,
) -> tuple[NDArray[np.uint8], Labels]:
    """A random crop of an image with its labels, rotated: ``data.crop`` and ``data.rotate``.

    If either acts in the model's frame, the result is in that frame, without padding.
    """
    if acts_in_frame(data):
        image, labels = _in_frame(image, labels, policy)
    if data.crop is not None:
        image, labels = part(image, labels, _crop_window(data.crop, labels.map.shape, draws))
    if data.crop is not None or draws.cuts_apart:
        labels = cut_apart(labels, data)
    if data.rotate:
        image, labels, empty = _rotated(image, labels, draws.angle(data.rotate))
        labels = CORNERS[data.corners].label(labels, empty, data)
    return image, labels


def _in_frame(
    image: NDArray[np.uint8], labels: Labels, policy: InputPolicy
) -> tuple[NDArray[np.uint8], Labels]:
    # The result is fitted again later, which handles channels and raw bytes.
    pixels, geometry = fit(image, replace(policy, channels="rgb", native_raw=False))
    h, w = geometry.resized
    bytes_ = pixels[:, :h, :w].round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    maps = [m if m is None else fit_mask(m, geometry)[:h, :w] for m in (labels.map, labels.valid)]
    return bytes_, Labels(maps[0], labels.classes, maps[1])  # type: ignore[arg-type]


def _crop_window(crop: tuple[float, float], size: tuple[int, ...], draws: Draws) -> Window:
    if in_pixels(crop):
        sides = [min(int(side), whole) for side, whole in zip(crop, size, strict=True)]
    else:
        side = sqrt(draws.crop_area(*crop))
        sides = [max(1, round(side * whole)) for whole in size]
    y, x = draws.crop_corner([whole - side for side, whole in zip(sides, size, strict=True)])
    return y, x, y + sides[0], x + sides[1]


def part(
    image: NDArray[np.uint8], labels: Labels, window: Window
) -> tuple[NDArray[np.uint8], Labels]:
    """The region of an image and its labels in a window ``(y0, x0, y1, x1)`` of whole pixels."""
    y0, x0, y1, x1 = window
    cut = (slice(y0, y1), slice(x0, x1))
    valid = None if labels.valid is None else labels.valid[cut]
    return np.ascontiguousarray(image[cut]), Labels(
        np.ascontiguousarray(labels.map[cut]), labels.classes, valid
    )


def _rotated(
    image: NDArray[np.uint8], labels: Labels, degrees: float
) -> tuple[NDArray[np.uint8], Labels, NDArray[np.bool_]]:
    # Pillow's default: the nearest pixel, zero outside; for the image too, as published
    def turned(array: NDArray[Any]) -> NDArray[Any]:
        return np.array(Image.fromarray(array).rotate(degrees))

    inside = turned(np.ones(labels.map.shape, np.uint8)) > 0
    moved = turned(labels.map.astype(np.int32)).astype(labels.map.dtype)
    valid = inside if labels.valid is None else turned(labels.valid.astype(np.uint8)) > 0
    return turned(image), Labels(moved, labels.classes, valid), ~inside


def area_average(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """``(N, 1, h, w)`` averaged over the cells of a coarser grid of ``size``."""
    return F.adaptive_avg_pool2d(mask.float(), size)
