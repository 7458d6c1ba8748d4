"""What lies between the world and the file: light, optics, sensor, compression, overlays."""

from __future__ import annotations

import cv2
import numpy as np
import shapes
import textures
from canvas import SIZE, Canvas
from textures import Rng


def photograph(canvas: Canvas, rng: Rng) -> None:
    """Degrades the canvas in place, each step by chance; labels go where a border hides them."""
    image = canvas.image.astype(np.float32)
    if rng.random() < 0.3:
        image *= np.clip(1 + rng.uniform(0.05, 0.35) * textures.smooth(rng, SIZE, SIZE), 0.1, 2)[
            ..., None
        ]
    if rng.random() < 0.2:
        image = _faded(image, rng)
    if rng.random() < 0.35:
        image = cv2.GaussianBlur(
            image, (0, 0), float(np.exp(rng.uniform(np.log(0.4), np.log(2.2))))
        )
    if rng.random() < 0.15:
        image *= _vignette(rng)[..., None]
    if rng.random() < 0.3:
        image = 255 * np.clip(image / 255, 0, 1) ** np.float32(np.exp(rng.normal(0, 0.35)))
    if rng.random() < 0.12:
        image = image[..., rng.permutation(3)]
    if rng.random() < 0.22:
        image = np.repeat(image @ np.float32([0.299, 0.587, 0.114])[:, None], 3, axis=2)
    if rng.random() < 0.06:
        image = 255 - image
    if rng.random() < 0.4:
        image = _noisy(image, rng)
    picture = np.clip(image, 0, 255).astype(np.uint8)
    if rng.random() < 0.15:
        picture = _resampled(picture, rng)
    if rng.random() < 0.3:
        quality = int(rng.integers(25, 92))
        picture = cv2.imdecode(
            cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1
        )
    canvas.image[...] = picture
    if rng.random() < 0.06:
        _black_frame(canvas, rng)


def underexposed(rng: Rng, image: np.ndarray) -> np.ndarray:
    """``image`` u8 with a sixteenth to six tenths of its light, as dim fluorescence is stored."""
    gain = np.exp(rng.uniform(np.log(0.06), np.log(0.6)))
    return (image * np.float32(gain)).astype(np.uint8)


def _faded(image: np.ndarray, rng: Rng) -> np.ndarray:
    """Low contrast, anywhere on the scale."""
    share = rng.uniform(0.25, 0.75)
    return image * np.float32(share) + np.float32(rng.uniform(0, 255 * (1 - share)))


def _vignette(rng: Rng) -> np.ndarray:
    axis = np.linspace(-1, 1, SIZE, dtype=np.float32)
    radius = (axis - rng.uniform(-0.3, 0.3)) ** 2 + ((axis - rng.uniform(-0.3, 0.3)) ** 2)[:, None]
    return np.clip(1 - np.float32(rng.uniform(0.1, 0.6)) * radius, 0, 1)


def _noisy(image: np.ndarray, rng: Rng) -> np.ndarray:
    size = np.float32(np.exp(rng.uniform(np.log(1), np.log(22))))
    channels = 3 if rng.random() < 0.5 else 1
    noise = rng.standard_normal((SIZE, SIZE, channels), np.float32)
    if rng.random() < 0.3:
        noise = 2 * cv2.blur(noise, (2, 2)).reshape(SIZE, SIZE, channels)
    if rng.random() < 0.4:
        noise = noise * np.sqrt(np.clip(image, 4, 255) / 128)
    return image + size * noise


def _resampled(picture: np.ndarray, rng: Rng) -> np.ndarray:
    """Small and back: the look of an enlarged file."""
    small = int(SIZE * rng.uniform(0.35, 0.85))
    shrunk = cv2.resize(picture, (small, small), interpolation=cv2.INTER_AREA)
    back = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST)[rng.choice(3, p=[0.5, 0.4, 0.1])]
    return cv2.resize(shrunk, (SIZE, SIZE), interpolation=back)


def _black_frame(canvas: Canvas, rng: Rng) -> None:
    """A scope's round or cut-off field of view, with an inset; hidden pixels lose their labels."""
    if rng.random() < 0.5:
        radius, centre = rng.uniform(0.5, 0.68) * SIZE, rng.uniform(0.45, 0.55, 2) * SIZE
        t = np.linspace(0, 2 * np.pi, 9 if rng.random() < 0.5 else 80)
        ring = np.stack([np.cos(t), np.sin(t)], 1) * radius + centre
    else:
        x0, y0, x1, y1 = rng.uniform(0, 0.12, 4) * SIZE
        ring = np.array([[x0, y0], [SIZE - x1, y0], [SIZE - x1, SIZE - y1], [x0, SIZE - y1]])
    view = shapes.fill([ring], 0, 0, SIZE, SIZE) > 127
    canvas.image[~view] = rng.integers(0, 12)
    canvas.labels[:, ~view] = 0
    if rng.random() < 0.4:
        h, w = rng.integers(30, 80, 2)
        canvas.image[-h:, :w] = rng.integers(0, 60, 3)
        canvas.labels[:, -h:, :w] = 0
