"""Plain scenes: objects that differ from their background in brightness or colour; exact masks.

What nano learns first. From richly textured scenes it takes hours until masks follow the picture at
all; from these it takes minutes.
"""

from __future__ import annotations

import cv2
import numpy as np

CORNERS = 48


def outline(rng: np.random.Generator, centre: np.ndarray, radius: float) -> np.ndarray:
    """``(CORNERS, 2)`` xy of a closed smooth contour: a superellipse, or a lobed circle."""
    angle = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    if rng.random() < 0.6:
        stretch = np.exp(rng.normal(0, 0.3))
        power = 2.0 if rng.random() < 0.7 else np.exp(rng.uniform(0.4, 1.6))
        along, across = np.cos(angle), np.sin(angle)
        u = np.sign(along) * np.abs(along) ** (2 / power) * radius * stretch
        v = np.sign(across) * np.abs(across) ** (2 / power) * radius / stretch
    else:
        order = np.arange(2, 6)[:, None]
        phase, size = rng.uniform(0, 2 * np.pi, (4, 1)), rng.normal(0, 0.3, (4, 1)) / order
        length = 1 + (size * np.cos(order * angle + phase)).sum(0)
        u, v = radius * length * np.cos(angle), radius * length * np.sin(angle)
    turn = rng.uniform(0, np.pi)
    turned = np.stack([u * np.cos(turn) - v * np.sin(turn), u * np.sin(turn) + v * np.cos(turn)], 1)
    return centre + turned


def field(rng: np.random.Generator, size: int, scale: float) -> np.ndarray:
    """``(size, size, 1)`` smooth noise of unit spread whose features are ``scale`` pixels wide."""
    coarse = rng.normal(0, 1, (max(2, int(size / scale)),) * 2).astype(np.float32)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)[..., None]


def tint(rng: np.random.Generator, spread: float, colour: bool) -> np.ndarray:
    """``(3,)`` a random colour, or a random grey."""
    return rng.normal(0, spread, 3) if colour else np.repeat(rng.normal(0, spread), 3)


def plain_scene(
    rng: np.random.Generator, size: int, faint: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """A picture ``(size, size, 3)`` u8 and its label map ``(size, size)`` int32, 0 background.

    Args:
        rng: What is drawn from.
        size: Side in pixels.
        faint: Chance of objects that hardly differ from their background: there a box says more
            than the picture does, and the best answer is the likely shape that fills it.
    """
    colour, many = rng.random() < 0.6, rng.random() < 0.55
    base = rng.uniform(0.0, 0.9) + tint(rng, 0.12, colour)
    picture = base + field(rng, size, size * rng.uniform(0.2, 1)) * rng.uniform(0, 0.08)
    if rng.random() < 0.5:
        picture = picture + field(rng, size, rng.uniform(2, 12)) * rng.uniform(0, 0.08)
    labels = np.zeros((size, size), np.int32)
    count = int(rng.integers(6, 30)) if many else int(rng.integers(1, 6))
    low, high = (0.03, 0.09) if many else (0.08, 0.4)
    radius = size * np.exp(rng.uniform(np.log(low), np.log(high)))
    alike, kind = many or rng.random() < 0.3, tint(rng, 0.25, colour)
    fades = rng.random() < faint
    for number in range(1, count + 1):
        own = radius * np.exp(rng.normal(0, 0.3))
        inside = _filled(outline(rng, rng.uniform(0, size, 2), own), size)
        labels[inside] = number
        differs = _visible(kind if alike else tint(rng, 0.25, colour)) * rng.uniform(0.7, 1.3)
        shade = field(rng, size, max(4.0, own)) * rng.uniform(0, 0.06)
        if fades:
            picture = picture + _soft(rng, inside, own) * (differs * rng.uniform(0.2, 0.6) + shade)
        else:
            picture = np.where(inside[..., None], base + differs + shade, picture)
    if fades and rng.random() < 0.5:
        picture = picture + _glints(rng, size)
    return _photographed(rng, picture), labels


def _soft(rng: np.random.Generator, inside: np.ndarray, radius: float) -> np.ndarray:
    """``(size, size, 1)`` how much of an object is seen: its outline fades over a few pixels."""
    sigma = max(0.6, radius * rng.uniform(0.02, 0.25))
    return cv2.GaussianBlur(inside.astype(np.float32), (0, 0), sigma)[..., None]


def _glints(rng: np.random.Generator, size: int) -> np.ndarray:
    """``(size, size, 1)`` small bright reflections that keep to no object."""
    mask = np.zeros((size, size), np.float32)
    for _ in range(int(rng.integers(1, 12))):
        own = size * np.exp(rng.uniform(np.log(0.005), np.log(0.03)))
        mask += _filled(outline(rng, rng.uniform(0, size, 2), own), size)
    blurred = cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.5, 2))
    return np.minimum(blurred, 1)[..., None] * rng.uniform(0.2, 0.8)


def _filled(contour: np.ndarray, size: int) -> np.ndarray:
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [np.round(contour * 16).astype(np.int32)], 1, shift=4)
    return mask > 0


def _visible(difference: np.ndarray) -> np.ndarray:
    """Moves a difference of colour away from nothing."""
    if np.abs(difference).mean() >= 0.08:
        return difference
    return difference + (0.12 if difference.mean() >= 0 else -0.12)


def _photographed(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    size = picture.shape[0]
    if rng.random() < 0.6:
        picture = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), rng.uniform(0.4, 1.6))
    picture = picture * (1 + field(rng, size, size * 0.7) * rng.uniform(0, 0.15))
    picture = picture + rng.normal(0, rng.uniform(0, 0.05), picture.shape)
    return (np.clip(picture, 0, 1) * 255).astype(np.uint8)
