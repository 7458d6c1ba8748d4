"""The position of an image in the model's frame, and how images enter a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from samtune.errors import InputError, nearest
from samtune.geometry.ways import INPUT_RULES, RESIZES, Resize
from samtune.options import (
    Count,
    NotNegative,
    Positive,
    Range,
    Settings,
    changeable,
    published_settings,
    setting,
    validated,
)
from samtune.options.settings import plain_kind
from samtune.registry import Registry

_Input = TypeVar("_Input", bound="InputConfig")
MOST_OVERLAP = 0.9
"""Largest overlap of tiles; with more, an image would need hundreds of tiles."""


class Preset:
    """A bundle of settings of ``input``."""

    settings: ClassVar[Mapping[str, Any]]
    """Their values, as in a configuration file."""


PRESETS: Registry[Preset] = Registry("preset", "input.preset", "samtune.published")
"""The values of ``input.preset``."""


@dataclass(frozen=True)
class InputConfig(Settings):
    """The settings of how images enter a model."""

    section = "input"

    size: int | tuple[int, int] | None = None
    """Height and width of the model's frame in pixels, or one number; by default the base's."""
    resize: str = setting("longest", names=RESIZES)
    """How images come into the frame."""
    antialias: bool = setting(True, level="published")
    """Resize bytes as Pillow does; if false, resize floats by plain bilinear interpolation."""
    round_prompts: bool = setting(False, level="published")
    """Round the coordinates of prompts to whole pixels of the model's frame."""
    direct_masks: bool = setting(False, level="published")
    """Resize masks to the image in one interpolation instead of two, if nothing is padded."""
    mean: tuple[float, float, float] | None = setting(None, level="expert")
    """Mean per channel, in 0..255, to subtract from the pixels; by default the base's."""
    std: tuple[Positive, Positive, Positive] | None = setting(None, level="expert")
    """Standard deviation per channel, by which the result is divided; by default the base's."""
    tiles: Literal["auto", "whole", "crop", "tiled"] = setting("auto", changeable=True)
    """The content of the frame: whole, the image; crop, a crop around each prompt; or tiled,
    overlapping tiles of the frame's size, whose answers are blended. auto chooses before a
    training, by the widths of the objects in the training masks; recipes and presets use whole
    images."""
    overlap: Annotated[float, Range(at_least=0, at_most=MOST_OVERLAP)] = setting(
        0.25, level="expert", changeable=True
    )
    """Each tile shares at least this fraction of itself with its neighbour."""
    scale: Annotated[float, Range(above=0, remedy="1 is the original resolution")] = setting(
        1.0, level="expert", changeable=True
    )
    """Zoom of the tiles: 0.5 shrinks the image by half."""
    margin: NotNegative = setting(0.5, level="expert", changeable=True)
    """Margin of a crop around a prompt's box on each side, as a fraction of the box's longer side.
    """
    first_size: tuple[Count, Count] | None = setting(None, level="published")
    """Height and width to which images and labels are stretched before any other step."""

    def check_together(self) -> None:
        """Refuses settings that the way of resizing decides, and a size of what is cut as it is.

        Raises:
            InputError: The first of them.
        """
        one = self.until_chosen()
        for name, only in RESIZES[one.resize].does_itself.items():
            if (value := getattr(one, name)) != only:
                raise InputError(
                    f"input.{name}={value}: input.resize={self.resize} resizes whole images and "
                    "masks in its own way; leave one of the two out"
                )
        if one.first_size is not None and one.tiles != "whole":
            raise InputError(
                f"input.first_size={list(one.first_size)}: input.tiles={one.tiles} cuts the image "
                "as it is; leave one of them out"
            )

    def until_chosen(self: _Input) -> _Input:
        """A copy with whole images if ``auto`` has not been resolved yet."""
        return replace(self, tiles="whole") if self.tiles == "auto" else self


@dataclass(frozen=True)
class InputPolicy(InputConfig):
    """How images enter a model, in full; a checkpoint stores it, so prediction repeats training.

    Raises:
        InputError: A value is out of its range, the way of resizing is unknown, or it fixes a value
            that another field sets.
    """

    size: tuple[Count, Count] = field()
    """``(h, w)`` of the model's frame in pixels."""
    tiles: Literal["whole", "crop", "tiled"] = "whole"
    """The content of the frame, with ``auto`` resolved."""
    channels: Literal["rgb", "bgr"] = "rgb"
    """The channel order that the encoder receives; ``mean`` and ``std`` are in that order too."""
    native_raw: bool = setting(False, level="published")
    """Whether an image of exactly ``size`` enters unchanged: its bytes without ``mean`` and
    ``std``, which must then be set, and its prompts not rounded."""
    bands: tuple[int, ...] | None = None
    """Channels of a file that are read, one or three; ``None`` for those of a picture."""
    intensity: Literal["percentile", "window", "zscore", "fixed"] = "percentile"
    """How a file's values are converted to bytes, see :func:`samtune.data.intensity.to_rgb`."""
    limits: tuple[float, float] | None = None
    """Values that become 0 and 255, if set."""
    slice_axis: int = 0
    """The axis along which a volume is cut into images."""

    def __post_init__(self) -> None:
        for name in ("size", "first_size"):
            side = getattr(self, name)
            if isinstance(side, int) and not isinstance(side, bool):  # a square
                object.__setattr__(self, name, (side, side))
        super().__post_init__()

    @classmethod
    def of_settings(
        cls, settings: InputConfig, size: tuple[int, int], **others: Any
    ) -> InputPolicy:
        """The policy that settings describe.

        Args:
            settings: The settings.
            size: ``(h, w)`` of the frame.
            others: Fields that only a policy has.
        """
        settings = settings.until_chosen()
        shared = {f.name: getattr(settings, f.name) for f in fields(InputConfig)}
        policy: InputPolicy = validated(cls, cls.section, {**shared, "size": size, **others})
        return policy

    def changed_by(self, settings: InputPolicy | Mapping[str, Any] | None) -> InputPolicy:
        """The same policy but for some settings, in which one number as the size is a square.

        Args:
            settings: By name; none for the policy itself, and another policy stands for itself.

        Raises:
            InputError: No such setting, or a value that is refused.
        """
        if isinstance(settings, InputPolicy):
            return settings
        settings = {} if settings is None else settings
        if not isinstance(settings, Mapping):
            raise InputError(
                f'input={settings!r}: must be settings by name, as in {{"size": 512}}, or an '
                "InputPolicy"
            )
        known = [row.name for row in fields(self)]
        for name in settings.keys() - set(known):
            raise InputError(
                f"input[{name!r}]: no such setting{nearest(name, known)}; known are "
                f"{', '.join(known)}"
            )
        values = {row.name: getattr(self, row.name) for row in fields(self)}
        values |= {name: plain_kind(value) for name, value in settings.items()}
        if isinstance(side := values["size"], int) and not isinstance(side, bool):
            values["size"] = (side, side)
        policy: InputPolicy = validated(type(self), self.section, values)
        return policy

    def cut_as(self, settings: InputConfig) -> InputPolicy:
        """A copy with the tiles or crops of the settings, which need no training.

        Raises:
            InputError: The way of resizing does not allow tiles, or a package is missing.
        """
        RESIZES[self.resize].check_installed()
        cuts = changeable(InputConfig)
        settings = settings.until_chosen()
        return replace(self, **{name: getattr(settings, name) for name in cuts})

    @classmethod
    def of_preset(cls, name: str, size: tuple[int, int]) -> InputPolicy:
        """The policy of a published system, except for the size of its frame.

        Args:
            name: One of :data:`PRESETS`.
            size: ``(h, w)`` of the frame.
        """
        return cls.of({**PRESETS[name].settings, "size": size})

    def way(self) -> Resize:
        """The object that resizes images as this policy says, ready for use."""
        way: Resize = RESIZES[self.resize]()
        for name in published_settings(self):
            way = INPUT_RULES[name](way, self)
        return way

    def differing(self) -> dict[str, Any]:
        """The size, ``resize``, and all fields that differ from their defaults, by name."""
        return {
            f.name: value
            for f in fields(self)
            if (value := getattr(self, f.name)) != f.default or f.name == "resize"
        }

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> InputPolicy:
        """The policy from a checkpoint's header, which has lists and may lack defaults."""
        given = {row.name: values[row.name] for row in fields(cls) if row.name in values}
        if "size" not in given:
            raise InputError(
                f"input={dict(values)}: has no size; copy the file that contains it again"
            )
        policy: InputPolicy = validated(cls, cls.section, given)
        return policy


def multiples(size: tuple[int, int], step: int) -> tuple[int, int]:
    """The nearest smaller and larger height and width that a step divides."""
    h, w = (max(step, -(-side // step) * step) for side in size)
    return h, w


def check_divided(frame: tuple[int, int], step: int, what: str, whose: str = "") -> None:
    """Refuses a frame that is not a whole number of steps high and wide.

    Args:
        frame: Height and width in pixels.
        step: Pixels that must divide both.
        what: The setting with its value, for the message.
        whose: Words that say what the step is, as ``patch of vit_b``.

    Raises:
        InputError: With the nearest larger frame.
    """
    if min(frame) <= 0 or multiples(frame, step) != frame:
        whole = f"{step}, the {whose}" if whose else f"{step}"
        raise InputError(
            f"{what}: both sides must be positive multiples of {whole}; try "
            f"{list(multiples(frame, step))}"
        )
