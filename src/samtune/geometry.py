"""Where an image lies in the model's frame, and how images enter a model.

All sizes are ``(height, width)`` in pixels. Coordinates are ``xy`` floats in pixels, origin top
left, as ``SamPredictor`` takes them (the prompt encoder adds the half pixel).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from samtune.errors import InputError
from samtune.options import (
    Count,
    NotNegative,
    Positive,
    Range,
    changeable,
    check_values,
    published_settings,
    setting,
)
from samtune.registry import Registry

_Array = TypeVar("_Array", bound=NDArray[Any])
_Input = TypeVar("_Input", bound="InputConfig")
MOST_OVERLAP = 0.9
"""With more, an image would take hundreds of tiles."""


@dataclass(frozen=True)
class Resize:
    """How images and labels come into the model's frame, and masks back: one ``input.resize``.

    Here Pillow's antialiased bilinear resize and SAM's post-processing. A subclass says which size
    an image gets within the frame, and whatever else it does in its own way.
    """

    does_itself: ClassVar[Mapping[str, Any]] = {}
    """Other settings of the input which this way of resizing decides, with their only value."""

    @property
    def leaves_pixels_out(self) -> bool:
        """Whether masks may come back without logits for some pixels."""
        return False

    @classmethod
    def check_installed(cls) -> None:
        """Refuses to go on without a package that this way of resizing needs.

        Raises:
            InputError: With the package.
        """

    def content(self, original: tuple[int, int], frame: tuple[int, int]) -> tuple[int, int]:
        """The size of an image within the frame; the rest is padding."""
        return frame

    def place(self, original: tuple[int, int], frame: tuple[int, int]) -> Geometry:
        """Where an image of size ``original`` comes to lie in a frame."""
        return Geometry(original, self.content(original, frame), frame, self)

    def image(self, image: NDArray[np.uint8], geometry: Geometry) -> Tensor:
        """Brings an image ``(h0, w0, 3)`` uint8 into the model's frame.

        An image that fits already keeps its bytes.

        Returns:
            ``(3, H, W)``, zero where padded right and below; uint8, or float32 of a way whose
            values are never rounded to bytes.
        """
        (h, w), frame = geometry.resized, geometry.model
        image = resized_bytes(image, (h, w))
        pixels = torch.zeros(3, *frame, dtype=torch.uint8)
        pixels.numpy()[:, :h, :w] = image.transpose(2, 0, 1)
        return pixels

    def labels(self, labels: _Array, geometry: Geometry) -> _Array:
        """Brings a map ``(h0, w0)`` of labels or bools into the model's frame; 0 in the padding."""
        (h, w) = geometry.resized
        placed = np.zeros(geometry.model, labels.dtype)
        placed[:h, :w] = self.pick(labels, (h, w))
        return placed  # type: ignore[return-value]

    def pick(self, labels: _Array, size: tuple[int, int]) -> _Array:
        """A map of another size, each pixel the nearest one."""
        return nearest_pixels(labels, size)

    def points(self, xy: Tensor, geometry: Geometry) -> Tensor:
        """Maps points ``(..., 2)`` from the original to the model frame."""
        return xy * geometry.scale(xy)

    def logits(self, logits: Tensor, geometry: Geometry) -> Tensor:
        """Brings logits ``(N, K, h, w)`` of any resolution to the size of the image.

        SAM's post-processing: bilinear to the model frame, padding cut off, bilinear to the
        original size.
        """
        (h, w), frame = geometry.resized, geometry.model
        if tuple(logits.shape[-2:]) != frame:
            logits = F.interpolate(logits, frame, mode="bilinear", align_corners=False)
        return self.unfit(logits[..., :h, :w], geometry)

    def unfit(self, logits: Tensor, geometry: Geometry) -> Tensor:
        """Brings logits ``(N, K, h, w)`` of the content of the frame to the size of the image."""
        if geometry.resized == geometry.original:
            return logits
        return F.interpolate(logits, geometry.original, mode="bilinear", align_corners=False)


RESIZES: Registry[Resize] = Registry("resize", "input.resize", "samtune.published")
"""The values of ``input.resize``."""


@RESIZES.register("longest")
class Longest(Resize):
    """The longest side fits the frame, which is padded right and below."""

    def content(self, original: tuple[int, int], frame: tuple[int, int]) -> tuple[int, int]:
        """Each side rounded to the nearest pixel, as SAM's ``ResizeLongestSide``."""
        scale = min(frame[0] / original[0], frame[1] / original[1])
        h, w = (max(1, int(side * scale + 0.5)) for side in original)
        return min(h, frame[0]), min(w, frame[1])


@RESIZES.register("stretch")
class Stretch(Resize):
    """Both axes are stretched to the frame."""


@dataclass(frozen=True)
class InputRule(Resize):
    """A step in which another way of resizing is changed: one published setting of ``input``.

    Here no step is: all goes that way. A subclass has the step that its setting changes.
    """

    way: Resize
    policy: InputPolicy

    @property
    def leaves_pixels_out(self) -> bool:
        """As that way."""
        return self.way.leaves_pixels_out

    def content(self, original: tuple[int, int], frame: tuple[int, int]) -> tuple[int, int]:
        """As that way."""
        return self.way.content(original, frame)

    def image(self, image: NDArray[np.uint8], geometry: Geometry) -> Tensor:
        """As that way."""
        return self.way.image(image, geometry)

    def labels(self, labels: _Array, geometry: Geometry) -> _Array:
        """As that way."""
        return self.way.labels(labels, geometry)

    def points(self, xy: Tensor, geometry: Geometry) -> Tensor:
        """As that way."""
        return self.way.points(xy, geometry)

    def logits(self, logits: Tensor, geometry: Geometry) -> Tensor:
        """As that way."""
        return self.way.logits(logits, geometry)


INPUT_RULES: Registry[InputRule] = Registry("input rule", "input", "samtune.published")
"""Rules by the names of the settings of an :class:`InputPolicy` that turn each on."""


class Preset:
    """A bundle of settings of ``input``."""

    settings: ClassVar[Mapping[str, Any]]
    """Their values, as in a configuration file."""


PRESETS: Registry[Preset] = Registry("preset", "input.preset", "samtune.published")
"""The values of ``input.preset``."""


def resized_bytes(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """An image ``(h, w, 3)`` at another size, by Pillow's antialiased bilinear resize."""
    from PIL import Image

    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))


def nearest_pixels(labels: _Array, size: tuple[int, int]) -> _Array:
    """A map ``(h, w)`` of labels or bools at another size, each pixel the nearest one."""
    if labels.shape == size:
        return labels
    rows, columns = (_nearest(a, b) for a, b in zip(labels.shape, size, strict=True))
    return labels[rows][:, columns]  # type: ignore[return-value]


def _nearest(source: int, target: int) -> NDArray[np.int64]:
    # (i + 1/2) source / target in integers: floats would round ties either way.
    return np.minimum((2 * np.arange(target) + 1) * source // (2 * target), source - 1)


@dataclass(frozen=True)
class Geometry:
    """Where an image lies in the model's frame: resized, then padded right and below.

    All sizes are ``(height, width)`` in pixels.
    """

    original: tuple[int, int]
    resized: tuple[int, int]
    model: tuple[int, int]
    resize: Resize = Resize()
    """How it came there, and how masks come back."""

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
        """Brings mask logits ``(N, K, h, w)`` of any resolution into the original frame.

        Logits are interpolated, never thresholded masks; see :meth:`Resize.logits`.
        """
        return self.resize.logits(logits, self)

    def has_logits(self) -> Tensor:
        """``(h0, w0)`` bool: the pixels of the image that get logits from a mask."""
        if not self.resize.leaves_pixels_out:
            return torch.ones(self.original, dtype=torch.bool)
        return self.masks_to_original(torch.zeros(1, 1, *self.model))[0, 0] == 0


@dataclass(frozen=True)
class InputConfig:
    """How images enter a model: what can be set of it."""

    size: int | tuple[int, int] | None = None
    """Height and width of the model's frame in pixels, or one number; by default the base's."""
    resize: str = setting("longest", names=RESIZES)
    """How images come into the frame."""
    antialias: bool = setting(True, level="published")
    """Resize bytes as Pillow does; if not, floats by plain bilinear interpolation."""
    round_prompts: bool = setting(False, level="published")
    """Round the coordinates of prompts to whole pixels of the model's frame."""
    direct_masks: bool = setting(False, level="published")
    """Bring masks to the image in one interpolation instead of two, if nothing is padded."""
    mean: tuple[float, float, float] | None = setting(None, level="expert")
    """Mean by channel, in 0..255, to subtract from the pixels; by default the base's."""
    std: tuple[Positive, Positive, Positive] | None = setting(None, level="expert")
    """Standard deviation by channel, to divide by then; by default the base's."""
    tiles: Literal["auto", "whole", "crop", "tiled"] = setting("auto", changeable=True)
    """What comes into the frame: the whole image, a crop around each prompt, or overlapping tiles
    of the frame's size, whose answers are blended. auto chooses before a training, by the widths of
    the objects in the training masks (docs/tiles.md); recipes and presets have whole images."""
    overlap: Annotated[float, Range(at_least=0, at_most=MOST_OVERLAP)] = setting(
        0.25, level="expert", changeable=True
    )
    """Each tile shares at least this fraction of itself with its neighbour."""
    scale: Annotated[float, Range(above=0, remedy="1 is the original resolution")] = setting(
        1.0, level="expert", changeable=True
    )
    """Zoom of the tiles: 0.5 shrinks the image by half."""
    margin: NotNegative = setting(0.5, level="expert", changeable=True)
    """Space of a crop around a prompt's box on each side, as a fraction of the longer one."""
    first_size: tuple[Count, Count] | None = setting(None, level="published")
    """Height and width to which images and labels are stretched before all else."""

    def until_chosen(self: _Input) -> _Input:
        """These settings with whole images if nothing has chosen yet what ``auto`` is."""
        return replace(self, tiles="whole") if self.tiles == "auto" else self


@dataclass(frozen=True)
class InputPolicy(InputConfig):
    """How images enter a model, in full; in the checkpoint, so that prediction repeats training.

    Raises:
        InputError: A value out of its range, no such way of resizing, or one that does itself what
            another field says.
    """

    size: tuple[Count, Count] = field()
    """``(h, w)`` of the model's frame in pixels."""
    tiles: Literal["whole", "crop", "tiled"] = "whole"
    """What comes into the frame; nothing is left to choose."""
    channels: Literal["rgb", "bgr"] = "rgb"
    """The order in which the encoder gets them; ``mean`` and ``std`` are in that order too."""
    native_raw: bool = setting(False, level="published")
    """Whether an image of exactly ``size`` enters as it is: its bytes without ``mean`` and ``std``,
    which then must be given, and its prompts not rounded."""
    bands: tuple[int, ...] | None = None
    """Channels of a file that are taken, one or three; ``None`` for those of a picture."""
    intensity: Literal["percentile", "window", "zscore", "fixed"] = "percentile"
    """How a file's values become bytes, see :func:`samtune.data.intensity.to_rgb`."""
    limits: tuple[float, float] | None = None
    """Values that become 0 and 255, where they are given."""
    slice_axis: int = 0
    """Along which axis a volume is cut into images."""

    def __post_init__(self) -> None:
        check_values(self, "input")
        for name, only in RESIZES[self.resize].does_itself.items():
            if (value := getattr(self, name)) != only:
                raise InputError(
                    f"input.{name}={value}: input.resize={self.resize} brings whole images to the "
                    "frame, and masks back, in its own way; leave one of the two out"
                )

    @classmethod
    def of_settings(
        cls, settings: InputConfig, size: tuple[int, int], **others: Any
    ) -> InputPolicy:
        """The policy that settings describe.

        Args:
            settings: What was set.
            size: ``(h, w)`` of the frame.
            others: Fields that only a policy has.
        """
        settings = settings.until_chosen()
        shared = {f.name: getattr(settings, f.name) for f in fields(InputConfig)}
        return cls(**{**shared, "size": size, **others})

    def cut_as(self, settings: InputConfig) -> InputPolicy:
        """The same policy with the tiles or crops of the settings, which need no training.

        Raises:
            InputError: Tiles that the way of resizing does not allow, or a package that it lacks.
        """
        RESIZES[self.resize].check_installed()
        cuts = changeable(InputConfig)
        settings = settings.until_chosen()
        return replace(self, **{name: getattr(settings, name) for name in cuts})

    @classmethod
    def of_preset(cls, name: str, size: tuple[int, int]) -> InputPolicy:
        """The policy of a published system, but for the size of its frame.

        Args:
            name: One of :data:`PRESETS`.
            size: ``(h, w)`` of the frame.
        """
        return cls.of({**PRESETS[name].settings, "size": size})

    def way(self) -> Resize:
        """How images are resized: ``resize``, with the steps that published settings change."""
        way: Resize = RESIZES[self.resize]()
        for name in published_settings(self):
            way = INPUT_RULES[name](way, self)
        return way

    def differing(self) -> dict[str, Any]:
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
        try:
            return cls(**tuples)
        except (TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"input={dict(values)}: is no way in which images enter a model ({error}); copy "
                "the file that says so again"
            ) from error


def multiples(size: tuple[int, int], step: int) -> tuple[int, int]:
    """The next height and width, from below, that a step divides."""
    h, w = (max(step, -(-side // step) * step) for side in size)
    return h, w
