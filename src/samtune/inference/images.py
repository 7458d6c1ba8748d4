"""Conversion of images of many kinds to the bytes that a model takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from samtune.data.intensity import to_rgb
from samtune.data.reading import pillow_pixels, read_image
from samtune.errors import InputError
from samtune.files import as_path
from samtune.geometry import InputPolicy

_RULE = "must be uint8 (h, w, 3), (h, w, 4) or grey (h, w), or fractions from 0 to 1"
_READ = "samtune.data.read_image reads files so"


def as_rgb(image: object, image_format: str, policy: InputPolicy) -> NDArray[np.uint8]:
    """An image as ``(h, w, 3)`` uint8 RGB.

    Args:
        image: An array, a picture of Pillow's, or the path of a file.
        image_format: ``RGB`` or ``BGR``: the order of an array's channels.
        policy: How files and deep values are read.

    Raises:
        InputError: It is none of these, or has another shape or kind of values.
    """
    if image_format not in ("RGB", "BGR"):
        raise InputError(f"image_format={image_format}: must be RGB or BGR")
    if isinstance(image, str | Path):
        return read_image(as_path(image), policy)
    if isinstance(image, Image.Image):
        return to_rgb(pillow_pixels(image, colours=True), policy, Path("the image"))
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu().numpy()
    if not isinstance(image, np.ndarray):
        raise InputError(
            f"image of the type {type(image).__name__}: give an array, a picture of Pillow's, or "
            "the path of a file"
        )
    channels = _channels(image)
    if image_format == "BGR" and channels.shape[2] > 2:
        channels = channels[..., [2, 1, 0, *range(3, channels.shape[2])]]
    if channels.dtype == np.uint8:
        rgb = channels[..., :3] if channels.shape[2] > 2 else channels[..., :1].repeat(3, 2)
        return np.ascontiguousarray(rgb)
    if np.issubdtype(channels.dtype, np.inexact):
        return as_rgb(_bytes(channels), "RGB", policy)
    return to_rgb(channels, policy, Path("the image"))


def _channels(image: NDArray[Any]) -> NDArray[Any]:
    """The array as ``(h, w, channels)``."""
    about = f"image of {image.dtype} {image.shape}"
    if image.dtype.kind not in "buif":
        raise InputError(f"{about}: {_RULE}; {_READ}")
    if image.ndim == 2 and image.size:
        return image[..., None]
    if image.ndim == 3 and image.size and image.shape[2] in (1, 3, 4):
        return image
    if image.ndim == 3 and image.shape[0] in (1, 3, 4):
        raise InputError(f"{about}: its channels come first; give image.transpose(1, 2, 0)")
    if image.ndim == 4 and image.shape[0] == 1:
        raise InputError(f"{about}: a batch of one image; give image[0]")
    raise InputError(f"{about}: {_RULE}; {_READ}")


def _bytes(channels: NDArray[Any]) -> NDArray[np.uint8]:
    about = f"image of {channels.dtype} {channels.shape}"
    if not bool(np.isfinite(channels).all()):
        raise InputError(f"{about}: holds NaN or infinity; replace them, as by numpy.nan_to_num")
    low, high = float(channels.min()), float(channels.max())
    if low < 0 or high > 1:
        raise InputError(
            f"{about}: its values go from {low:.4g} to {high:.4g}; {_RULE}, so divide them by "
            "their range, or turn values of 0 to 255 into image.astype('uint8')"
        )
    return np.round(channels * 255).astype(np.uint8)
