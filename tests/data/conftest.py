from pathlib import Path

import numpy as np
import pytest
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


@pytest.fixture
def make_pairs(tmp_path):
    """Writes image and mask pairs and gives the root: make_pairs(stems, images=, masks=, mask=)."""

    def make(stems, images="images", masks="masks", mask=None, size=(12, 16), root=tmp_path):
        for i, stem in enumerate(stems):
            save(root / images / f"{stem}.png", picture(*size, seed=i))
            save(root / masks / f"{stem}.png", blob(*size) if mask is None else mask)
        return root

    return make


@pytest.fixture
def save_image():
    return save


@pytest.fixture
def make_picture():
    return picture


@pytest.fixture
def make_blob():
    return blob
