"""Images with masks that need no files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image


def write_pictures(folder: Path, count: int, side: int) -> None:
    """Writes smooth images as JPEG, and the bright parts of each as its mask."""
    rng, coarse = np.random.default_rng(0), max(2, side // 16)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for i in range(count):
        image = cv2.resize(rng.random((coarse, coarse, 3), np.float32), (side, side))
        Image.fromarray((255 * image).astype(np.uint8)).save(folder / "images" / f"{i}.jpg")
        mask = (255 * (image[..., 0] > 0.6)).astype(np.uint8)
        Image.fromarray(mask).save(folder / "masks" / f"{i}.png")
