"""``input.tiles=auto``: chooses the content of the frame by the widths of the objects in masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from samtune.data.shapes import Shapes
from samtune.errors import InputError
from samtune.geometry import RESIZES
from samtune.ops.tiling import extent, starts
from samtune.runs.config import RunConfig, resolve
from samtune.sam.spec import SamSpec
from samtune.sam.weights import spec_of

ENOUGH = 0.4
"""Width in tokens of the median object from which whole images are used.

In ``benchmarks/results/frames.md`` drawn vessels have a width of 0.15 and reach an IoU of 0.25, and
0.54 in tiles; the narrowest objects there that are not curves have 0.57. Widths in between were not
measured."""
ENOUGH_IN_TILES = 0.6
"""The same width in tiles at the image's own resolution; narrower objects are enlarged twice.

The vessels have a width of 0.34 there and reach 0.43; enlarged twice, 0.54."""
MOST_ZOOM = 2.0
"""Largest number of frame pixels per image pixel in tiles; more shows no further detail."""
LARGER = 1.2
"""Least enlargement of objects that is worth its cost."""
LARGEST_FRAME = 2.0
"""Largest side of a larger frame, in sides of the base's: attention costs its fourth power."""
MOST_TILES = 64
"""Largest number of tiles for the largest image; beyond that a smaller zoom is used."""


@dataclass(frozen=True)
class Framing:
    """The content of the frame, and the width of objects in it."""

    settings: dict[str, Any]
    """Values of ``input.tiles``, ``input.size`` and ``input.scale``, for those that it sets."""
    whole: float
    """Median width of the objects in tokens with whole images."""
    width: float
    """Median width of the objects in tokens with these settings."""
    pixels: float
    """Median width in pixels of the image; NaN without objects, like the two above."""
    shapes: Shapes
    hindrance: str = ""
    """The reason, as a clause, why whole images are used although objects are narrow."""

    def over(self, config: RunConfig) -> RunConfig:
        """A configuration with these settings."""
        return replace(config, input=replace(config.input, **self.settings))

    def __str__(self) -> str:
        """One line for the user: the choice, the numbers behind it, and how to undo it."""
        of = f"median of {len(self.shapes)} in {self.shapes.images} masks"
        if not len(self.shapes):
            return "input.tiles=auto: whole images, because no mask shows how wide objects are"
        if self.settings["tiles"] == "whole" and "size" not in self.settings:
            line = f"input.tiles=auto: whole images, where objects are {self.whole:.2g} tokens wide"
            if not self.hindrance:
                return f"{line} ({of}; {ENOUGH} are enough)"
            return f"{line} only ({of}; below {ENOUGH}), for {self.hindrance}"
        what = f"input.size={self.settings.get('size')}"
        if self.settings["tiles"] == "tiled":
            what = (
                "tiles"
                if self.settings["scale"] == 1
                else f"tiles, scale {self.settings['scale']:g}"
            )
        enough = f"; {ENOUGH} are enough" if self.width >= ENOUGH else ""
        return (
            f"input.tiles=auto: {what}, where objects are {self.width:.2g} tokens wide, and in "
            f"whole images {self.whole:.2g} ({self.pixels:.2g} pixels; {of}{enough}); "
            "input.tiles=whole undoes it"
        )


def choose_framing(configs: Sequence[RunConfig], shapes: Shapes) -> Framing:
    """Chooses the same content of the frame for some trainings.

    Args:
        configs: The trainings; they only differ in settings unrelated to the frame.
        shapes: The objects of their training masks.
    """
    first = configs[0]
    if not len(shapes) or min(_frame(first)) < 1:  # an empty frame is refused later, with the model
        return Framing({"tiles": "whole"}, math.nan, math.nan, math.nan, shapes)
    whole, pixels = width_in_tokens(first, shapes), float(np.median(shapes.widths))
    plain = Framing({"tiles": "whole"}, whole, whole, pixels, shapes)
    if whole >= ENOUGH:
        return plain
    hindrance = ""
    for framing in _larger(first, plain):
        try:
            for config in configs:
                resolve([framing.over(config).tree()])
        except InputError as error:
            hindrance = hindrance or f"with input.tiles={framing.settings['tiles']}: {error}"
        else:
            return framing
    return replace(plain, hindrance=hindrance or _nothing_larger(first))


def wider_settings(config: RunConfig, shapes: Shapes) -> list[tuple[str, float]]:
    """Settings that enlarge objects, each with the resulting width in tokens.

    The result is empty if objects are wide enough already, or if images are cropped around prompts.
    """
    if not len(shapes) or config.input.tiles == "crop":
        return []
    now = width_in_tokens(config, shapes)
    plain = Framing({}, now, now, float(np.median(shapes.widths)), shapes)
    options = _larger(config, plain) if now < ENOUGH else []
    return [
        (" ".join(f"input.{key}={value:g}" if key == "scale" else f"input.{key}={value}"
                  for key, value in framing.settings.items()), framing.width)
        for framing in options if framing.width > LARGER * now
    ]  # fmt: skip


def _nothing_larger(config: RunConfig) -> str:
    if config.input.size is None:
        return "nothing shows them larger"
    return f"input.size={config.input.size} is set, and tiles would not show them larger or whole"


def width_in_tokens(config: RunConfig, shapes: Shapes) -> float:
    """Median width of objects in tokens of the frame, as a configuration fills it.

    With crops around prompts it is the width in whole images.
    """
    spec, frame = spec_of(config.base.name), _frame(config)
    if config.input.tiles == "tiled":
        per_pixel = np.full(len(shapes), config.input.scale)
    else:
        content = RESIZES[config.input.resize]().content
        placed = np.array([content((int(h), int(w)), frame) for h, w in shapes.sizes])
        per_pixel = np.sqrt((placed / shapes.sizes).prod(1))
    return float(np.median(shapes.widths * per_pixel)) / spec.patch_size


def _larger(config: RunConfig, plain: Framing) -> list[Framing]:
    """Settings that enlarge objects, the best first: tiles, and a larger frame."""
    spec, options = spec_of(config.base.name), []
    if (scale := _zoom(config, plain)) is not None:
        options.append({"tiles": "tiled", "scale": scale})
    if config.input.size is None:
        options.append({"tiles": "whole", "size": _larger_side(spec, plain.whole)})
    framings = [replace(plain, settings=settings) for settings in options]
    return [replace(f, width=width_in_tokens(f.over(config), f.shapes)) for f in framings]


def _zoom(config: RunConfig, plain: Framing) -> float | None:
    """The scale of tiles; ``None`` if they do not enlarge objects, or cut those of points.

    Only the prompts of the training count: what is measured beside must not decide what is trained.
    """
    frame, shapes = _frame(config), plain.shapes
    largest = int(shapes.sizes[:, 0].max()), int(shapes.sizes[:, 1].max())
    at_full = plain.pixels / spec_of(config.base.name).patch_size
    scale = 1.0 if at_full >= ENOUGH_IN_TILES else MOST_ZOOM
    while _tiles(frame, scale, largest, config.input.overlap) > MOST_TILES:
        scale /= 2
    tiles = replace(plain, settings={"tiles": "tiled", "scale": scale})
    if width_in_tokens(tiles.over(config), shapes) <= LARGER * plain.whole:
        return None
    long = float(np.quantile(shapes.lengths, 0.9)) * scale
    if "point" in config.prompts.modes(train=True).kinds and long > min(frame) / 2:
        return None  # a point gives no information about areas beyond its tile
    return scale


def _tiles(frame: tuple[int, int], scale: float, image: tuple[int, int], overlap: float) -> int:
    sides = zip(image, extent(frame, scale, image), strict=True)
    rows, columns = (len(starts(length, tile, overlap)) for length, tile in sides)
    return rows * columns


def _larger_side(spec: SamSpec, width: float) -> int:
    """The side of a square frame in which objects are wide enough, in quarters of the base's."""
    quarter = spec.image_size // 4
    times = min(LARGEST_FRAME, ENOUGH / width)
    return quarter * math.ceil(times * 4)


def _frame(config: RunConfig) -> tuple[int, int]:
    size = config.input.size
    if size is None:
        return (spec_of(config.base.name).image_size,) * 2
    return (size, size) if isinstance(size, int) else size
