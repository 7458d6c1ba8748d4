"""Peak memory of a prediction on rasters of several sizes, each in a process of its own.

python benchmarks/large_raster.py FOLDER 5000 10000 30000
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

BLOCK = 512
SCALE = 0.125
"""Pixels of the frame per pixel of the raster, so that a tile is 2048 pixels wide."""


def make(path: Path, side: int) -> None:
    """Writes a square GeoTIFF of drawn fields, block by block."""
    import rasterio
    from rasterio.transform import from_origin

    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=3, dtype="uint8",
        crs="EPSG:32633", transform=from_origin(5e5, 5e6, 0.2, 0.2), tiled=True,
        blockxsize=BLOCK, blockysize=BLOCK, compress="lzw", bigtiff="if_safer",
    ) as file:  # fmt: skip
        rng = np.random.default_rng(0)
        blocks = [np.full((3, BLOCK, BLOCK), rng.integers(40, 220, (3, 1, 1)), np.uint8)
                  for _ in range(16)]  # fmt: skip
        for block in blocks:
            y, x = rng.integers(0, BLOCK - 200, 2)
            block[:, y : y + 200, x : x + 200] = rng.integers(0, 255, (3, 1, 1))
        for y in range(0, side, BLOCK):
            for x in range(0, side, BLOCK):
                h, w = min(BLOCK, side - y), min(BLOCK, side - x)
                block = blocks[int(rng.integers(len(blocks)))][:, :h, :w]
                file.write(block, window=((y, y + h), (x, x + w)))


def measure(folder: Path, side: int) -> None:
    """Predicts on a raster, and prints a line of JSON."""
    import samtune
    from samtune.inference import folder as inference

    source = folder / f"{side}.tif"
    model = samtune.FineTuned(samtune.load_sam("nano"), "none", "tuned", prompts="none")
    model.input = replace(model.input, tiles="tiled", scale=SCALE)
    predictor = model.predictor()
    predictor.set_image(np.zeros((256, 256, 3), np.uint8))
    predictor.predict(multimask_output=False)
    inference.LARGE = 0
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer = inference.predict_folder(
        predictor, source, folder / f"out-{side}", formats=["geotiff"]
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = time.perf_counter() - start
    print(json.dumps({
        "side": side, "images": answer["images"], "seconds": round(seconds),
        "before_mib": before >> 10, "peak_mib": peak >> 10,
    }))  # fmt: skip


def main() -> None:
    """Measures each size after another."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    if sys.argv[2] == "measure":
        measure(folder, int(sys.argv[3]))
        return
    for side in map(int, sys.argv[2:]):
        if not (folder / f"{side}.tif").exists():
            make(folder / f"{side}.tif", side)
        command = [sys.executable, __file__, str(folder), "measure", str(side)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
