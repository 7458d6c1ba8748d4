"""Masks and prompts drawn over images: one picture, or a strip of image, truth, before and after.

The colours are those of Okabe and Ito (2008), which people with all common kinds of colour vision
can distinguish. In pictures and curves one colour means the truth, one the zero-shot result
(before), one the tuned result (after).
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import ImageFont

TRUTH, BEFORE, AFTER = (0, 158, 115), (230, 159, 0), (86, 180, 233)
"""RGB of the ground truth, the zero-shot result and the tuned result."""
COLOURS = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66),
    (0, 114, 178), (213, 94, 0), (204, 121, 167),
)  # fmt: skip
"""RGB of the first classes or objects."""
GOLDEN = 0.618034
"""The distance between two further hues, as a fraction of the whole circle."""
PANEL = 480
"""Longest side of one picture of a strip, in pixels."""
GAP, NAME_BAR, CAPTION_BAR, CELL = 8, 28, 24, 132
"""Pixels: gap between pictures, heights of the two text bars, and least width that holds a caption.
"""


Pictures = list[tuple[str, np.ndarray]]
"""Captions with pictures ``(h, w, 3)`` uint8 RGB."""


@dataclass(frozen=True)
class Overlay:
    """One image with its target and the predictions; fields that are ``None`` are left out."""

    name: str
    image: np.ndarray
    """``(h, w, 3)`` uint8 RGB."""
    truth: np.ndarray | None = None
    """``(h, w)``: a bool mask, or the number of the object of each pixel, 0 for none; like
    ``before`` (zero-shot) and ``after`` (tuned)."""
    before: np.ndarray | None = None
    after: np.ndarray | None = None
    boxes: Sequence[Sequence[float]] = ()
    """Box prompts, xyxy in the image's pixels."""
    points: Sequence[Sequence[float]] = ()
    """Point prompts ``(x, y, label)`` in the image's pixels; label 1 is inside, 0 outside."""
    iou_before: float | None = None
    iou_after: float | None = None
    captions: Mapping[str, str] = field(default_factory=dict)
    """Further words below a picture, by its name: ``truth``, ``before``, ``after``."""


def draw_overlay(
    image: np.ndarray,
    mask: np.ndarray | None = None,
    boxes: Sequence[Sequence[float]] = (),
    points: Sequence[Sequence[float]] = (),
    colour: tuple[int, int, int] = AFTER,
    *,
    outline: np.ndarray | None = None,
) -> np.ndarray:
    """Draws a mask (tint and contour), prompts and another mask's outline over a copy of an image.

    If the mask numbers several objects, each is tinted in a colour of its own, the same for the
    same number, and the contours keep the colour of the mask.

    Line widths grow with the image, so that they survive scaling to :data:`PANEL` pixels.

    Args:
        image: ``(h, w, 3)`` uint8 RGB.
        mask: ``(h, w)`` bool, or the number of the object of each pixel, 0 for none.
        boxes: xyxy in pixels.
        points: ``(x, y, label)`` in pixels: a plus for label 1, a cross for label 0.
        colour: RGB of the mask.
        outline: Another mask, shown as a thin line in the colour of the truth.

    Raises:
        ValueError: A mask differs in size from the image.
    """
    canvas = np.array(image, dtype=np.uint8, order="C")
    thick = max(1, round(max(canvas.shape[:2]) / 240))
    inside = None if mask is None else _fitting(mask, canvas)
    if inside is not None:
        canvas[inside > 0] = np.round(0.62 * canvas[inside > 0] + 0.38 * _tint(inside, colour))
    # The outline lies under the contour, so it is only visible where the mask is wrong.
    if outline is not None:
        _trace(canvas, _fitting(outline, canvas), TRUTH, max(1, round(0.6 * thick)))
    if inside is not None:
        _trace(canvas, inside, colour, thick)
    for box in boxes:
        _draw_box(canvas, box, thick)
    for x, y, label in points:
        _draw_point(canvas, (round(x), round(y)), label > 0, thick)
    return canvas


def colour_of(value: int) -> tuple[int, int, int]:
    """The RGB of a class or an object by its number from 0, the same in every picture."""
    if value < len(COLOURS):
        return COLOURS[value]
    rest = value - len(COLOURS)
    hue, light = (GOLDEN * rest) % 1, 0.35 + 0.3 * (rest % 3) / 2
    red, green, blue = colorsys.hls_to_rgb(hue, light, 0.8)
    return round(255 * red), round(255 * green), round(255 * blue)


def _tint(mask: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """The RGB ``(n, 3)`` of the ``n`` pixels of a mask: one colour, or one per object."""
    if mask.dtype == bool:
        return np.array([colour])
    numbers, place = np.unique(mask[mask > 0], return_inverse=True)
    if len(numbers) < 2:
        return np.array([colour])
    return np.array([colour_of(int(number) - 1) for number in numbers])[place.reshape(-1)]


def strip(overlay: Overlay, row: Pictures | None = None) -> np.ndarray:
    """One row of pictures ``(h, w, 3)`` uint8 with captions: image, truth, before, after.

    Args:
        overlay: The image with its truth and its masks.
        row: Its panels; without them they are drawn here.
    """
    from PIL import Image, ImageDraw

    pictures = panels(overlay) if row is None else row
    height, width = pictures[0][1].shape[:2]
    cell = max(width, CELL)
    size = (len(pictures) * (cell + GAP) + GAP, NAME_BAR + CAPTION_BAR + height + GAP)
    sheet = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(sheet), font_of(15)
    title = shortened(overlay.name, font, size[0] - 2 * GAP)
    pen.text((GAP, NAME_BAR / 2), title, "black", font, anchor="lm")
    for i, (caption, picture) in enumerate(pictures):
        left = GAP + i * (cell + GAP) + (cell - width) // 2
        pen.text((left, NAME_BAR + CAPTION_BAR / 2), caption, (70, 70, 70), font, anchor="lm")
        sheet.paste(Image.fromarray(picture), (left, NAME_BAR + CAPTION_BAR))
    return np.asarray(sheet)


def panels(overlay: Overlay) -> Pictures:
    """Captioned pictures, small images enlarged by a whole factor before anything is drawn."""
    factor = max(1, PANEL // max(overlay.image.shape[:2]))

    def enlarged(array: np.ndarray | None) -> np.ndarray | None:
        if array is None:
            return None
        return _fitting(array, overlay.image).repeat(factor, 0).repeat(factor, 1)

    # A coordinate names a pixel's centre: 0 is half a pixel from the border at any scale.
    boxes = [[(v + 0.5) * factor - 0.5 for v in box] for box in overlay.boxes]
    points = [((x + 0.5) * factor - 0.5, (y + 0.5) * factor - 0.5, v) for x, y, v in overlay.points]
    image, truth = enlarged(overlay.image), enlarged(overlay.truth)
    assert image is not None
    pictures = [("image", draw_overlay(image, None, boxes, points))]
    if truth is not None:
        caption = _caption("truth", None, overlay)
        pictures.append((caption, draw_overlay(image, truth, colour=TRUTH)))
    for label, mask, iou, colour in (
        ("before", overlay.before, overlay.iou_before, BEFORE),
        ("after", overlay.after, overlay.iou_after, AFTER),
    ):
        if mask is not None:
            drawn = draw_overlay(image, enlarged(mask), boxes, points, colour, outline=truth)
            pictures.append((_caption(label, iou, overlay), drawn))
    return [(caption, _shrunk(picture)) for caption, picture in pictures]


def _caption(name: str, iou: float | None, overlay: Overlay) -> str:
    words = [name, overlay.captions.get(name), None if iou is None else f"IoU {iou:.3f}"]
    return ", ".join(word for word in words if word)


def _shrunk(picture: np.ndarray) -> np.ndarray:
    import cv2

    height, width = picture.shape[:2]
    if max(height, width) <= PANEL:
        return picture
    ratio = PANEL / max(height, width)
    size = max(1, round(width * ratio)), max(1, round(height * ratio))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))


def _trace(canvas: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int], thick: int) -> None:
    """Draws the contours of a mask, or of each of its objects, also if these touch."""
    import cv2

    if mask.dtype != bool and len(np.unique(mask)) > 2:
        grown = cv2.dilate(mask.astype(np.float32), np.ones((3, 3)))
        shrunk = cv2.erode(mask.astype(np.float32), np.ones((3, 3)))
        edges = ((grown != shrunk) & (mask > 0)).astype(np.uint8)
        canvas[cv2.dilate(edges, np.ones((thick, thick))) > 0] = colour
        return
    found = cv2.findContours((mask > 0).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, found[0], -1, colour, thick, cv2.LINE_AA)


def _draw_box(canvas: np.ndarray, box: Sequence[float], thick: int) -> None:
    import cv2

    x0, y0, x1, y1 = (round(v) for v in box)
    # White on black is visible on every image.
    for ink, width in (((0, 0, 0), thick + 2 * max(1, thick // 2)), ((255, 255, 255), thick)):
        cv2.rectangle(canvas, (x0, y0), (x1, y1), ink, width)


def _draw_point(canvas: np.ndarray, at: tuple[int, int], positive: bool, thick: int) -> None:
    import cv2

    ink, paper = ((0, 0, 0), (255, 255, 255)) if positive else ((255, 255, 255), (0, 0, 0))
    sign = cv2.MARKER_CROSS if positive else cv2.MARKER_TILTED_CROSS
    cv2.circle(canvas, at, 5 * thick, ink, -1, cv2.LINE_AA)
    cv2.circle(canvas, at, 4 * thick, paper, -1, cv2.LINE_AA)
    cv2.drawMarker(canvas, at, ink, sign, 5 * thick, thick, cv2.LINE_AA)


def _fitting(array: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Returns an array, an image or a mask, if it has the image's size."""
    if array.shape[:2] != image.shape[:2]:
        raise ValueError(
            f"a mask of {array.shape[:2]} does not fit an image of {image.shape[:2]}: "
            "bring it into the image's frame first"
        )
    return array


def font_of(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font of captions.

    Args:
        size: Its height in pixels.
    """
    from PIL import ImageFont

    return ImageFont.load_default(size)


def shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    """A text that is cut so that it is not wider than so many pixels; dots show that it was."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    short = text
    while font.getlength(short) > width and len(text) > 1:
        text = text[:-1]
        short = text + "..."
    return short
