"""Where an image lies in the model's frame, and how images enter a model.

All sizes are ``(height, width)`` in pixels. Coordinates are ``xy`` floats in pixels, origin top
left, as ``SamPredictor`` takes them (the prompt encoder adds the half pixel).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from samtune.errors import InputError
from samtune.ops.resize import nearest_in_zoom

NOWHERE = -10.0
"""Logit of all masks where a zoom leaves a pixel empty: outside, and of classes the first one."""


@dataclass(frozen=True)
class Geometry:
    """Where an image lies in the model's frame: resized, then padded right and below.

    All sizes are ``(height, width)`` in pixels.
    """

    original: tuple[int, int]
    resized: tuple[int, int]
    model: tuple[int, int]
    rounded: bool = False
    """Whether coordinates in the model's frame are whole numbers."""
    direct: bool = False
    """Whether masks without padding come back in one interpolation instead of two."""
    spline: bool = False
    """Whether the corners' pixels lie on each other, as SciPy's zoom resizes, and masks come back
    by the nearest pixel. Prompts go by ``scale``: less than half a coarser pixel away."""
    first: tuple[int, int] | None = None
    """Size of image and labels on the way there."""

    def scale(self, like: Tensor) -> Tensor:
        """The factors ``(x, y)`` from the original to the model frame, of ``like``'s dtype."""
        (h0, w0), (h1, w1) = self.original, self.resized
        return torch.tensor([w1 / w0, h1 / h0], dtype=torch.float64).to(like)

    def to_model(self, xy: Tensor) -> Tensor:
        """Maps points ``(..., 2)`` from the original to the model frame."""
        placed = xy * self.scale(xy)
        return placed.round() if self.rounded else placed

    def to_original(self, xy: Tensor) -> Tensor:
        """Maps points ``(..., 2)`` from the model to the original frame."""
        return xy / self.scale(xy)

    def masks_to_original(self, logits: Tensor) -> Tensor:
        """Brings mask logits ``(N, K, h, w)`` of any resolution into the original frame.

        SAM's post-processing: bilinear to the model frame, padding cut off, bilinear to the
        original size. Logits are interpolated, never thresholded masks. With ``spline`` the last
        step takes the nearest pixels; where SciPy's zoom finds none all logits are
        :data:`NOWHERE`.
        """
        (h, w), size = self.resized, self.model
        if self.direct and self.resized == size:
            return F.interpolate(logits, self.original, mode="bilinear", align_corners=False)
        if tuple(logits.shape[-2:]) != size:
            logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)
        logits = logits[..., :h, :w]
        if self.spline:
            sides = zip(self.resized, self.original, strict=True)
            rows, columns = (nearest_in_zoom(a, b).to(logits.device) for a, b in sides)
            found = logits[..., rows, :][..., columns]
            return found.masked_fill((rows < 0)[:, None] | (columns < 0), NOWHERE)
        if self.resized != self.original:
            logits = F.interpolate(logits, self.original, mode="bilinear", align_corners=False)
        return logits


@dataclass(frozen=True)
class InputPolicy:
    """How images enter a model; in the checkpoint, so that prediction repeats training.

    Raises:
        InputError: ``spline`` beside tiles, or beside another say in how images are resized.
    """

    size: tuple[int, int]
    """``(h, w)`` of the model's frame in pixels."""
    resize: Literal["longest", "stretch", "spline"] = "longest"
    """``longest``: keep the aspect and pad right and below; ``stretch``: each axis alone;
    ``spline``: that by ``scipy.ndimage.zoom``, images as floats by cubic splines, labels and masks
    by the nearest pixel, corners on corners."""
    antialias: bool = True
    """Pillow's antialiased resize of bytes; if not, plain bilinear interpolation of floats."""
    round_prompts: bool = False
    """Round the coordinates of prompts to whole pixels of the model's frame."""
    direct_masks: bool = False
    """Bring logits to the image in one interpolation, not by way of the model's frame; only
    where nothing is padded."""
    mean: tuple[float, float, float] | None = None
    """Of the pixels, in the 0..255 range; ``None`` for the base's."""
    std: tuple[float, float, float] | None = None
    """As ``mean``."""
    channels: Literal["rgb", "bgr"] = "rgb"
    """The order in which the encoder gets them; ``mean`` and ``std`` are in that order too."""
    native_raw: bool = False
    """Whether an image of exactly ``size`` enters as it is: its bytes without ``mean`` and ``std``,
    which then must be given, and its prompts not rounded."""
    tiles: Literal["whole", "crop", "tiled"] = "whole"
    """What comes into the frame: the whole image, a crop around each prompt, or overlapping tiles
    of the frame's size, whose answers are blended."""
    overlap: float = 0.25
    """Least part of a tile that it shares with its neighbour."""
    scale: float = 1.0
    """Pixels of the frame for a pixel of the image, where it is cut into tiles."""
    margin: float = 0.5
    """What a crop has around a prompt on each side, as a part of the longer one."""

    bands: tuple[int, ...] | None = None
    """Channels of a file that are taken, one or three; ``None`` for those of a picture."""
    intensity: Literal["percentile", "window", "zscore", "fixed"] = "percentile"
    """How a file's values become bytes, see :func:`samtune.data.intensity.to_rgb`."""
    limits: tuple[float, float] | None = None
    """Values that become 0 and 255, where they are given."""
    slice_axis: int = 0
    """Along which axis a volume is cut into images."""
    first_size: tuple[int, int] | None = None
    """``(h, w)`` to which an image is stretched before all else, by Pillow's bilinear filter."""

    def __post_init__(self) -> None:
        own = {"tiles": "whole", "first_size": None, "antialias": True, "direct_masks": False}
        for name, plain in own.items():
            if self.resize == "spline" and (value := getattr(self, name)) != plain:
                raise InputError(
                    f"input.{name}={value}: input.resize=spline brings whole images to the frame, "
                    "and masks back, in its own way; leave one of the two out"
                )

    def stated(self) -> dict[str, Any]:
        """Size, resize, and what differs from the defaults."""
        return {
            f.name: value
            for f in fields(self)
            if (value := getattr(self, f.name)) != f.default or f.name == "resize"
        }

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> InputPolicy:
        """The policy of a checkpoint's header, which has lists and may lack what is by default."""
        given = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        tuples: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in given.items()
        }
        return cls(**tuples)
