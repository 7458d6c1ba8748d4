"""A step of training with the encoder's outputs kept, against one that encodes, as ratios.

    python benchmarks/feature_cache.py [--bases nano vit_b] [--rounds 3] [--device cpu]
        [--precision fp32] [--threads 1]

Baseline: the same step of the same model without a cache. Both take turns in one process, on one
batch of two images with one and three box prompts at the base's native size, after a warm-up; the
median of the rounds. ViT-B has random weights. The look-up, which hashes the pixels and copies what
is kept, is part of the step, and stands alone as well.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from vit_b_step import batch, official_file

import samtune
from samtune.batch import Batch
from samtune.losses import Loss
from samtune.model.feature_cache import FeatureCache, Streams
from samtune.sam.model import Sam
from samtune.training.objective import Objective

METHODS = (("none", "tuned"), ("none", "hq"), ("ts_sam_detached", "fusion"))
COLUMNS = (
    "base", "method", "uncached s (least to most)", "cached s (least to most)", "cached / uncached",
    "look-up s", "MB an image",
)  # fmt: skip


def base_of(name: str, device: str) -> Sam:
    """A base: nano as it ships, ViT-B with random weights."""
    if name == "nano":
        return samtune.load_sam(name, device=device)
    with tempfile.TemporaryDirectory() as folder:
        return samtune.load_sam(name, official_file(Path(folder)), device=device)


def timed(call: Callable[[], object], device: str) -> float:
    """Seconds that a call takes, the device's work included."""
    start = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def encoded(pixels: torch.Tensor) -> Streams:
    """In place of the encoder, where everything must be kept."""
    raise AssertionError("an image is not kept")


def compare(
    sam: Sam, adapter: str, decoder: str, whole: Batch, precision: str, rounds: int, device: str
) -> list[str]:
    """One row of the table."""
    torch.manual_seed(0)
    model = samtune.FineTuned(sam, adapter, decoder).to(device).train()
    objective = Objective(model, Loss.parse("bce + dice"), multimask=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    cache = FeatureCache(2**40)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            loss = objective(whole)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def look_up() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            cache.streams(model.preprocess(whole.pixels, whole.sizes), encoded)

    seconds: dict[str, list[float]] = {"uncached": [], "cached": [], "look-up": []}
    model.cache = cache
    step()  # fills the cache
    step()
    for _ in range(rounds):
        model.cache = None
        seconds["uncached"].append(timed(step, device))
        model.cache = cache
        seconds["cached"].append(timed(step, device))
        seconds["look-up"].append(timed(look_up, device))
    middle = {key: statistics.median(values) for key, values in seconds.items()}
    spread = [
        f"{middle[key]:.3g} ({min(seconds[key]):.3g} to {max(seconds[key]):.3g})"
        for key in ("uncached", "cached")
    ]
    ratio = middle["cached"] / middle["uncached"]
    return [
        sam.spec.name, f"`{adapter}` + `{decoder}`", *spread, f"1/{1 / ratio:.1f}",
        f"{middle['look-up']:.3g}", f"{cache.used / len(cache) / 1e6:.1f}",
    ]  # fmt: skip


def main(words: Sequence[str] | None = None) -> None:
    """Prints the table, a row as soon as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bases", nargs="+", default=["nano", "vit_b"], choices=("nano", "vit_b"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--threads", type=int, default=1)
    o = parser.parse_args(words)
    torch.set_num_threads(o.threads)
    print(
        f"{o.device} ({platform.machine()}), {o.threads} threads, torch {torch.__version__}, "
        f"{o.precision}, {o.rounds} rounds\n"
    )
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    for name in o.bases:
        sam = base_of(name, o.device)
        whole = batch((1, 3), sam.spec.image_size).to(o.device)
        for adapter, decoder in METHODS:
            row = compare(sam, adapter, decoder, whole, o.precision, o.rounds, o.device)
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
