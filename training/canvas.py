"""The picture under construction: pixels and label maps that stay exact under occlusion."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
import shapes
import textures
from textures import Rng

SIZE = 256
WHOLE, PART, GROUP = range(3)


@dataclass
class Canvas:
    """Pixels and one int16 label map for each granularity; 0 is "nothing"."""

    image: np.ndarray
    """``(256, 256, 3)`` u8 RGB."""
    labels: np.ndarray = field(default_factory=lambda: np.zeros((3, SIZE, SIZE), np.int16))
    """``(3, 256, 256)``: WHOLE objects and regions, their PARTs, GROUPs of objects."""
    used: int = 0

    def new(self) -> int:
        """A label no map has yet."""
        self.used += 1
        return self.used

    def paint(
        self,
        at: tuple[int, int, int, int],
        cover: np.ndarray,
        colour: np.ndarray,
        ids: tuple[int, int, int],
    ) -> None:
        """Lays ``colour`` ``(h, w, 3)`` over the window ``at`` as ``cover`` ``(h, w)`` u8 tells.

        ``ids`` are the labels in the order WHOLE, PART, GROUP that the covered pixels get.
        """
        x, y, h, w = at
        blend(self.image[y : y + h, x : x + w], cover, colour)
        inside = cover > 127
        for level, label in enumerate(ids):
            self.labels[level, y : y + h, x : x + w][inside] = label


def blend(below: np.ndarray, cover: np.ndarray, colour: np.ndarray) -> None:
    """Mixes ``colour`` into the view ``below``, both ``(h, w, 3)`` u8, in place."""
    alpha = (cover.astype(np.float32) * np.float32(1 / 255))[..., None]
    below[...] = (below + alpha * (colour.astype(np.float32) - below)).astype(np.uint8)


@dataclass
class Look:
    """How an object's surface is made: drawn once, so that repeats of it resemble each other."""

    near: np.ndarray
    spread: float
    relief: float
    gradient: float
    gloss: float
    rim: float
    soft: float

    @staticmethod
    def random(rng: Rng, around: np.ndarray | None = None) -> Look:
        """Any surface; with ``around`` ``(3,)`` one that is barely told from that colour."""
        near = textures.random_colour(rng)
        if around is not None:
            near = np.clip(around + rng.normal(0, rng.uniform(6, 25)) + rng.normal(0, 8, 3), 0, 255)
        return Look(
            near,
            float(rng.choice([2.0, 8.0, 18.0, 35.0, 60.0], p=[0.15, 0.3, 0.3, 0.15, 0.1])),
            relief=float(rng.uniform(0.2, 1.0)) if rng.random() < 0.4 else 0.0,
            gradient=float(rng.uniform(0, 50)) if rng.random() < 0.6 else 0.0,
            gloss=float(rng.uniform(40, 160)) if rng.random() < 0.2 else 0.0,
            rim=float(rng.normal(0, 50)) if rng.random() < 0.25 else 0.0,
            soft=float(rng.choice([0.0, 0.6, 1.2, 2.5], p=[0.6, 0.2, 0.12, 0.08])),
        )

    def surface(self, rng: Rng, cover: np.ndarray, photos: tuple[np.ndarray, ...]) -> np.ndarray:
        """``(h, w, 3)`` u8 surface of an object of coverage ``cover``: texture, then light."""
        h, w = cover.shape
        colour = textures.texture(rng, h, w, self.near, self.spread, photos)
        if not (self.relief or self.gradient or self.gloss or self.rim):
            return colour
        light = np.zeros((h, w), np.float32)
        turn = rng.uniform(0, 2 * np.pi)
        if self.gradient:
            x, y = np.linspace(-1, 1, w, dtype=np.float32), np.linspace(-1, 1, h, dtype=np.float32)
            light += self.gradient * (np.cos(turn) * x + np.sin(turn) * y[:, None])
        if self.relief or self.rim or self.gloss:
            light += self._relief(cover, turn)
        return np.clip(colour + light[..., None], 0, 255).astype(np.uint8)

    def _relief(self, cover: np.ndarray, turn: float) -> np.ndarray:
        depth = cv2.distanceTransform((cover > 127).astype(np.uint8), cv2.DIST_L2, 3)
        peak = float(depth.max()) + 1e-3
        light = np.zeros(cover.shape, np.float32)
        if self.rim:
            light += self.rim * np.exp(-depth / max(1.0, 0.12 * peak))
        if self.relief or self.gloss:
            height = cv2.blur(np.sqrt(depth * (2 * peak - depth)), (3, 3))
            slope = np.cos(turn) * cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=0.125)
            slope += np.sin(turn) * cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=0.125)
            light += 45 * self.relief * np.clip(slope, -1.5, 1.5)
            light += self.gloss * np.exp(-((slope - 0.5) ** 2) / 0.02) * (height > 0.5 * peak)
        return light


def soften(cover: np.ndarray, sigma: float) -> np.ndarray:
    """Coverage with an out-of-focus edge of ``sigma`` pixels; the half-way line stays put."""
    return cv2.GaussianBlur(cover, (0, 0), sigma) if sigma > 0.3 else cover


def shadow(canvas: Canvas, at: tuple[int, int, int, int], cover: np.ndarray, rng: Rng) -> None:
    """Darkens the picture beside an object that is to be painted at ``at``."""
    x, y, h, w = at
    dx, dy = (int(v) for v in rng.integers(-6, 7, 2))
    x0, y0 = max(0, x + dx), max(0, y + dy)
    x1, y1 = min(SIZE, x + dx + w), min(SIZE, y + dy + h)
    if x1 - x0 < 3 or y1 - y0 < 3:
        return
    part = cover[y0 - y - dy : y1 - y - dy, x0 - x - dx : x1 - x - dx]
    dark = soften(part, float(rng.uniform(1, 5))).astype(np.float32) * (rng.uniform(0.2, 0.7) / 255)
    view = canvas.image[y0:y1, x0:x1]
    view[...] = (view * (1 - dark)[..., None]).astype(np.uint8)


def place(points: np.ndarray, x: float, y: float, radius: float) -> np.ndarray:
    """A unit outline moved to ``(x, y)`` with ``radius`` pixels."""
    return points * radius + [x, y]


def window_of(rings: list[np.ndarray]) -> tuple[int, int, int, int] | None:
    """The window of the canvas that the rings touch."""
    return shapes.window(rings, SIZE, margin=4)
