"""Miniature pictures and masks that tests of data write."""

from pathlib import Path

import numpy as np
from PIL import Image


def save(path: Path, array: np.ndarray, mode: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path)
    return path


def picture(h: int = 12, w: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), np.uint8)


def blob(h: int = 12, w: int = 16, value: int = 255) -> np.ndarray:
    mask = np.zeros((h, w), np.uint8)
    mask[3:8, 4:11] = value
    return mask
