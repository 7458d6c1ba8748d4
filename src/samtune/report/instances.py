"""Instances drawn over images: an outline and a tint for each, and how many there are."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from samtune.report.overlays import GAP, NAME_BAR, colour_of, font_of
from samtune.report.quantities import counted

TINT = 0.3
"""How much of an instance's colour covers the image within its outline."""
LEAST = 120
"""Width of a picture with its caption in pixels, at least."""

Part = tuple[tuple[int, int], NDArray[np.bool_]]
"""The first pixel ``(x, y)`` of a part of the image, and a mask of it."""


def draw_instances(
    image: NDArray[np.uint8], parts: Iterable[Part], what: str = "object"
) -> NDArray[np.uint8]:
    """Draws each instance in a colour of its own over a copy of an image, and counts them below.

    Args:
        image: ``(h, w, 3)`` uint8 RGB.
        parts: The mask of each instance, later ones over earlier ones.
        what: The word for one of them.

    Returns:
        ``(h + caption, w, 3)`` uint8; narrow pictures get a white margin on their right.
    """
    import cv2

    canvas = np.array(image, dtype=np.uint8, order="C")
    thick = max(1, round(max(canvas.shape[:2]) / 400))
    outlines, count = [], 0
    for (x, y), mask in parts:
        colour = colour_of(count)
        count += 1
        window = canvas[y : y + mask.shape[0], x : x + mask.shape[1]]
        window[mask] = np.round((1 - TINT) * window[mask] + TINT * np.array(colour))
        contours = cv2.findContours(
            mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(x, y)
        )
        outlines.append((contours[0], colour))
    for lines, colour in outlines:  # above all tints
        cv2.drawContours(canvas, lines, -1, colour, thick, cv2.LINE_AA)
    return _with_caption(canvas, counted(count, what))


def _with_caption(picture: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    from PIL import Image, ImageDraw

    height, width = picture.shape[0], max(picture.shape[1], LEAST)
    sheet = Image.new("RGB", (width, height + NAME_BAR), "white")
    sheet.paste(Image.fromarray(picture), (0, 0))
    at = (GAP, height + NAME_BAR / 2)
    ImageDraw.Draw(sheet).text(at, text, "black", font_of(15), anchor="lm")
    return np.asarray(sheet)
