"""The position of an image in the model's frame, and how images enter a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from samtune.ops.resize import enlargement
from samtune.registry import Registry

if TYPE_CHECKING:
    from samtune.geometry.policy import InputPolicy

_Array = TypeVar("_Array", bound=NDArray[Any])


@dataclass(frozen=True)
class Resize:
    """One way (``input.resize``) in which images and labels enter the frame, and masks return.

    This class has Pillow's antialiased bilinear resize and SAM's post-processing. A subclass
    defines the size of an image within the frame, and overrides the steps in which it differs.
    """

    does_itself: ClassVar[Mapping[str, Any]] = {}
    """Other settings of the input that this way of resizing fixes, with their only value."""

    @property
    def leaves_pixels_out(self) -> bool:
        """Whether returned masks may lack logits for some pixels."""
        return False

    @classmethod
    def check_installed(cls) -> None:
        """Raises an error if a package that this way of resizing needs is missing.

        Raises:
            InputError: The package is missing.
        """

    def content(self, original: tuple[int, int], frame: tuple[int, int]) -> tuple[int, int]:
        """The size of an image within the frame; the rest is padding."""
        return frame

    def place(self, original: tuple[int, int], frame: tuple[int, int]) -> Geometry:
        """The geometry of an image of size ``original`` in a frame."""
        return Geometry(original, self.content(original, frame), frame, self)

    def image(self, image: NDArray[np.uint8], geometry: Geometry) -> Tensor:
        """Resizes an image ``(h0, w0, 3)`` uint8 into the model's frame.

        An image that already fits keeps its bytes.

        Returns:
            ``(3, H, W)``, zero in the padding on the right and below; uint8, or float32 if this way
            of resizing does not round to bytes.
        """
        import cv2

        (h, w), frame = geometry.resized, geometry.model
        image = resized_bytes(image, (h, w))
        pixels = torch.zeros(3, *frame, dtype=torch.uint8)
        for channel, plane in enumerate(pixels.numpy()):  # faster than numpy's transposed copy
            cv2.extractChannel(image, channel, plane[:h, :w])
        return pixels

    def labels(self, labels: _Array, geometry: Geometry) -> _Array:
        """Resizes a map ``(h0, w0)`` of labels or bools into the model's frame; padding is 0."""
        (h, w) = geometry.resized
        placed = np.zeros(geometry.model, labels.dtype)
        placed[:h, :w] = self.pick(labels, (h, w))
        return placed  # type: ignore[return-value]

    def pick(self, labels: _Array, size: tuple[int, int]) -> _Array:
        """Resizes a map by taking the nearest pixel."""
        return nearest_pixels(labels, size)

    def points(self, xy: Tensor, geometry: Geometry) -> Tensor:
        """Maps points ``(..., 2)`` from the original to the model frame."""
        return xy * geometry.scale(xy)

    def logits(self, logits: Tensor, geometry: Geometry) -> Tensor:
        """Resizes logits ``(N, K, h, w)`` of any resolution to the size of the image.

        It repeats SAM's post-processing: bilinear to the model's frame, padding removed, bilinear
        to the original size.
        """
        (h, w), frame = geometry.resized, geometry.model
        if tuple(logits.shape[-2:]) != frame:
            logits = F.interpolate(logits, frame, mode="bilinear", align_corners=False)
        return self.unfit(logits[..., :h, :w], geometry)

    def traced_content(self, original: Tensor, frame: tuple[int, int]) -> Tensor:
        """The traced form of :meth:`content`: ``(2,)`` numbers of the sizes ``(2,)``.

        Raises:
            NotImplementedError: No traced program has this way of resizing.
        """
        raise NotImplementedError("no traced program resizes in this way")

    def traced_points(self, xy: Tensor) -> Tensor:
        """The traced form of changes to points ``(..., 2)`` scaled to the model's frame."""
        return xy

    def traced_logits(self, logits: Tensor, original: Tensor, frame: tuple[int, int]) -> Tensor:
        """The traced form of :meth:`logits`.

        Args:
            logits: ``(N, K, h, w)``.
            original: ``(2,)`` height and width of the image.
            frame: Height and width of the model's frame.
        """
        content = self.traced_content(original, frame)
        rows, columns = (
            enlargement(logits.shape[2 + i], frame[i], content[i], original[i]) for i in (0, 1)
        )
        return rows @ logits @ columns.T

    def unfit(self, logits: Tensor, geometry: Geometry) -> Tensor:
        """Resizes logits ``(N, K, h, w)`` of the frame's content to the size of the image."""
        if geometry.resized == geometry.original:
            return logits
        return F.interpolate(logits, geometry.original, mode="bilinear", align_corners=False)


RESIZES: Registry[Resize] = Registry("resize", "input.resize", "samtune.published")
"""The values of ``input.resize``."""


@RESIZES.register("longest")
class Longest(Resize):
    """The longest side fits the frame; the rest on the right or below is padding."""

    def content(self, original: tuple[int, int], frame: tuple[int, int]) -> tuple[int, int]:
        """The size, each side rounded to the nearest pixel as in SAM's ``ResizeLongestSide``."""
        scale = min(frame[0] / original[0], frame[1] / original[1])
        h, w = (max(1, int(side * scale + 0.5)) for side in original)
        return min(h, frame[0]), min(w, frame[1])

    def traced_content(self, original: Tensor, frame: tuple[int, int]) -> Tensor:
        """The traced form of :meth:`content`, with the same arithmetic."""
        original, sides = original.double(), original.new_tensor(frame, dtype=torch.float64)
        content = (original * (sides / original).min() + 0.5).floor()
        return content.clamp(min=1.0).minimum(sides)


@RESIZES.register("stretch")
class Stretch(Resize):
    """Both axes are stretched to the frame."""

    def traced_content(self, original: Tensor, frame: tuple[int, int]) -> Tensor:
        """The frame."""
        return original.new_tensor(frame, dtype=torch.float64)


@dataclass(frozen=True)
class InputRule(Resize):
    """A changed step in another way of resizing: one published setting of ``input``.

    This class passes every step on to the other way. A subclass overrides the step that its setting
    changes. A traced program has no such step unless the subclass says which.
    """

    name: ClassVar[str]
    """Set by the registry."""
    is_traceable: ClassVar[bool] = False
    """Whether a traced program can have this step, as its ``traced_`` methods say."""

    way: Resize
    policy: InputPolicy

    @property
    def leaves_pixels_out(self) -> bool:
        """Passed on to the other way."""
        return self.way.leaves_pixels_out

    def content(self, original: tuple[int, int], frame: tuple[int, int]) -> tuple[int, int]:
        """Passed on to the other way."""
        return self.way.content(original, frame)

    def image(self, image: NDArray[np.uint8], geometry: Geometry) -> Tensor:
        """Passed on to the other way."""
        return self.way.image(image, geometry)

    def labels(self, labels: _Array, geometry: Geometry) -> _Array:
        """Passed on to the other way."""
        return self.way.labels(labels, geometry)

    def points(self, xy: Tensor, geometry: Geometry) -> Tensor:
        """Passed on to the other way."""
        return self.way.points(xy, geometry)

    def logits(self, logits: Tensor, geometry: Geometry) -> Tensor:
        """Passed on to the other way."""
        return self.way.logits(logits, geometry)

    def traced_content(self, original: Tensor, frame: tuple[int, int]) -> Tensor:
        """Passed on to the other way.

        Raises:
            NotImplementedError: No traced program has this step.
        """
        if not self.is_traceable:
            raise NotImplementedError(f"no traced program has input.{self.name}")
        return self.way.traced_content(original, frame)

    def traced_points(self, xy: Tensor) -> Tensor:
        """Passed on to the other way."""
        return self.way.traced_points(xy)

    def traced_logits(self, logits: Tensor, original: Tensor, frame: tuple[int, int]) -> Tensor:
        """Passed on to the other way."""
        return self.way.traced_logits(logits, original, frame)


INPUT_RULES: Registry[InputRule] = Registry("input rule", "input", "samtune.published")
"""Rules by the names of the :class:`InputPolicy` fields that turn each one on."""


def resized_bytes(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resizes an image ``(h, w, 3)`` with Pillow's antialiased bilinear resize."""
    from PIL import Image

    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))


def nearest_pixels(labels: _Array, size: tuple[int, int]) -> _Array:
    """Resizes a map ``(h, w)`` of labels or bools by taking the nearest pixel."""
    if labels.shape == size:
        return labels
    if labels.dtype == bool and labels.all():  # as most maps of valid pixels
        return np.ones(size, bool)  # type: ignore[return-value]
    rows, columns = (_nearest(a, b) for a, b in zip(labels.shape, size, strict=True))
    if size[0] < labels.shape[0]:
        return labels.take(rows, 0).take(columns, 1)  # type: ignore[return-value]
    return labels.take(columns, 1).take(rows, 0)  # type: ignore[return-value]


def _nearest(source: int, target: int) -> NDArray[np.int64]:
    # (i + 1/2) source / target in integers: floats would round ties either way.
    return np.minimum((2 * np.arange(target) + 1) * source // (2 * target), source - 1)


@dataclass(frozen=True)
class Geometry:
    """The position of an image in the model's frame: resized, then padded right and below.

    All sizes are ``(height, width)`` in pixels.
    """

    original: tuple[int, int]
    resized: tuple[int, int]
    model: tuple[int, int]
    resize: Resize = Resize()
    """The way of resizing, for the image and for returned masks."""

    def scale(self, like: Tensor) -> Tensor:
        """The factors ``(x, y)`` from the original to the model frame, of ``like``'s dtype."""
        (h0, w0), (h1, w1) = self.original, self.resized
        return torch.tensor([w1 / w0, h1 / h0], dtype=torch.float64).to(like)

    def to_model(self, xy: Tensor) -> Tensor:
        """Maps points ``(..., 2)`` from the original to the model frame."""
        return self.resize.points(xy, self)

    def to_original(self, xy: Tensor) -> Tensor:
        """Maps points ``(..., 2)`` from the model to the original frame."""
        return xy / self.scale(xy)

    def masks_to_original(self, logits: Tensor) -> Tensor:
        """Resizes mask logits ``(N, K, h, w)`` of any resolution into the original frame.

        The logits are interpolated, not thresholded masks; see :meth:`Resize.logits`.
        """
        return self.resize.logits(logits, self)

    def has_logits(self) -> Tensor:
        """``(h0, w0)`` bool: the pixels of the image that get logits from a mask."""
        if not self.resize.leaves_pixels_out:
            return torch.ones(self.original, dtype=torch.bool)
        return self.masks_to_original(torch.zeros(1, 1, *self.model))[0, 0] == 0
