"""Surfaces for the procedural scenes: noise of many spectra, stripes, checks, cells, photographs.

All fields come from a bank of periodic 512-pixel noise images, made once per process from a fixed
seed. A surface is a crop of one of them under a random similarity, so it costs a warp, not an FFT.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

BANK = 512
Rng = np.random.Generator


@lru_cache(maxsize=1)
def noise_bank() -> np.ndarray:
    """``(M, 512, 512)`` u8 periodic fields: power laws, bands, fibres, ridges, cells, grains."""
    rng = np.random.default_rng(20_240)
    frequency = np.fft.fftfreq(BANK)[:, None], np.fft.rfftfreq(BANK)[None]
    radius = np.hypot(*frequency) + 1e-6
    fields = []
    for beta in (0.6, 0.9, 1.2, 1.5, 1.8, 2.1, 2.5, 3.0):
        fields += [_filtered(rng, radius**-beta) for _ in range(2)]
    for centre in (0.02, 0.035, 0.06, 0.1, 0.16):
        fields.append(_filtered(rng, np.exp(-(((radius - centre) / (0.3 * centre)) ** 2))))
    for stretch in (3.0, 6.0, 12.0):
        long = np.hypot(frequency[0] * stretch, frequency[1]) + 1e-6
        fields += [_filtered(rng, long**-1.4), _filtered(rng, long**-2.2)]
    fields += [-np.abs(_filtered(rng, radius**-b)) for b in (1.4, 1.8, 2.2, 2.8)]
    fields += [np.abs(_filtered(rng, radius**-b)) for b in (1.3, 1.7, 2.4)]
    for count in (40, 120, 300):
        fields += _cells(rng, count)
    fields += [_grains(rng, n, r) for n, r in ((900, 3), (300, 6), (120, 12), (3000, 2))]
    return np.stack([_equalised(f) for f in fields])


def _filtered(rng: Rng, gain: np.ndarray) -> np.ndarray:
    gain = gain.copy()
    gain[0, 0] = 0
    return np.fft.irfft2(np.fft.rfft2(rng.standard_normal((BANK, BANK))) * gain)


def _cells(rng: Rng, count: int) -> list[np.ndarray]:
    """Of a periodic Voronoi diagram: the distance to the nearest seed, and that to the edges."""
    axis = np.arange(BANK, dtype=np.float32)
    first = np.full((BANK, BANK), np.inf, np.float32)
    second = first.copy()
    for x, y in rng.uniform(0, BANK, (count, 2)).astype(np.float32):
        dx, dy = np.abs(axis - x), np.abs(axis - y)
        distance = np.minimum(dx, BANK - dx) ** 2 + np.minimum(dy, BANK - dy)[:, None] ** 2
        np.minimum(second, np.maximum(first, distance), out=second)
        np.minimum(first, distance, out=first)
    first, second = np.sqrt(first), np.sqrt(second)
    return [-first, second - first]


def _grains(rng: Rng, count: int, radius: int) -> np.ndarray:
    grains = np.zeros((BANK, BANK), np.float32)
    for x, y in rng.integers(0, BANK, (count, 2)):
        size = max(1, int(radius * rng.uniform(0.5, 1.5)))
        cv2.circle(grains, (int(x), int(y)), size, float(rng.uniform(0.3, 1)), -1, cv2.LINE_AA)
    return grains + 0.05 * rng.standard_normal((BANK, BANK))


def _equalised(field: np.ndarray) -> np.ndarray:
    """Clips to three deviations: keeps the shape of the histogram, unlike rank equalisation."""
    field = (field - field.mean()) / (field.std() + 1e-9)
    return np.clip(127.5 + 42 * field, 0, 255).astype(np.uint8)


def field(rng: Rng, h: int, w: int, zoom: tuple[float, float] = (0.25, 2.5)) -> np.ndarray:
    """``(h, w)`` u8 crop of a bank field under a random rotation and a log-uniform zoom."""
    bank = noise_bank()
    return _crop(rng, bank[rng.integers(len(bank))], h, w, zoom)


def smooth(rng: Rng, h: int, w: int) -> np.ndarray:
    """``(h, w)`` float32 slow variation of zero mean and unit size: illumination, thickness."""
    coarse = rng.standard_normal((int(rng.integers(2, 5)), int(rng.integers(2, 5))))
    big = cv2.resize(coarse.astype(np.float32), (w, h), interpolation=cv2.INTER_CUBIC)
    return (big - big.mean()) / (big.std() + 1e-6)


def _crop(rng: Rng, source: np.ndarray, h: int, w: int, zoom: tuple[float, float]) -> np.ndarray:
    scale = 1 / np.exp(rng.uniform(*np.log(zoom)))
    turn = rng.uniform(0, 2 * np.pi)
    squeeze = np.exp(rng.normal(0, 0.15))
    cos, sin = scale * np.cos(turn), scale * np.sin(turn)
    x, y = rng.uniform(0, source.shape[1]), rng.uniform(0, source.shape[0])
    matrix = np.array([[cos * squeeze, -sin, x], [sin * squeeze, cos, y]])
    mode = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(source, matrix, (w, h), flags=mode, borderMode=cv2.BORDER_REFLECT_101)


def palette(rng: Rng, near: np.ndarray | None = None, spread: float | None = None) -> np.ndarray:
    """``(256, 3)`` u8 colour ramp: around ``near`` (``(3,)`` RGB) by ``spread``, or anywhere.

    Real surfaces vary mostly in lightness, so the stops share a hue unless chance says otherwise.
    """
    if near is None:
        near = random_colour(rng)
    if spread is None:
        spread = float(rng.choice([4.0, 10.0, 20.0, 40.0, 70.0], p=[0.12, 0.28, 0.3, 0.2, 0.1]))
    stops = int(rng.integers(2, 5))
    light = np.sort(rng.normal(0, 1, (stops, 1)), axis=0)
    hue = rng.normal(0, 1, (stops, 3)) * (1.0 if rng.random() < 0.12 else 0.25)
    colours = np.clip(near + spread * (light + hue), 0, 255)
    at = np.linspace(0, 1, stops)
    ramp = [np.interp(np.linspace(0, 1, 256), at, colours[:, c]) for c in range(3)]
    return np.stack(ramp, -1).astype(np.uint8)


def random_colour(rng: Rng) -> np.ndarray:
    """``(3,)`` float RGB; mostly muted, sometimes vivid, as in photographs."""
    hue, value = rng.uniform(0, 1), rng.beta(1.6, 1.6)
    saturation = rng.beta(1.2, 2.8) if rng.random() < 0.75 else rng.beta(3, 1.5)
    wheel = np.clip(np.abs((hue * 6 + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    return 255 * value * (1 - saturation + saturation * wheel)


def _stripes(rng: Rng, h: int, w: int) -> np.ndarray:
    turn, period = rng.uniform(0, np.pi), np.exp(rng.uniform(np.log(3), np.log(40)))
    x, y = np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32)[:, None]
    phase = (np.cos(turn) * x + np.sin(turn) * y) / period + rng.random()
    wobble = rng.choice([0.0, 0.3, 1.0]) * smooth(rng, h, w)
    wave = np.sin(2 * np.pi * phase + wobble)
    if rng.random() < 0.35:
        across = (np.cos(turn) * y - np.sin(turn) * x) / period
        wave = wave * np.sin(2 * np.pi * across + wobble)
    return np.clip(127 + 127 * wave * rng.choice([1.0, 1.0, 8.0]), 0, 255).astype(np.uint8)


def grey_texture(rng: Rng, h: int, w: int) -> np.ndarray:
    """``(h, w)`` u8 pattern of any kind, not yet coloured."""
    kind = rng.random()
    if kind < 0.12:
        return _stripes(rng, h, w)
    if kind < 0.24:
        steep = np.clip(127 + rng.uniform(20, 60) * smooth(rng, h, w), 0, 255)
        return steep.astype(np.uint8)
    first = field(rng, h, w)
    if kind < 0.55:
        return first
    if kind < 0.68:
        cut, soft = rng.integers(90, 165), float(rng.choice([2, 6, 20]))
        return np.clip((first.astype(np.float32) - cut) * (127 / soft) + 127, 0, 255).astype(
            np.uint8
        )
    share = float(rng.uniform(0.3, 0.8))
    return cv2.addWeighted(first, share, field(rng, h, w, (0.15, 1.0)), 1 - share, 0)


def texture(
    rng: Rng,
    h: int,
    w: int,
    near: np.ndarray | None = None,
    spread: float | None = None,
    photos: tuple[np.ndarray, ...] = (),
) -> np.ndarray:
    """``(h, w, 3)`` u8 surface; ``photos`` are RGB images that may lend their surfaces."""
    if photos and rng.random() < 0.35:
        crop = _crop(rng, photos[rng.integers(len(photos))], h, w, (0.3, 2.0))
        if near is None:
            return crop
        mean = crop.reshape(-1, 3).mean(0)
        gain = rng.uniform(0.3, 1.0)
        shifted = (crop - mean) * np.float32(gain) + near.astype(np.float32)
        return np.clip(shifted, 0, 255).astype(np.uint8)
    return palette(rng, near, spread)[grey_texture(rng, h, w)]
