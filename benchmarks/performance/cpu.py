"""The table of the CPU: one thread, CPU seconds, ratios within the run."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from samtune.metrics.seen import Seen
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.performance import measuring
from benchmarks.performance.encoders import HIDDEN, Encode, encoders, random_base, spec_at
from benchmarks.performance.pictures import write_pictures
from benchmarks.performance.table import Row, Table
from samtune.data import DataConfig, SegmentationDataset, splits
from samtune.errors import InputError
from samtune.metrics.config import EvalConfig
from samtune.metrics.suite import Suite
from samtune.sam.layers import shapes_alone
from samtune.sam.model import Sam

DEVICE = "cpu"
TITLE = "Performance on the CPU"
COMMAND = "python -m benchmarks run cpu"
DTYPES = ("fp32", "bf16")
FORWARD = {"fp32": 1.6, "bf16": 2.3}
BACKWARD = {"fp32": 1.5, "bf16": 2.0}
FLOPS = {256: 0.72, 512: 0.88, 1024: 0.97}
"""Operations of a forward pass as a fraction of the official, by size: what padding wastes."""
KEPT, KEPT_AGAINST_FP32 = 0.36, 0.19


def measure(options: argparse.Namespace, rows: Table) -> None:
    """Adds the parts of the table that are chosen; by default all."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    depth = f"times of the first {options.depth} blocks" if options.depth else "all blocks"
    rows.note(
        "One thread, CPU seconds; variants take turns within one run, ratios are those of medians.",
        f"{options.base} at {options.size} pixels, batch 1, {depth}; backward with an adapter "
        f"{HIDDEN} wide beside each MLP.",
        f"{options.rounds} rounds after a warm-up; spread is the median (least to most).",
    )
    parts = {
        "flops": flops, "kept": kept, "forward": forward, "backward": backward, "loader": loader,
        "metrics": metrics, "cli": refusals,
    }  # fmt: skip
    for name in measuring.chosen(options.only, parts, "--only"):
        parts[name](options, rows)


def _target(options: argparse.Namespace, value: float) -> float | None:
    """A target of ViT-B at 1024 pixels; others have none."""
    return value if options.base == "vit_b" and options.size == 1024 else None


def flops(options: argparse.Namespace, rows: Table) -> None:
    """Operations of a forward pass, ours in the textbook form of attention."""
    for size, target in FLOPS.items():
        spec = spec_at(options.base, size)
        with shapes_alone():
            sam = Sam(spec).freeze()
        for block in sam.image_encoder.blocks:
            block.attn.form = "textbook"
        counts = []
        for encode in (sam.image_encoder, partial(_padded, sam)):
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                encode(torch.empty(1, 3, size, size, device="meta"))
            counts.append(counter.get_total_flops())
        name = f"operations at {size} px, samtune / official"
        of_base = target if options.base == "vit_b" else None
        rows.add(Row(name, counts[0] / counts[1], target=of_base, at_most=True, exact=True))


def _padded(sam: Sam, pixels: torch.Tensor) -> torch.Tensor:
    """The official order: windows are padded before all projections."""
    from benchmarks.performance.encoders import Written

    return Written(sam, adapted=False)(pixels)


def kept(options: argparse.Namespace, rows: Table) -> None:
    """Bytes that a forward pass keeps for the backward pass."""
    variants, pixels = _variants(options, adapted=True, whole=True)
    variants = {name: e for name, e in variants.items() if name != "transformers eager"}
    baseline, bytes_of = next(iter(variants)), {}
    for dtype in DTYPES:
        # samtune stores frozen weights in half precision at their first use, whatever the size
        measuring.forward(variants["samtune"], pixels[..., :256, :256], dtype)
        for name, encode in variants.items():
            bytes_of[name, dtype] = measuring.kept_bytes(encode, pixels, dtype)
            rows.add(Row(f"kept for backward, {dtype}, {name}", bytes_of[name, dtype] / 1e9, "GB"))
    first = bytes_of[baseline, "fp32"]
    for dtype in DTYPES:
        ratio = bytes_of["samtune", dtype] / bytes_of[baseline, dtype]
        name = f"kept for backward, {dtype}, samtune / {baseline}"
        rows.add(Row(name, ratio, target=_target(options, KEPT), at_most=True, exact=True))
    name = f"kept for backward, samtune bf16 / {baseline} fp32"
    ratio = bytes_of["samtune", "bf16"] / first
    target = _target(options, KEPT_AGAINST_FP32)
    rows.add(Row(name, ratio, target=target, at_most=True, exact=True))


def forward(options: argparse.Namespace, rows: Table) -> None:
    """Forward passes without a gradient."""
    variants, pixels = _variants(options, adapted=False)
    for dtype in DTYPES:
        reference = measuring.forward(next(iter(variants.values())), pixels, dtype)
        for name, encode in variants.items():
            apart = (measuring.forward(encode, pixels, dtype) - reference).abs().max()
            rows.note(f"forward {dtype}: {name} is at most {apart:.1e} from the first variant.")
        calls = {n: partial(measuring.forward, e, pixels, dtype) for n, e in variants.items()}
        _ratios(f"forward {dtype}", calls, options.rounds, rows, _target(options, FORWARD[dtype]))


def backward(options: argparse.Namespace, rows: Table) -> None:
    """Forward and backward passes with a trained adapter."""
    variants, pixels = _variants(options, adapted=True)
    for dtype in DTYPES:
        calls = {n: partial(measuring.step, e, pixels, dtype) for n, e in variants.items()}
        for call in calls.values():
            call()
        _ratios(
            f"forward and backward {dtype}",
            calls,
            options.rounds,
            rows,
            _target(options, BACKWARD[dtype]),
        )


def _variants(
    options: argparse.Namespace, adapted: bool, whole: bool = False
) -> tuple[dict[str, Encode], torch.Tensor]:
    """The encoders, of all blocks or of the first ``--depth``, and an image."""
    spec = spec_at(options.base, options.size)
    if options.depth and not whole:
        below = tuple(i for i in spec.global_blocks if i < options.depth)
        spec = replace(spec, depth=options.depth, global_blocks=below)
    variants = encoders(random_base(spec), adapted)
    names = measuring.chosen(options.encoders, variants, "--encoders")
    if "samtune" not in names:
        raise InputError(f"--encoders {options.encoders}: must have samtune among them")
    variants = {name: variants[name] for name in names}
    return variants, torch.randn(1, 3, options.size, options.size)


def _ratios(what: str, calls: dict, rounds: int, rows: Table, target: float | None) -> None:
    """A row for each variant: how many times faster than the first it is."""
    times = measuring.interleaved(calls, rounds, DEVICE)
    baseline = next(iter(times))
    first = statistics.median(times[baseline])
    for name, values in times.items():
        ratio = first / statistics.median(values)
        wanted = target if name == "samtune" else None
        title = f"{what}, {baseline} / {name}"
        rows.add(Row(title, ratio, "x", wanted, spread=measuring.spread(values)))


def loader(options: argparse.Namespace, rows: Table) -> None:
    """Samples per CPU second of the training's loader."""
    side = options.size
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder), 12, side)
        for augment, target in (("flips", 85), ("standard", 60)):
            data = DataConfig(root=folder, cache=0, augment=augment)
            dataset = SegmentationDataset(splits(data)["train"], data, (side, side), train=True)
            places = {"": dataset, ", resized on the device": dataset.with_late_images(True)}
            calls = {n: lambda d=d: [d[i] for i in range(len(d))] for n, d in places.items()}
            for name, values in measuring.interleaved(calls, options.rounds, DEVICE).items():
                rate = len(dataset) / statistics.median(values)
                rows.add(Row(f"loader, {augment}{name}", rate, "samples per CPU s", target))


def metrics(options: argparse.Namespace, rows: Table) -> None:
    """The saliency metrics of one image."""
    rng, side = np.random.default_rng(0), options.size
    smooth = cv2.GaussianBlur(rng.random((side, side), np.float32), (0, 0), side / 25)
    truth = smooth > np.quantile(smooth, 0.6)
    probability = cv2.GaussianBlur(truth.astype(np.float32), (0, 0), 8)
    p, t = torch.tensor(probability), torch.tensor(truth)
    suite = Suite(EvalConfig(metrics=("saliency",)))
    seen = Seen((p > 0.5)[None], t[None], probability=p, whole=t)
    calls = {"samtune": partial(suite.update, seen)}
    if library := _library(p.numpy(), truth):
        calls["pysodmetrics"] = library
    for call in calls.values():
        call()
    times = measuring.interleaved(calls, options.rounds, DEVICE)
    own = statistics.median(times["samtune"])
    rows.add(Row("saliency metrics of an image", 1e3 * own, "ms", 60, at_most=True))
    if library:
        ratio = statistics.median(times["pysodmetrics"]) / own
        rows.add(Row("saliency metrics, pysodmetrics / samtune", ratio, "x"))


def _library(probability: np.ndarray, truth: np.ndarray) -> Callable[[], None] | None:
    """The same measures by pysodmetrics, if it is installed."""
    try:
        import py_sod_metrics as sod
    except ImportError:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its F-measure announces a successor
        kinds = [sod.MAE(), sod.Smeasure(), sod.Emeasure(), sod.Fmeasure(), sod.WeightedFmeasure()]
    images = ((255 * each).astype(np.uint8) for each in (probability, truth))
    pred, gt = images
    return lambda: [kind.step(pred=pred, gt=gt) for kind in kinds] and None


def refusals(options: argparse.Namespace, rows: Table) -> None:
    """CPU seconds of the command line until it has said what is wrong, or how it is used."""
    cases = {
        "help": (["--help"], 0.3), "a wrong setting": (["train", ".", "train.lr=x"], 0.6),
        "a wrong folder": (["train", "no-such-folder"], 0.6),
    }  # fmt: skip
    for name, (words, target) in cases.items():
        values = [_of_process(words) for _ in range(options.rounds)]
        title = f"command line, {name}"
        rows.add(Row(title, statistics.median(values), "CPU s", target, at_most=True))


def _of_process(words: list[str]) -> float:
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code = "import sys; from samtune.cli.main import main; sys.exit(main())"
    subprocess.run([sys.executable, "-c", code, *words], capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
