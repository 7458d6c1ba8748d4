"""From the original to the model's frame, and random parts of images with their masks."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt
from typing import Any, Literal, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from samtune.data.changes import acts_in_frame, in_pixels
from samtune.data.config import DataConfig
from samtune.data.corners import CORNERS
from samtune.data.draws import Draws
from samtune.data.labels import Labels, cut_apart
from samtune.errors import InputError
from samtune.geometry import Geometry, InputPolicy
from samtune.ops.resize import nearest_in_zoom
from samtune.ops.tiling import Window

Resize = Literal["longest", "stretch", "spline"]
_Array = TypeVar("_Array", bound=NDArray[Any])


def fit_geometry(
    original: tuple[int, int], size: tuple[int, int], resize: Resize = "longest"
) -> Geometry:
    """Where an image of ``original`` (height, width) comes to lie in a frame of ``size``.

    ``longest`` keeps the aspect ratio and rounds each side to the nearest pixel, as SAM's
    ``ResizeLongestSide``; ``stretch`` and ``spline`` fill the frame.
    """
    if resize != "longest":
        return Geometry(original, size, size, spline=resize == "spline")
    scale = min(size[0] / original[0], size[1] / original[1])
    h, w = (max(1, int(side * scale + 0.5)) for side in original)
    return Geometry(original, (min(h, size[0]), min(w, size[1])), size)


def fit_image(
    image: NDArray[np.uint8],
    size: tuple[int, int],
    resize: Resize = "longest",
    antialias: bool = True,
) -> tuple[Tensor, Geometry]:
    """Brings an image ``(h, w, 3)`` uint8 RGB into the model's frame.

    Pillow's antialiased bilinear resize, as ``SamPredictor``; an image that fits already keeps
    its bytes. Without antialiasing, plain bilinear interpolation of floats, never rounded to
    bytes. ``spline``: SciPy's cubic zoom of floats, which may leave 0..255.

    Returns:
        Pixels ``(3, H, W)``, zero where padded right and below, uint8 (float32 without
        antialiasing and with ``spline``), and the geometry.

    Raises:
        InputError: ``spline`` without scipy.
    """
    geometry = fit_geometry((image.shape[0], image.shape[1]), size, resize)
    (h, w), frame = geometry.resized, geometry.model
    if resize == "spline":
        return _zoomed(image, frame), geometry
    if not antialias:
        floats = torch.tensor(image).permute(2, 0, 1)[None].float()
        if geometry.resized != geometry.original:
            floats = F.interpolate(floats, (h, w), mode="bilinear", align_corners=False)
        return F.pad(floats[0], (0, frame[1] - w, 0, frame[0] - h)), geometry
    if geometry.resized != geometry.original:
        image = _resized(image, geometry.resized)
    pixels = torch.zeros(3, *frame, dtype=torch.uint8)
    pixels.numpy()[:, :h, :w] = image.transpose(2, 0, 1)
    return pixels, geometry


def fit(image: NDArray[np.uint8], policy: InputPolicy) -> tuple[Tensor, Geometry]:
    """Brings an image into the model's frame as its input policy says, see :func:`fit_image`."""
    if policy.channels == "bgr":
        image = np.ascontiguousarray(image[..., ::-1])
    original, first = (image.shape[0], image.shape[1]), policy.first_size
    if first is not None and original != first:
        image = _resized(image, first)
    pixels, geometry = fit_image(image, policy.size, policy.resize, policy.antialias)
    geometry = replace(geometry, original=original, first=first)
    raw = policy.native_raw and original == policy.size
    if raw and policy.mean is not None and policy.std is not None:
        # What the normalisation of the batch turns into the bytes again.
        mean, std = (torch.tensor(v)[:, None, None] for v in (policy.mean, policy.std))
        pixels = pixels.float() * std + mean
    rounded = policy.round_prompts and not raw
    return pixels, replace(geometry, rounded=rounded, direct=policy.direct_masks)


def _resized(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))


def check_resize(resize: Resize) -> None:
    """Checks that what resizes is installed.

    Raises:
        InputError: scipy is missing for ``spline``.
    """
    from importlib.util import find_spec

    if resize == "spline" and find_spec("scipy") is None:
        raise InputError("input.resize=spline: needs scipy; pip install 'samtune[metrics]'")


def _zoomed(image: NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
    floats = image.transpose(2, 0, 1).astype(np.float64)
    if image.shape[:2] != size:
        check_resize("spline")
        from scipy.ndimage import zoom

        factors = [b / a for a, b in zip(image.shape[:2], size, strict=True)]
        floats = np.stack([zoom(channel, factors, order=3) for channel in floats])
    return torch.from_numpy(floats).float()


def fit_mask(mask: _Array, geometry: Geometry) -> _Array:
    """Brings a map ``(h, w)`` of labels or bools into the model's frame: nearest pixel, 0 outside.

    A valid map of ones fitted so is false in the padding. With the geometry's ``spline`` the pixel
    is that of SciPy's zoom, and a row or column that it leaves empty is outside.
    """
    if geometry.first is not None:
        mask = _picked(mask, geometry.first)
    (h0, w0), (h, w) = mask.shape, geometry.resized
    if geometry.spline:
        rows, columns = nearest_in_zoom(h0, h).numpy(), nearest_in_zoom(w0, w).numpy()
        found = (rows >= 0)[:, None] & (columns >= 0)
        mask = mask[rows][:, columns] * found  # type: ignore[assignment]
    else:
        mask = _picked(mask, (h, w))
    fitted = np.zeros(geometry.model, mask.dtype)
    fitted[:h, :w] = mask
    return fitted  # type: ignore[return-value]


def _picked(mask: _Array, size: tuple[int, int]) -> _Array:
    """A map of another height and width, of the nearest pixels."""
    if mask.shape == size:
        return mask
    rows, columns = (_nearest(a, b) for a, b in zip(mask.shape, size, strict=True))
    return mask[rows][:, columns]  # type: ignore[return-value]


def _nearest(source: int, target: int) -> NDArray[np.int64]:
    # (i + 1/2) source / target in integers: floats would round ties either way.
    return np.minimum((2 * np.arange(target) + 1) * source // (2 * target), source - 1)


def cropped_rotated(
    image: NDArray[np.uint8],
    labels: Labels,
    data: DataConfig,
    policy: InputPolicy,
    draws: Draws,
) -> tuple[NDArray[np.uint8], Labels]:
    """A random part of an image with its labels, rotated: ``data.crop`` and ``data.rotate``.

    Where either acts in the model's frame the result lies in it, without padding.
    """
    if acts_in_frame(data):
        image, labels = _framed(image, labels, policy)
    if data.crop is not None:
        image, labels = part(image, labels, _drawn(data.crop, labels.map.shape, draws))
    if data.crop is not None or draws.cuts_apart:
        labels = cut_apart(labels, data)
    if data.rotate:
        image, labels, empty = _rotated(image, labels, draws.angle(data.rotate))
        labels = CORNERS[data.corners].label(labels, empty, data)
    return image, labels


def _framed(
    image: NDArray[np.uint8], labels: Labels, policy: InputPolicy
) -> tuple[NDArray[np.uint8], Labels]:
    # What comes out is fitted once more, which is when channels and raw bytes are seen to.
    pixels, geometry = fit(image, replace(policy, channels="rgb", native_raw=False))
    h, w = geometry.resized
    bytes_ = pixels[:, :h, :w].round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    maps = [m if m is None else fit_mask(m, geometry)[:h, :w] for m in (labels.map, labels.valid)]
    return bytes_, Labels(maps[0], labels.classes, maps[1])  # type: ignore[arg-type]


def _drawn(crop: tuple[float, float], size: tuple[int, ...], draws: Draws) -> Window:
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
    """What of an image and its labels lies in a window ``(y0, x0, y1, x1)`` of whole pixels."""
    y0, x0, y1, x1 = window
    cut = (slice(y0, y1), slice(x0, x1))
    valid = None if labels.valid is None else labels.valid[cut]
    return np.ascontiguousarray(image[cut]), Labels(
        np.ascontiguousarray(labels.map[cut]), labels.classes, valid
    )


def _rotated(
    image: NDArray[np.uint8], labels: Labels, degrees: float
) -> tuple[NDArray[np.uint8], Labels, NDArray[np.bool_]]:
    # Pillow's default: the nearest pixel, zero outside; of the image too, as published
    def turned(array: NDArray[Any]) -> NDArray[Any]:
        return np.array(Image.fromarray(array).rotate(degrees))

    inside = turned(np.ones(labels.map.shape, np.uint8)) > 0
    moved = turned(labels.map.astype(np.int32)).astype(labels.map.dtype)
    valid = inside if labels.valid is None else turned(labels.valid.astype(np.uint8)) > 0
    return turned(image), Labels(moved, labels.classes, valid), ~inside


def area_average(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """``(N, 1, h, w)`` averaged over the cells of a coarser grid of ``size``."""
    return F.adaptive_avg_pool2d(mask.float(), size)
