"""From the original to the model's frame, and random changes of images with their masks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from samtune.data.labels import Labels
from samtune.types import Geometry, InputPolicy

Resize = Literal["longest", "stretch"]
Strength = Literal["none", "flips", "standard"]
_Array = TypeVar("_Array", bound=NDArray[Any])
DEGREES, SHIFT, ZOOM = 15.0, 0.05, (0.8, 1.25)
"""Range of the affine change: rotation, shift as a part of the side, scale."""
TONE, GAMMA = 0.2, (0.8, 1.25)
"""Range of brightness and contrast around 1, and of gamma."""


def fit_geometry(
    original: tuple[int, int], size: tuple[int, int], resize: Resize = "longest"
) -> Geometry:
    """Where an image of ``original`` (height, width) comes to lie in a frame of ``size``.

    ``longest`` keeps the aspect ratio and rounds each side to the nearest pixel, as SAM's
    ``ResizeLongestSide``; ``stretch`` fills the frame.
    """
    if resize == "stretch":
        return Geometry(original, size, size)
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
    bytes.

    Returns:
        Pixels ``(3, H, W)``, zero where padded right and below, uint8 (float32 without
        antialiasing), and the geometry.
    """
    geometry = fit_geometry((image.shape[0], image.shape[1]), size, resize)
    (h, w), frame = geometry.resized, geometry.model
    if not antialias:
        floats = torch.tensor(image).permute(2, 0, 1)[None].float()
        if geometry.resized != geometry.original:
            floats = F.interpolate(floats, (h, w), mode="bilinear", align_corners=False)
        return F.pad(floats[0], (0, frame[1] - w, 0, frame[0] - h)), geometry
    if geometry.resized != geometry.original:
        image = np.asarray(Image.fromarray(image).resize((w, h), Image.Resampling.BILINEAR))
    pixels = torch.zeros(3, *frame, dtype=torch.uint8)
    pixels.numpy()[:, :h, :w] = image.transpose(2, 0, 1)
    return pixels, geometry


def fit(image: NDArray[np.uint8], policy: InputPolicy) -> tuple[Tensor, Geometry]:
    """Brings an image into the model's frame as its input policy says, see :func:`fit_image`."""
    if policy.channels == "bgr":
        image = np.ascontiguousarray(image[..., ::-1])
    pixels, geometry = fit_image(image, policy.size, policy.resize, policy.antialias)
    raw = policy.native_raw and geometry.original == policy.size
    if raw and policy.mean is not None and policy.std is not None:
        # What the normalisation of the batch turns into the bytes again.
        mean, std = (torch.tensor(v)[:, None, None] for v in (policy.mean, policy.std))
        pixels = pixels.float() * std + mean
    rounded = policy.round_prompts and not raw
    return pixels, replace(geometry, rounded=rounded, direct=policy.direct_masks)


def fit_mask(mask: _Array, geometry: Geometry) -> _Array:
    """Brings a map ``(h, w)`` of labels or bools into the model's frame: nearest pixel, 0 outside.

    A valid map of ones fitted so is false in the padding.
    """
    (h0, w0), (h, w) = geometry.original, geometry.resized
    if (h, w) != (h0, w0):
        mask = mask[_nearest(h0, h)][:, _nearest(w0, w)]  # type: ignore[assignment]
    fitted = np.zeros(geometry.model, mask.dtype)
    fitted[:h, :w] = mask
    return fitted  # type: ignore[return-value]


def _nearest(source: int, target: int) -> NDArray[np.int64]:
    # (i + 1/2) source / target in integers: floats would round ties either way.
    return np.minimum((2 * np.arange(target) + 1) * source // (2 * target), source - 1)


def augment(
    image: NDArray[np.uint8], labels: Labels, seed: int, strength: Strength = "standard"
) -> tuple[NDArray[np.uint8], Labels]:
    """Changes an image and its labels together, in the original frame; the same for the same seed.

    ``flips``: the eight flips and quarter turns, exact (height and width may swap). ``standard``:
    these, then with a chance of one half each a change of brightness, contrast and gamma, and a
    small affine change. What an affine change brings in from outside is black and not valid.
    The number of objects stays; one that leaves the image has no pixel left.
    """
    if strength == "none":
        return image, labels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        turns, mirrored, warped, toned = (torch.rand(4) * torch.tensor([4, 2, 2, 2])).int().tolist()
        image, labels = _turned(image, turns, mirrored), _map(labels, turns, mirrored)
        if strength == "standard" and toned:
            image = _tones()[image]
        if strength == "standard" and warped:
            image, labels = _affine(image, labels)
    return image, labels


def _turned(array: _Array, turns: int, mirrored: int) -> _Array:
    array = np.rot90(array, turns)  # type: ignore[assignment]
    return np.ascontiguousarray(array[:, ::-1] if mirrored else array)  # type: ignore[return-value]


def _map(labels: Labels, turns: int, mirrored: int) -> Labels:
    valid = None if labels.valid is None else _turned(labels.valid, turns, mirrored)
    return Labels(_turned(labels.map, turns, mirrored), labels.classes, valid)


def _affine(image: NDArray[np.uint8], labels: Labels) -> tuple[NDArray[np.uint8], Labels]:
    import kornia.augmentation as K

    change = K.AugmentationSequential(
        K.RandomAffine(DEGREES, (SHIFT, SHIFT), ZOOM, p=1.0), data_keys=["input", "mask"]
    )
    valid = np.ones(labels.map.shape, bool) if labels.valid is None else labels.valid
    maps = torch.from_numpy(np.stack([labels.map.astype(np.float32), valid.astype(np.float32)]))
    pixels, maps = change(torch.tensor(image).permute(2, 0, 1)[None].float(), maps[None])
    moved, valid = maps[0].round().numpy()
    image = pixels[0].round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    return image, Labels(moved.astype(labels.map.dtype), labels.classes, valid > 0)


def _tones() -> NDArray[np.uint8]:
    """The new value of each of the 256: tone acts on each value alone, so a table is exact."""
    import kornia.augmentation as K

    values = (torch.arange(256) / 255).expand(1, 3, 1, 256)
    values = K.ColorJiggle(TONE, TONE, 0.0, 0.0, p=1.0)(values)
    values = K.RandomGamma(GAMMA, p=1.0)(values)
    return (values[0, 0, 0] * 255).round().byte().numpy()


def area_average(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """``(N, 1, h, w)`` averaged over the cells of a coarser grid of ``size``."""
    return F.adaptive_avg_pool2d(mask.float(), size)
