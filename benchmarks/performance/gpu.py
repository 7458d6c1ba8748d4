"""The table of a GPU in under ten minutes: rates, kernels, encoders, memory, loader, evaluation."""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader

from benchmarks.performance import measuring
from benchmarks.performance.encoders import encoders, random_base, spec_at
from benchmarks.performance.pictures import write_pictures
from benchmarks.performance.table import Row, Table
from samtune import FineTuned, open_data
from samtune.data import DataConfig, SegmentationDataset, collate, splits
from samtune.evaluation.streaming import evaluate
from samtune.ops import attention
from samtune.ops.resize import relative

DEVICE = "cuda"
TITLE = "Performance on a GPU"
COMMAND = "python -m benchmarks run gpu"
STEP_FLOPS = {"vit_b": 2129.8e9, "vit_l": 6277.3e9, "vit_h": 12341.8e9}
"""Operations of the official step at 1024 pixels with an adapter after every block."""
PEAK = 790e12
"""Operations per second of an H200 in bf16, as measured on large products of random numbers."""
FORWARD = {"vit_b": 330.0, "vit_l": 130.0, "vit_h": 70.0}
STEPS = {"vit_b": 120.0, "vit_h": 28.0}
FITS = (("vit_b", False, 16), ("vit_b", True, 24), ("vit_h", False, 4), ("vit_h", True, 24))
"""Bases, with blocks computed again or not, and the batch that should fit into 24 GB."""
ARITHMETIC = {"fp32": ("fp32", False), "tf32": ("fp32", True), "bf16": ("bf16", False)}
"""Autocast, and whether products of fp32 may be TF32, by name."""


def measure(options: argparse.Namespace, rows: Table) -> None:
    """Measures part after part until the minutes are over; what is left out is said."""
    device, begun = options.device or DEVICE, time.perf_counter()
    small = options.base == "tiny"  # to try the script
    parts: dict[str, Callable[[], None]] = {
        "rates": partial(rates, device, 256 if small else 8192, rows),
        "kernels": partial(kernels, device, 8 if small else 64, rows),
        "flex": partial(flex, device, 8 if small else 64, rows),
        "step": partial(steps, options, device, options.base, 1 if small else 4, rows),
        "forward": partial(forwards, options, device, options.base, 1 if small else 8, rows),
        "memory": partial(memory, options, device, rows),
        "small": partial(small_step, device, options.base, 64 if small else 256, rows),
        "loader": partial(loader, options, device, rows),
    }
    for base, count in (("vit_h", 2), ("vit_l", 4)) if not small else ():
        parts[f"step {base}"] = partial(steps, options, device, base, count, rows)
        parts[f"forward {base}"] = partial(forwards, options, device, base, 2 * count, rows)
    for name in measuring.chosen(options.only, parts, "--only"):
        if time.perf_counter() - begun > 60 * options.minutes:
            rows.note(f"left out, as the time was over: {name}")
            continue
        try:
            parts[name]()
        except torch.OutOfMemoryError:
            rows.note(f"{name}: out of memory")
        gc.collect()
        if device != "cpu":
            torch.cuda.empty_cache()


def _seconds(call: Callable[[], object], device: str, rounds: int = 5) -> list[float]:
    call()
    call()
    return measuring.interleaved({"": call}, rounds, device)[""]


def _set_tf32(allowed: bool) -> None:
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed


def rates(device: str, side: int, rows: Table) -> None:
    """Operations per second of a large product."""
    for name, (dtype, tf32) in ARITHMETIC.items():
        _set_tf32(tf32)
        kind = torch.bfloat16 if dtype == "bf16" else torch.float32
        a, b = torch.randn(2, side, side, device=device, dtype=kind)
        values = _seconds(lambda a=a, b=b: a @ b, device)
        rate = 2 * side**3 / statistics.median(values) / 1e12
        spread = measuring.spread(values)
        rows.add(Row(f"product of {side}, {name}", rate, "TFLOP/s", spread=spread))
    _set_tf32(False)


def kernels(device: str, grid: int, rows: Table) -> None:
    """Which fused kernel takes the folded widths, and the forms of attention, both ways."""
    tokens = grid * grid
    for widths in ((192, 192), (192, 128), (96, 96), (96, 64), (256, 256), (208, 208)):
        q, k = (_leaf(1, 12, tokens, widths[0], device=device) for _ in range(2))
        v = _leaf(1, 12, tokens, widths[1], device=device)
        for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION,
                        SDPBackend.EFFICIENT_ATTENTION):  # fmt: skip
            name = f"kernel {backend.name.lower()}, widths {widths}"
            try:
                with sdpa_kernel(backend):
                    values = _both_ways(partial(F.scaled_dot_product_attention, q, k, v), device)
            except RuntimeError as error:
                rows.note(f"{name}: refused, {str(error).splitlines()[0][:80]}")
                continue
            operations = 2 * 12 * tokens**2 * sum(widths) * 3.5
            rate = operations / statistics.median(values) / 1e12
            rows.add(Row(name, rate, "TFLOP/s both ways", spread=measuring.spread(values)))
    q, k, v = (_leaf(1, 12, tokens, 64, device=device) for _ in range(3))
    tables = [0.2 * torch.randn(2 * grid - 1, 64, device=device) for _ in range(2)]
    rel = [relative(table, grid, grid).bfloat16() for table in tables]
    for form in ("textbook", "folded", "striped"):
        values = _both_ways(partial(attention.attend, q, k, v, *rel, form=form), device)
        ms = 1e3 * statistics.median(values)
        rows.add(Row(f"attention, {form}, bf16, both ways", ms, "ms"))
    bias = torch.randn(1, 12, tokens, tokens, device=device, dtype=torch.bfloat16)
    with_bias = partial(F.scaled_dot_product_attention, q, k, v, attn_mask=bias)
    ms = 1e3 * statistics.median(_both_ways(with_bias, device))
    rows.add(Row("attention, bias as a mask, bf16, both ways", ms, "ms"))


def flex(device: str, grid: int, rows: Table) -> None:
    """FlexAttention with the positions inside, compiled: forward, and its backward by atomics."""
    if device == "cpu":
        rows.note("flex: has no backward pass on the CPU")
        return
    from torch.nn.attention.flex_attention import flex_attention

    q, k, v = (_leaf(1, 12, grid * grid, 64, device=device) for _ in range(3))
    by_row, by_column = (_leaf(1, 12, grid * grid, grid, device=device) for _ in range(2))

    def bias(score, b, h, query, key):
        return score + by_row[b, h, query, key // grid] + by_column[b, h, query, key % grid]

    call = partial(torch.compile(flex_attention), q, k, v, score_mod=bias)
    with torch.no_grad():
        ms = 1e3 * statistics.median(_seconds(call, device))
    rows.add(Row("attention, FlexAttention, bf16, forward", ms, "ms"))
    try:
        ms = 1e3 * statistics.median(_both_ways(call, device))
        rows.add(Row("attention, FlexAttention, bf16, both ways", ms, "ms"))
    except Exception as error:  # whatever the compiler says of it
        rows.note(f"FlexAttention, both ways: {type(error).__name__}, {str(error)[:80]}")


def _leaf(*shape: int, device: str) -> torch.Tensor:
    return torch.randn(*shape, device=device, dtype=torch.bfloat16).requires_grad_()


def _both_ways(call: Callable[[], torch.Tensor], device: str) -> list[float]:
    return _seconds(lambda: call().float().sum().backward(), device)


def _compare(
    options: argparse.Namespace, device: str, base: str, count: int, adapted: bool, rows: Table
) -> dict[str, float]:
    """Images per second of each encoder in each arithmetic."""
    what = "training" if adapted else "forward"
    size, run = options.size, measuring.step if adapted else measuring.forward
    variants = encoders(random_base(spec_at(base, size), device), adapted)
    variants.pop("transformers eager", None)
    pixels, speed = torch.randn(count, 3, size, size, device=device), {}
    for name, (dtype, tf32) in ARITHMETIC.items():
        _set_tf32(tf32)
        for who, encode in variants.items():
            with suppress(torch.OutOfMemoryError):
                values = _seconds(partial(run, encode, pixels, dtype), device, options.rounds)
                speed[f"{who} {name}"] = count / statistics.median(values)
                title = f"{what} {base}, batch {count}, {who}, {name}"
                spread = measuring.spread(values)
                rows.add(Row(title, speed[f"{who} {name}"], "images/s", spread=spread))
    _set_tf32(False)
    return speed


def forwards(options: argparse.Namespace, device: str, base: str, count: int, rows: Table) -> None:
    """P6: images per second of a forward pass."""
    speed = _compare(options, device, base, count, adapted=False, rows=rows)
    rows.add(Row(f"P6 forward {base}, bf16", speed["samtune bf16"], "images/s", FORWARD.get(base)))


def steps(options: argparse.Namespace, device: str, base: str, count: int, rows: Table) -> None:
    """P7 to P9: images per second of a training step with an adapter, and its efficiency."""
    speed = _compare(options, device, base, count, adapted=True, rows=rows)
    official = next(iter(speed)).rsplit(" ", 1)[0]
    ours = speed["samtune bf16"]
    targets = {"P7 against fp32": ("fp32", 6.0), "P7 against tf32": ("tf32", 2.5)}
    for name, (kind, target) in targets.items():
        rows.add(Row(f"{name}, {base}", ours / speed[f"{official} {kind}"], "x", target))
    for kind, target in (("fp32", 1.1), ("tf32", 1.6)):
        ratio = speed[f"samtune {kind}"] / speed[f"{official} {kind}"]
        rows.add(Row(f"P8 in the same arithmetic, {kind}, {base}", ratio, "x", target))
    part = ours * STEP_FLOPS.get(base, 0) / PEAK
    rows.add(Row(f"P9 images/s, {base}", ours, "images/s", STEPS.get(base)))
    rows.add(Row(f"P9 fraction of {PEAK / 1e12:g} TFLOP/s, {base}", part))


def memory(options: argparse.Namespace, device: str, rows: Table) -> None:
    """P10: memory of each further image, and the batches that fit into 24 GB."""
    if device == "cpu":
        rows.note("memory: only devices count their own")
        return
    size, per_image = options.size, {}
    variants = encoders(random_base(spec_at(options.base, size), device), adapted=True)
    for name, encode in variants.items():
        dtype = "bf16" if name == "samtune" else "fp32"
        per_image[name] = _of_an_image(encode, size, device, dtype)
        rows.add(Row(f"memory per image, {name}, {dtype}", per_image[name], "GB"))
    ratio = per_image["samtune"] / next(iter(per_image.values()))
    name = "P10 memory per image, samtune bf16 / official fp32"
    rows.add(Row(name, ratio, target=0.2, at_most=True))
    del variants, encode
    for base, again, target in FITS:
        model = FineTuned(random_base(spec_at(base, size), device), "adaptformer").to(device)
        model.checkpointing = again
        model.train()
        encode = lambda x, model=model: model.encode(x).embedding  # noqa: E731
        each = _of_an_image(encode, size, device, "bf16")
        weights = sum(p.nbytes for p in model.parameters()) / 1e9
        for card, least in ((24, target), (0, None)):
            whole = card or torch.cuda.get_device_properties(device).total_memory / 1e9
            name = f"P10 batch of {base} in {whole:.0f} GB, checkpointing={str(again).lower()}"
            # a tenth is left to the context and to what splits memory
            rows.add(Row(name, int((0.9 * whole - 1.5 * weights) / each), "images", least))


def _of_an_image(encode: Callable, size: int, device: str, dtype: str) -> float:
    """Gigabytes that a second image adds to a step."""
    peaks = []
    for count in (1, 2):
        torch.cuda.reset_peak_memory_stats()
        measuring.step(encode, torch.randn(count, 3, size, size, device=device), dtype)
        peaks.append(measuring.peak_gigabytes(device))
    return peaks[1] - peaks[0]


def small_step(device: str, base: str, side: int, rows: Table) -> None:
    """P19: a step at a small size, which launches bound, plain and compiled."""
    sam = random_base(spec_at(base, side), device)
    pixels = torch.randn(4, 3, side, side, device=device)
    for compiled in (False, True):
        model = FineTuned(sam, adapter="adaptformer").to(device).train()
        if compiled:
            model.compiling = "blocks" if device == "cpu" else "graphs"
        encode = lambda x, model=model: model.encode(x).embedding  # noqa: E731
        values = _seconds(partial(measuring.step, encode, pixels, "bf16"), device)
        ms, title = 1e3 * statistics.median(values), "compiled" if compiled else "plain"
        target = 2.5 if compiled else None
        rows.add(Row(f"P19 step at {side} px, batch 4, {title}", ms, "ms", target, at_most=True))


def loader(options: argparse.Namespace, device: str, rows: Table) -> None:
    """P13 and P15: the part of a step that waits for data, and evaluation from end to end."""
    size, count = options.size, 8 if options.base == "tiny" else 128
    model = FineTuned(random_base(spec_at(options.base, size), device), "adaptformer").to(device)
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder), count, size)
        data = DataConfig(root=folder, cache=0)
        dataset = SegmentationDataset(splits(data)["train"], data, (size, size), train=True)
        workers = 0 if device == "cpu" else 8
        batches = DataLoader(dataset, 4, num_workers=workers, collate_fn=collate)
        waited, begun, stream = 0.0, time.perf_counter(), iter(batches)
        while True:
            start = time.perf_counter()
            batch = next(stream, None)
            if batch is None:
                break
            waited += time.perf_counter() - start
            batch = batch.to(torch.device(device))
            encode = lambda x: model.encode(model.preprocess(x)).embedding  # noqa: E731
            measuring.step(encode, batch.pixels, "bf16")
            if device != "cpu":
                torch.cuda.synchronize()
        part = waited / (time.perf_counter() - begun)
        rows.add(Row("P13 part of the time that waits for data", part, "", 0.03, at_most=True))
        begun = time.perf_counter()
        images = open_data(folder)
        how = {"batch_size": 4, "workers": workers, "precision": "bf16"}
        evaluate(model.eval(), images.train, **how)
        rate = len(images.train) / (time.perf_counter() - begun)
        rows.add(Row("P15 evaluation with metrics", rate, "images/s", 100))
