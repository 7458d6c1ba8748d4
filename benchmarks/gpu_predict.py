"""Images per second of ``samtune predict``, by device, precision and number of images at once.

    python benchmarks/gpu_predict.py [--base vit_b] [--images 64] [--size 1024] [--batch 1 4 16]
    python benchmarks/gpu_predict.py --dry-run

The second tries the script, in seconds on a CPU: three small images, and the base that is installed
with samtune.

It draws weights of an official size and images, as their values do not change the time, and asks
for one box per image. One image is asked before the clock starts. It prints a Markdown table, with
the fraction of mask pixels that differ from the first number of images at once.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from samtune.inference.folder import predict_folder
from samtune.model.finetuned import FineTuned
from samtune.precision import Precision
from samtune.sam.model import Sam
from samtune.sam.spec import SPECS
from samtune.sam.weights import load_sam


def model_of(base: str) -> FineTuned:
    """A model with drawn weights."""
    torch.manual_seed(0)
    if base == "nano":
        return FineTuned(load_sam(base), "lora", "tuned", prompts="box").eval()
    return FineTuned(Sam(SPECS[base]).freeze(), "lora", "tuned", prompts="box").eval()


def write_images(folder: Path, count: int, side: int) -> None:
    """Writes images of noise, which cost a reader as much as any."""
    rng = np.random.default_rng(0)
    for i in range(count):
        pixels = rng.integers(0, 256, (side // 16, side // 16, 3), np.uint8)
        image = Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)
        image.save(folder / f"{i:04}.jpg")


def seconds_of(
    model: FineTuned, folder: Path, side: int, batch: int, precision: Precision
) -> tuple[float, dict[str, np.ndarray]]:
    """Seconds for a folder, and its masks by name."""
    predictor = model.predictor(0.0, precision)
    prompt = {"boxes": [[0.2 * side, 0.2 * side, 0.8 * side, 0.8 * side]]}
    prompts = {file.name: prompt for file in sorted(folder.iterdir())}
    with tempfile.TemporaryDirectory() as out:
        began = time.perf_counter()
        predict_folder(
            predictor,
            str(folder),
            Path(out) / "masks",
            prompts=prompts,
            overlays=False,
            batch_size=batch,
        )
        if model.device.type == "cuda":
            torch.cuda.synchronize()
        spent = time.perf_counter() - began
        files = sorted(Path(out).rglob("*.png"))
        return spent, {file.name: np.array(Image.open(file)) for file in files}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="vit_b", choices=tuple(SPECS))
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--dry-run", action="store_true")
    args = parser.parse_args()
    if args.dry_run:
        args.base, args.images, args.size, args.batch = "nano", 3, 256, [1, 2]
    has_gpu = torch.cuda.is_available()
    device = "cuda" if has_gpu else "cpu"
    name = torch.cuda.get_device_name() if has_gpu else platform.machine()
    model = model_of(args.base).to(device)
    print(
        f"{args.base}, {args.images} images of {args.size} pixels, {name}, "
        f"torch {torch.__version__}\n"
    )
    print("| precision | images at once | images per second | GPU GB | pixels that differ |")
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as place:
        folder, first = Path(place, "images"), Path(place, "first")
        folder.mkdir()
        first.mkdir()
        write_images(folder, args.images, args.size)
        write_images(first, 1, args.size)
        for precision in ("fp32", "bf16") if has_gpu else ("fp32",):
            seconds_of(model, first, args.size, 1, precision)
            alone: dict[str, np.ndarray] = {}
            for batch in args.batch:
                if has_gpu:
                    torch.cuda.reset_peak_memory_stats()
                spent, masks = seconds_of(model, folder, args.size, batch, precision)
                alone = alone or masks
                apart = np.mean([(masks[key] != alone[key]).mean() for key in masks])
                memory = torch.cuda.max_memory_allocated() / 1e9 if has_gpu else 0.0
                print(
                    f"| {precision} | {batch} | {args.images / spent:.2f} | {memory:.2f} | "
                    f"{apart:.2e} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
