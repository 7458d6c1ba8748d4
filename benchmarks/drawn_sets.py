"""Two data sets that need no files: scenes of the project's own generator, and thin vessels.

    python benchmarks/drawn_sets.py scenes FOLDER
    python benchmarks/drawn_sets.py vessels FOLDER

Both are written as split folders of images and masks, and are the same on every machine. What is
there already is left as it is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from vessels import picture

COUNTS = {
    "scenes": {"train": 256, "val": 16, "test": 40},
    "vessels": {"train": 64, "val": 8, "test": 24},
}
"""Images in each split."""
STREAM = 2_000_003
"""Names the stream of scenes; nano's training and its validation use others."""
Picture = tuple[np.ndarray, np.ndarray]


def scene(index: int) -> Picture:
    """A scene ``(256, 256, 3)`` and its objects as an instance map ``(256, 256)`` uint16."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
    from scenes import WHOLE
    from scenes import scene as draw

    drawn = draw(STREAM, index)
    _, numbers = np.unique(drawn.labels[WHOLE], return_inverse=True)
    return drawn.image, numbers.reshape(drawn.image.shape[:2]).astype(np.uint16)


DRAWN: dict[str, Callable[[int], Picture]] = {"scenes": scene, "vessels": picture}


def write(name: str, folder: Path) -> Path:
    """Writes a drawn set into ``folder``, unless it is there; gives the folder."""
    first = 0
    for split, count in COUNTS[name].items():
        for kind in ("images", "masks"):
            (folder / split / kind).mkdir(parents=True, exist_ok=True)
        for index in range(first, first + count):
            paths = [folder / split / kind / f"{index:04d}.png" for kind in ("images", "masks")]
            if not all(path.is_file() for path in paths):
                for path, pixels in zip(paths, DRAWN[name](index), strict=True):
                    Image.fromarray(pixels).save(path)
        first += count
    return folder


def main() -> None:
    """Writes one set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=DRAWN)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    print(write(args.name, args.folder))


if __name__ == "__main__":
    main()
