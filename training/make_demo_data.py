"""Copies a few CC0 images of nuclei into the package, as the demo's data set.

    python training/make_demo_data.py --source FOLDER_WITH_images_AND_masks

Source: Data Science Bowl 2018, stage 1 (BBBC038v1, Broad Bioimage Benchmark Collection, CC0).
Images are kept pixel for pixel: the alpha channel, which is opaque, is dropped, and grey images are
stored as grey. Masks are label maps: 0 is background, 1 to N are nuclei.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

COUNTS = {"train": 12, "val": 4, "test": 8}
OUT = Path(__file__).parent.parent / "src" / "samtune" / "assets" / "nuclei"


def kind(image: np.ndarray) -> str | None:
    """Fluorescence or stained tissue, by brightness and colour; None for what is left out."""
    grey = bool((image.max(-1).astype(int) - image.min(-1) <= 2).all())
    if grey and image.mean() < 60:
        return "fluorescence"
    return "tissue" if not grey and image.mean() > 100 else None


def main() -> None:
    """Chooses by hash of the name, two thirds fluorescence and one third stained tissue."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True)
    source = parser.parse_args().source
    paths = sorted(source.glob("images/*.png"), key=_digest)
    by_kind: dict[str, list[Path]] = {"fluorescence": [], "tissue": []}
    for path in paths:
        image = np.asarray(Image.open(path).convert("RGB"))
        objects = np.asarray(Image.open(source / "masks" / path.name)).max()
        found = kind(image)
        if found is not None and max(image.shape) <= 320 and objects >= 5:
            by_kind[found].append(path)
    for split, count in COUNTS.items():
        chosen = [by_kind["tissue"].pop(0) for _ in range(count // 3)]
        chosen += [by_kind["fluorescence"].pop(0) for _ in range(count - len(chosen))]
        for path in chosen:
            copy(path, source / "masks" / path.name, split)


def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.name.encode()).digest()


def copy(image: Path, mask: Path, split: str) -> None:
    """Writes one pair under a short name."""
    pixels = np.asarray(Image.open(image).convert("RGB"))
    if (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    labels = np.asarray(Image.open(mask)).astype(np.uint16)
    for folder, array in (("images", pixels), ("masks", labels)):
        path = OUT / folder / split / f"{image.stem[:12]}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path, optimize=True)


if __name__ == "__main__":
    main()
