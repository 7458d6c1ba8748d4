"""CPU time of an example from a photograph of 12 megapixels, without and with ``data.disk_cache``.

    python -m benchmarks.disk_cache [--images 6] [--rounds 3]

JPEG files with PNG masks, a frame of 1024 pixels, one thread, nothing cached in memory.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from benchmarks.tables import table
from samtune.data import DataConfig, SegmentationDataset, find_records

SIZE, FRAME = (3000, 4000), (1024, 1024)
CASES = {"evaluation": "", "training, none": "none", "training, flips": "flips",
         "training, standard": "standard"}  # fmt: skip
"""The augmentation of each case; none of an evaluation."""


def write_photographs(root: Path, count: int) -> None:
    """Writes images of soft blobs with grain, and a disc as the mask of each."""
    rng, (h, w) = np.random.default_rng(0), SIZE
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (h // 10, w // 10, 3), np.uint8))
        soft = np.asarray(coarse.resize((w, h), Image.Resampling.BICUBIC)).astype(np.int16)
        grainy = (soft + rng.integers(-8, 9, (h, w, 1), np.int16)).clip(0, 255).astype(np.uint8)
        Image.fromarray(grainy).save(root / "images" / f"{i}.jpg", quality=92)
        mask = np.zeros(SIZE, np.uint8)
        cv2.circle(mask, (w // 2, h // 2), 700 + 50 * i, 255, -1)
        Image.fromarray(mask).save(root / "masks" / f"{i}.png")


def seconds_of(dataset: SegmentationDataset, rounds: int) -> float:
    """CPU seconds of an example, the median of rounds after a first one."""
    values = []
    for _ in range(rounds + 1):
        start = time.process_time()
        for i in range(len(dataset)):
            dataset[i]
        values.append((time.process_time() - start) / len(dataset))
    return statistics.median(values[1:])


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "photographs"
        write_photographs(root, options.images)
        for case, augment in CASES.items():
            ms, store = [], Path(folder) / "store" / case
            for disk in (0, "5GB"):
                data = DataConfig(
                    cache=0, augment=augment or "none", disk_cache=disk, cache_folder=str(store)
                )
                dataset = SegmentationDataset(find_records(root), data, FRAME, train=bool(augment))
                dataset = dataset if augment else dataset.with_object_maps()
                ms.append(f"{1e3 * seconds_of(dataset, options.rounds):.0f} ms")
            size = sum(file.stat().st_size for file in store.rglob("*.safetensors"))
            rows.append((case, *ms, f"{size / options.images / 1e6:.1f} MB"))
    print(table(("case", "without", "with", "on disk"), rows))


if __name__ == "__main__":
    main()
