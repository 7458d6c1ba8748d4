"""Training images that are changed and resized where the model is, to the same bytes.

The loading process draws what changes, changes the labels and samples the prompts. The image goes
to the device as it was read; there it is turned, toned, warped, and resized into the model's frame.
Pillow's resize is repeated in whole numbers, so that every device gives its bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samtune.data.augmentations import AUGMENTATIONS, Change, DrawnAugmentation
from samtune.data.changes import acts_in_frame
from samtune.data.config import DataConfig
from samtune.data.draws import DRAWS, Draws
from samtune.data.labels import Labels
from samtune.data.transforms import fit
from samtune.errors import InputError
from samtune.geometry import Geometry, InputPolicy, Resize
from samtune.options import as_yaml, published_settings

BITS = 22
"""Binary places of Pillow's weights for bytes."""

ALIKE = 0.97
"""The least ratio of the scales of height and width that counts as one scale."""


@dataclass(frozen=True)
class LateImage:
    """An image with what will be done with it."""

    image: Tensor
    """``(h, w, 3)`` uint8 RGB, as it was read."""
    change: Change
    geometry: Geometry
    """The place of the changed image in the model's frame."""
    channels: str = "rgb"
    ready: Tensor | None = None
    """The pixels in the model's frame, if they were made where the image was loaded."""

    @property
    def nothing(self) -> Tensor:
        """The empty pixels of an example whose image is late."""
        return torch.zeros(3, 0, 0, dtype=torch.uint8)

    def pin_memory(self) -> LateImage:
        """A copy in memory that a GPU reads while it computes."""
        ready = None if self.ready is None else self.ready.pin_memory()
        return replace(self, image=self.image.pin_memory(), ready=ready)

    def fitted(self, device: torch.device | str) -> Tensor:
        """The pixels ``(3, H, W)`` uint8 in the model's frame, on a device."""
        if self.ready is not None:
            return self.ready.to(device, non_blocking=True)
        planes = self.image.to(device, non_blocking=True).permute(2, 0, 1)
        planes = resized_planes(self.change.of_planes(planes), self.geometry.resized)
        planes = planes.flip(0) if self.channels == "bgr" else planes
        (h, w), pixels = self.geometry.resized, planes.new_zeros(3, *self.geometry.model)
        pixels[:, :h, :w] = planes
        return pixels


def late_image(
    image: NDArray[np.uint8], labels: Labels, data: DataConfig, policy: InputPolicy, draws: Draws
) -> LateImage:
    """An image ``(h, w, 3)`` with the choices for it, which are drawn here.

    Args:
        image: The image as it was read.
        labels: Its labels, for the size.
        data: The settings.
        policy: How images enter the model.
        draws: The random choices.
    """
    change = draws.late_change(labels.map.shape, data.augment)
    h, w = labels.map.shape[::-1] if change.turns % 2 else labels.map.shape
    place = policy.way().place((h, w), policy.size)
    if takes_columns_first((h, w), place.resized):
        return LateImage(torch.from_numpy(image.copy()), change, place, policy.channels)
    pixels, _ = fit(change.of(image, labels)[0], policy)
    return LateImage(torch.zeros(0, 0, 3, dtype=torch.uint8), change, place, ready=pixels)


def takes_columns_first(source: tuple[int, int], target: tuple[int, int]) -> bool:
    """Whether every version of Pillow resizes along the rows first.

    From 13.0 on it begins with the height if that shrinks much more than the width.
    """
    (h, w), (h1, w1) = source, target
    return h1 >= h or (w1 <= w and h1 * w >= ALIKE * h * w1)


def resized_planes(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """Pillow's antialiased bilinear resize of planes ``(C, h, w)`` uint8, columns first.

    Pillow weighs in whole numbers, and rounds to bytes after each of both axes.
    """
    for axis in (2, 1):
        if planes.shape[axis] != size[axis - 1]:
            planes = _along(planes, axis, size[axis - 1])
    return planes


def _along(planes: Tensor, axis: int, length: int) -> Tensor:
    places, weights = (
        torch.from_numpy(each).to(planes.device) for each in _taps(planes.shape[axis], length)
    )
    shape = [1, 1, 1]
    shape[axis] = length
    total = torch.full((), 1 << (BITS - 1), dtype=torch.int32, device=planes.device)
    for place, weight in zip(places, weights, strict=True):
        total = total + planes.index_select(axis, place).int() * weight.view(shape)
    return (total >> BITS).clamp_(0, 255).byte()


@lru_cache(maxsize=64)
def _taps(source: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The places ``(taps, target)`` that each new pixel is made of, and their weights."""
    scale = source / target
    support = max(1.0, scale)
    centers = (np.arange(target) + 0.5) * scale
    first = np.maximum((centers - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centers + support + 0.5).astype(np.int64), source)
    places = first[None] + np.arange(2 * math.ceil(support) + 1)[:, None]
    distances = (places - centers + 0.5) * (1.0 / support)
    weights = np.where(places < last, np.maximum(1.0 - np.abs(distances), 0.0), 0.0)
    total = np.zeros(target)
    for row in weights:  # in Pillow's order
        total += row
    whole = (0.5 + weights / total * (1 << BITS)).astype(np.int32)
    return np.minimum(places, source - 1), whole


def why_not_late(data: DataConfig, policy: InputPolicy) -> str | None:
    """The setting for which images must be changed where they are loaded; ``None`` if none does.

    Args:
        data: The settings.
        policy: How images enter the model.
    """
    way = policy.way()
    resizes = type(way).image is Resize.image and type(way).place is Resize.place
    augmentation = AUGMENTATIONS[data.augment]
    rule = next(iter(published_settings(policy)), None)
    reasons = {
        f"input.{rule}": rule is not None,
        f"input.tiles={policy.tiles}": policy.tiles != "whole",
        f"data.crop={data.crop}": data.crop is not None,
        f"data.rotate={data.rotate:g}": acts_in_frame(data),
        f"data.augment={data.augment}": not issubclass(augmentation, DrawnAugmentation),
        f"data.redraw={as_yaml(data.redraw)}": DRAWS[as_yaml(data.redraw)].change
        is not Draws.change,
        f"input.resize={policy.resize}": not resizes,
    }
    return next((name for name, is_so in reasons.items() if is_so), None)


def are_late(data: DataConfig, policy: InputPolicy, device: torch.device) -> bool:
    """Whether training images are changed and resized on the device of the model.

    Args:
        data: The settings.
        policy: How images enter the model.
        device: The device.

    Raises:
        InputError: The settings demand it, and one of them has images changed where they are
            loaded.
    """
    why = why_not_late(data, policy)
    if data.augment_on == "device" and why is not None:
        raise InputError(
            f"data.augment_on=device: {why} changes images where they are loaded; leave one of the "
            "two out"
        )
    wanted = {"device": True, "loader": False, "auto": device.type == "cuda"}
    return wanted[data.augment_on] and why is None
