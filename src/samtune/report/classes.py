"""Maps of classes drawn over images: one colour per class, and a legend with their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samtune.report.overlays import COLOURS, GAP, NAME_BAR, colour_of, font_of, shortened

__all__ = ["COLOURS", "Classes", "colour_of", "draw_classes"]
OPAQUE = 0.5
"""How much of a class's colour covers the image."""
MARK = 14
"""Side of a coloured square of the legend in pixels."""
LEAST = 160
"""Width of a picture with a legend in pixels, at least."""


@dataclass(frozen=True)
class Classes:
    """The names of the classes of a model, and which of them is the background."""

    names: Sequence[str] = ()
    background: int | None = None
    """It is not drawn; ``None`` if every class is an object."""

    def name(self, value: int) -> str:
        """The name of a class, or its number."""
        return self.names[value] if value < len(self.names) else f"class {value}"

    def distinct(self, values: Sequence[int]) -> dict[int, str]:
        """The names of classes; those that occur twice have their number behind them."""
        names = [self.name(value) for value in values]
        named = zip(values, names, strict=True)
        return {v: f"{name} {v}" if names.count(name) > 1 else name for v, name in named}


def draw_classes(
    image: NDArray[np.uint8], values: NDArray[np.integer], classes: Classes
) -> NDArray[np.uint8]:
    """Tints a copy of an image by the class of each pixel, with a legend below it.

    Args:
        image: ``(h, w, 3)`` uint8 RGB.
        values: ``(h, w)``: the class of each pixel.
        classes: Their names.

    Returns:
        ``(h + legend, w, 3)`` uint8; narrow pictures get a white margin on their right.
    """
    canvas = np.array(image, dtype=np.uint8, order="C")
    shown = [int(v) for v in np.unique(values) if v != classes.background]
    for value in shown:
        inside = values == value
        tint = OPAQUE * np.array(colour_of(value))
        canvas[inside] = np.round((1 - OPAQUE) * canvas[inside] + tint)
    return _with_legend(canvas, [(colour_of(v), classes.name(v)) for v in shown])


def _with_legend(
    picture: NDArray[np.uint8], entries: Sequence[tuple[tuple[int, int, int], str]]
) -> NDArray[np.uint8]:
    from PIL import Image, ImageDraw

    height, width = picture.shape[0], max(picture.shape[1], LEAST)
    font, places = font_of(MARK), []
    x, y = GAP, height + GAP
    for colour, name in entries:
        text = shortened(name, font, width - MARK - 3 * GAP)
        wide = round(MARK + GAP + font.getlength(text) + GAP)
        if x > GAP and x + wide > width:
            x, y = GAP, y + NAME_BAR
        places.append((x, y, colour, text))
        x += wide
    sheet = Image.new("RGB", (width, y + NAME_BAR if entries else height), "white")
    sheet.paste(Image.fromarray(picture), (0, 0))
    pen = ImageDraw.Draw(sheet)
    for left, top, colour, text in places:
        pen.rectangle((left, top, left + MARK, top + MARK), fill=colour, outline="black")
        pen.text((left + MARK + GAP // 2, top + MARK / 2), text, "black", font, anchor="lm")
    return np.asarray(sheet)
