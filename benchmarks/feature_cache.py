"""A step of training with the encoder's outputs kept, against one that encodes, as ratios.

    python benchmarks/feature_cache.py [--bases nano vit_b] [--methods none+tuned] [--prompts 1 3]
        [--rounds 3] [--device cpu] [--precision fp32] [--threads 1] [--disk] [--cached-alone]

Baseline: the same step of the same model without a cache. Both take turns in one process, on one
batch of images with so many box prompts each at the base's native size, after a warm-up; the median
of the rounds, on the CPU in seconds of the processor. ViT-B has random weights. The look-up, which
hashes the pixels and copies what is kept, is part of the step, and stands alone as well. ``late``
is LoRA in the later half of the blocks. With --disk everything is read from files. *All prompts at
once* is a cached step with the decoder's plain form, as devices without a processor's caches have.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

import torch
from vit_b_step import batch, official_file

import samtune
from samtune.batch import Batch
from samtune.losses import Loss
from samtune.model.feature_cache import FeatureCache, Streams
from samtune.model.feature_store import FeatureStore, digest_of_base
from samtune.sam import many_prompts
from samtune.sam.model import Sam
from samtune.training.objective import Objective

METHODS: dict[str, tuple[str, str, dict[str, object]]] = {
    "none+tuned": ("none", "tuned", {}),
    "none+hq": ("none", "hq", {}),
    "ts_sam_detached+fusion": ("ts_sam_detached", "fusion", {}),
    "late+tuned": ("lora", "tuned", {"blocks": "late"}),
}
COLUMNS = (
    "base", "method", "uncached s (least to most)", "cached s (least to most)", "cached / uncached",
    "cached, all prompts at once s", "look-up s", "MB an image",
)  # fmt: skip


def base_of(name: str, device: str) -> Sam:
    """A base: nano as it ships, ViT-B with random weights."""
    if name == "nano":
        return samtune.load_sam(name, device=device)
    with tempfile.TemporaryDirectory() as folder:
        return samtune.load_sam(name, official_file(Path(folder)), device=device)


def timed(call: Callable[[], object], device: str) -> float:
    """Seconds that a call takes, the device's work included."""
    clock = time.perf_counter if device == "cuda" else time.process_time
    start = clock()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def encoded(pixels: torch.Tensor) -> Streams:
    """In place of the encoder, where everything must be kept."""
    raise AssertionError("an image is not kept")


def compare(
    sam: Sam,
    method: str,
    whole: Batch,
    precision: str,
    rounds: int,
    device: str,
    folder: str,
    alone: bool,
) -> list[str]:
    """One row of the table, maybe of cached steps alone; with a folder all is read from files."""
    torch.manual_seed(0)
    adapter, decoder, options = METHODS[method]
    if options:
        depth = len(sam.image_encoder.blocks)
        options = {"blocks": tuple(range(depth // 2, depth))}
    model = samtune.FineTuned(sam, adapter, decoder, adapter_options=options or None)
    model = model.to(device).train()
    objective = Objective(model, Loss.parse("bce + dice"), multimask=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    cache = FeatureCache(2**40)
    if folder:
        kind = digest_of_base(sam), model.streams_read, False
        cache = FeatureCache(0, store=FeatureStore(Path(folder), 2**40, *kind))

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            loss = objective(whole)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def look_up() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            cache.streams(model.preprocess(whole.pixels, whole.sizes), encoded)

    seconds: dict[str, list[float]] = {"uncached": [], "cached": [], "at once": [], "look-up": []}
    model.cache = cache
    step()  # fills the cache
    cache.flush()
    step()
    one_image = cache.store.bytes_on_disk if cache.store else cache.used
    for _ in range(rounds):
        model.cache = None
        seconds["uncached"].append(float("nan") if alone else timed(step, device))
        model.cache = cache
        seconds["cached"].append(timed(step, device))
        with mock.patch.object(many_prompts, "PLACES", 2**40):
            seconds["at once"].append(timed(step, device))
        seconds["look-up"].append(timed(look_up, device))
    middle = {key: statistics.median(values) for key, values in seconds.items()}
    spread = [
        f"{middle[key]:.3g} ({min(seconds[key]):.3g} to {max(seconds[key]):.3g})"
        for key in ("uncached", "cached")
    ]
    ratio = f"1/{middle['uncached'] / middle['cached']:.1f}"
    if alone:
        spread[0] = ratio = "-"
    others = [f"{middle[key]:.3g}" for key in ("at once", "look-up")]
    size = f"{one_image / len(whole.pixels) / 1e6:.1f}"
    return [sam.spec.name, f"`{method}`", *spread, ratio, *others, size]


def main(words: Sequence[str] | None = None) -> None:
    """Prints the table, a row as soon as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bases", nargs="+", default=["nano", "vit_b"], choices=("nano", "vit_b"))
    parser.add_argument("--methods", nargs="+", default=[*METHODS], choices=[*METHODS])
    parser.add_argument("--prompts", nargs="+", type=int, default=[1, 3])
    parser.add_argument("--disk", action="store_true")
    parser.add_argument("--cached-alone", action="store_true")
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
        whole = batch(tuple(o.prompts), sam.spec.image_size).to(o.device)
        for method in o.methods:
            with tempfile.TemporaryDirectory() as folder:
                how = o.precision, o.rounds, o.device, folder if o.disk else ""
                row = compare(sam, method, whole, *how, o.cached_alone)
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
