"""Contours for the procedural scenes: closed curves around the origin, of unit radius."""

from __future__ import annotations

import cv2
import numpy as np
from textures import Rng

SUBPIXEL = 4


def ellipse(rng: Rng) -> np.ndarray:
    """``(64, 2)`` superellipse; exponent 2 (an ellipse) half of the time."""
    t = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    power = 1.0 if rng.random() < 0.5 else rng.uniform(0.4, 1.3)
    aspect = np.exp(rng.normal(0, 0.35))
    cos, sin = np.cos(t), np.sin(t)
    x, y = np.sign(cos) * np.abs(cos) ** power, np.sign(sin) * np.abs(sin) ** power
    return turned(rng, np.stack([x * aspect, y / aspect], 1))


def blob(rng: Rng, roughness: float | None = None) -> np.ndarray:
    """``(96, 2)`` curve from random Fourier radii: pebbles, leaves, coasts."""
    t = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    rough = float(np.exp(rng.uniform(-3.0, -0.5))) if roughness is None else roughness
    orders = np.arange(2, 16)
    size = rough * orders ** -rng.uniform(0.8, 2.0) * 2
    phase = rng.uniform(0, 2 * np.pi, len(orders))
    waves = (rng.standard_normal(len(orders)) * size)[:, None] * np.cos(
        orders[:, None] * t + phase[:, None]
    )
    radius = np.clip(1 + waves.sum(0), 0.15, 2.5)
    aspect = np.exp(rng.normal(0, 0.3))
    return turned(rng, np.stack([radius * np.cos(t) * aspect, radius * np.sin(t) / aspect], 1))


def bean(rng: Rng) -> np.ndarray:
    """An ellipse bent along its long axis."""
    points = ellipse(rng) * [1.3, rng.uniform(0.35, 0.8)]
    points[:, 1] += rng.uniform(-0.7, 0.7) * (points[:, 0] ** 2 - 0.5)
    return turned(rng, points)


def polygon(rng: Rng) -> np.ndarray:
    """Convex, or star-shaped with jagged radii."""
    n = int(rng.integers(3, 9))
    t = np.sort(rng.uniform(0, 2 * np.pi, n))
    radius = np.ones(n) if rng.random() < 0.6 else rng.uniform(0.3, 1.2, n)
    return np.stack([radius * np.cos(t), radius * np.sin(t)], 1)


def star(rng: Rng) -> np.ndarray:
    """Regular star or gear."""
    n = int(rng.integers(4, 12))
    t = np.linspace(0, 2 * np.pi, 2 * n, endpoint=False)
    radius = np.where(np.arange(2 * n) % 2 == 0, 1.0, rng.uniform(0.3, 0.85))
    return turned(rng, np.stack([radius * np.cos(t), radius * np.sin(t)], 1))


def rectangle(rng: Rng) -> np.ndarray:
    """A rectangle, upright more often than turned, sometimes in perspective."""
    aspect = np.exp(rng.normal(0, 0.6))
    points = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * 0.85 * [aspect, 1 / aspect]
    if rng.random() < 0.35:
        points = points * rng.uniform(0.6, 1.1, (4, 1))
    return points if rng.random() < 0.5 else turned(rng, points)


def tube(rng: Rng, width: float | None = None) -> np.ndarray:
    """A thick smooth curve: worm, branch, road, cable."""
    knots = np.cumsum(rng.normal(0, 0.5, (5, 2)) + rng.normal(0, 0.6, 2), axis=0)
    t = np.linspace(0, 1, 40)
    basis = np.stack(
        [np.polyval(np.polyfit(np.linspace(0, 1, 5), knots[:, k], 3), t) for k in (0, 1)], 1
    )
    basis -= basis.mean(0)
    basis /= np.abs(basis).max() + 1e-6
    along = np.gradient(basis, axis=0)
    normal = np.stack([-along[:, 1], along[:, 0]], 1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-6
    thick = np.exp(rng.uniform(np.log(0.04), np.log(0.3))) if width is None else width
    taper = (1 - rng.uniform(0, 0.8) * t)[:, None] * thick
    return np.concatenate([basis + normal * taper, (basis - normal * taper)[::-1]])


def turned(rng: Rng, points: np.ndarray) -> np.ndarray:
    """The curve rotated by a random angle."""
    a = rng.uniform(0, 2 * np.pi)
    return points @ np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])


KINDS = (ellipse, blob, bean, polygon, star, rectangle, tube)
ODDS = np.array([0.2, 0.28, 0.12, 0.1, 0.05, 0.15, 0.1])


def outline(rng: Rng) -> np.ndarray:
    """``(n, 2)`` closed curve of any kind, largest coordinate 1."""
    points = KINDS[rng.choice(len(KINDS), p=ODDS)](rng)
    return points / np.abs(points).max()


def fill(rings: list[np.ndarray], x0: int, y0: int, h: int, w: int) -> np.ndarray:
    """``(h, w)`` u8 coverage of the window at ``(x0, y0)``; even-odd, antialiased, xy pixels in."""
    cover = np.zeros((h, w), np.uint8)
    offset = np.array([x0, y0])
    fixed = [np.round((ring - offset) * 2**SUBPIXEL).astype(np.int32) for ring in rings]
    cv2.fillPoly(cover, fixed, 255, cv2.LINE_AA, SUBPIXEL)
    return cover


def window(rings: list[np.ndarray], size: int, margin: int = 2) -> tuple[int, int, int, int] | None:
    """The curve's bounding window ``(x0, y0, h, w)`` inside a ``size`` square, or ``None``."""
    points = np.concatenate(rings)
    x0, y0 = np.maximum(np.floor(points.min(0)).astype(int) - margin, 0)
    x1, y1 = np.minimum(np.ceil(points.max(0)).astype(int) + margin + 1, size)
    if x1 - x0 < 3 or y1 - y0 < 3:
        return None
    return int(x0), int(y0), int(y1 - y0), int(x1 - x0)
