"""The view through an endoscope: a wet lining with large bumps, cut off by a black frame."""

from __future__ import annotations

import cv2
import numpy as np
import shapes
from canvas import GROUP, SIZE, WHOLE, Canvas, blend, place, soften
from textures import Rng
from tissue import bump, lining, lit, vessels


def scope(rng: Rng) -> Canvas:
    """Bumps with texture, reflections and shadow; frame, inset and writing hide what they cover."""
    height, albedo = lining(rng, 0.2)
    canvas = Canvas(np.zeros((SIZE, SIZE, 3), np.uint8))
    count = int(rng.choice([1, 2, 3], p=[0.7, 0.22, 0.08]))
    for _ in range(count):
        make = (shapes.ellipse, shapes.bean, lambda r: shapes.blob(r, 0.12))[rng.integers(3)]
        radius = np.exp(rng.uniform(np.log(14), np.log(115)))
        ring = place(make(rng), *rng.uniform(0, SIZE, 2), radius)
        bump(canvas, rng, height, albedo, ring, rng.uniform(0.5, 2.0))
    if count > 1:
        canvas.labels[GROUP] = np.where(canvas.labels[WHOLE] > 0, canvas.new(), 0)
    vessels(albedo, rng)
    _hollows(albedo, rng)
    relief = cv2.GaussianBlur(height, (0, 0), float(rng.uniform(0.8, 2.5)))
    lighted = lit(albedo, relief, rng) * rng.uniform(0.7, 1.5)
    canvas.image[...] = np.clip(lighted, 0, 255)
    _reflections(canvas, rng)
    if rng.random() < 0.85:
        _frame(canvas, rng)
    return canvas


def _hollows(albedo: np.ndarray, rng: Rng) -> None:
    """Where the tube goes on, light does not come back: soft dark places, in place."""
    for _ in range(int(rng.choice([0, 1, 2], p=[0.35, 0.5, 0.15]))):
        ring = place(shapes.blob(rng, 0.2), *rng.uniform(0, SIZE, 2), rng.uniform(12, 70))
        cover = soften(shapes.fill([ring], 0, 0, SIZE, SIZE), float(rng.uniform(2, 14)))
        albedo *= 1 - cover.astype(np.float32)[..., None] / 255 * np.float32(rng.uniform(0.4, 0.95))


def _reflections(canvas: Canvas, rng: Rng) -> None:
    """Glints of any number, and now and then a large place that is burnt out."""
    cover = np.zeros((SIZE, SIZE), np.uint8)
    heart = rng.uniform(0.1, 0.9, 2) * SIZE
    for _ in range(int(rng.choice([0, 6, 20, 50]))):
        at = heart + rng.normal(0, rng.uniform(10, 80), 2)
        make = shapes.blob if rng.random() < 0.6 else shapes.tube
        radius = np.exp(rng.uniform(np.log(1.2), np.log(9)))
        np.maximum(cover, shapes.fill([place(make(rng), *at, radius)], 0, 0, SIZE, SIZE), out=cover)
    cover = soften(cover, float(rng.uniform(0.4, 1.2)))
    white = np.broadcast_to(rng.uniform(200, 255, 3), (SIZE, SIZE, 3))
    blend(canvas.image, cover, white)
    if rng.random() < 0.3:
        ring = place(shapes.blob(rng), *rng.uniform(0, SIZE, 2), rng.uniform(15, 60))
        burnt = soften(shapes.fill([ring], 0, 0, SIZE, SIZE), float(rng.uniform(2, 15)))
        blend(canvas.image, burnt, np.broadcast_to(255.0, (SIZE, SIZE, 3)))


def _frame(canvas: Canvas, rng: Rng) -> None:
    """Black around a cut-off field of view, an inset, lines of writing; hides labels alike."""
    view = _field_of_view(rng)
    black = int(rng.integers(0, 14))
    _hide(canvas, ~view, (black,) * 3)
    if rng.random() < 0.45:
        h, w = rng.uniform(0.12, 0.42, 2) * SIZE
        corner = np.zeros((SIZE, SIZE), bool)
        corner[-int(h) :, : int(w)] = True
        turns = 0 if rng.random() < 0.7 else int(rng.integers(4))
        _hide(canvas, np.rot90(corner, turns), (black,) * 3)
    if rng.random() < 0.15:
        x, y = rng.integers(0, SIZE - 30, 2)
        plate = np.zeros((SIZE, SIZE), bool)
        plate[y : y + rng.integers(6, 24), x : x + rng.integers(20, 70)] = True
        _hide(canvas, plate, tuple(rng.integers(0, 256, 3)))
    if rng.random() < 0.6:
        _writing(canvas, rng)


def _hide(canvas: Canvas, where: np.ndarray, colour: tuple[int, ...]) -> None:
    canvas.image[where] = colour
    canvas.labels[:, where] = 0


def _field_of_view(rng: Rng) -> np.ndarray:
    """``(SIZE, SIZE)`` bool: a rectangle with cut corners, or a disc cut off by the picture."""
    if rng.random() < 0.25:
        t = np.linspace(0, 2 * np.pi, 80)
        centre, radius = rng.uniform(0.45, 0.55, 2) * SIZE, rng.uniform(0.48, 0.66) * SIZE
        ring = np.stack([np.cos(t), np.sin(t)], 1) * radius + centre
    else:
        x0, y0, x1, y1 = rng.uniform(0, 0.1, 4) * (rng.random(4) < 0.7) * SIZE
        x1, y1 = SIZE - x1, SIZE - y1
        cut = rng.uniform(0.04, 0.3) * SIZE * (rng.random(4) < 0.85)
        a, b, c, d = cut
        ring = np.array(
            [[x0 + a, y0], [x1 - b, y0], [x1, y0 + b], [x1, y1 - c],
             [x1 - c, y1], [x0 + d, y1], [x0, y1 - d], [x0, y0 + a]]
        )  # fmt: skip
    return shapes.fill([ring], 0, 0, SIZE, SIZE) > 127


def _writing(canvas: Canvas, rng: Rng) -> None:
    """A few short lines of small light letters; they hide no label."""
    x, y = int(rng.integers(0, 40)), int(rng.integers(20, SIZE - 60))
    grey = int(rng.integers(150, 256))
    for line in range(int(rng.integers(1, 5))):
        text = "".join(chr(c) for c in rng.integers(48, 91, int(rng.integers(3, 11))))
        at = (x, y + 11 * line)
        size = float(rng.uniform(0.25, 0.35))
        cv2.putText(canvas.image, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, (grey,) * 3, 1, 16)
