"""The most memory of an evaluation, and of other verbs, by the number of objects and of images.

    python benchmarks/evaluation_memory.py [--objects 50 500 5000] [--images 1 4 16] [--base nano]
    python benchmarks/evaluation_memory.py --batches --modes box mask noisy_mask
    python benchmarks/evaluation_memory.py --verbs check predict raster everything

Each line is a process of its own, so that its peak is of that evaluation alone; what Python, torch
and the base take before the first image is subtracted. Images are of 1024 x 1024 pixels, and their
objects are squares that an instance map numbers. With ``--batches`` a line is the batch that an
evaluation gets of one image, before anything is answered.

With ``--verbs`` a line is a call of ``data check``, of ``predict`` (a box per image or, on a raster
that is answered tile by tile, none), or of ``everything`` with such thresholds that each point of
its grid gives an object.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import large_raster
import numpy as np
import torch
from PIL import Image
from tables import table

import samtune
from samtune.data import DataConfig, SegmentationDataset, find_records
from samtune.data.check import check
from samtune.data.collate import collate
from samtune.evaluation.streaming import Evaluation, evaluate
from samtune.inference import answering
from samtune.inference.everything.folder import everything_folder
from samtune.inference.everything.generator import MaskGenerator
from samtune.inference.folder import predict_folder
from samtune.metrics.config import EvalConfig
from samtune.model.finetuned import FineTuned
from samtune.sam.layers import shapes_alone
from samtune.sam.model import Sam
from samtune.sam.weights import spec_of
from samtune.training.memory import count_peak_anew, peak_memory

SIDE = 1024
ANSWERED = 64
"""Objects that are answered together in the lines of batches."""
BOX = (100, 100, 500, 500)
"""The prompt of each image."""
METRICS = ("regions", "msa", "ap", "mae")
COLUMNS = ("objects of an image", "images", "prompt", "eval.memory", "peak MiB", "s", "s an object")


OF_VERBS = ("verb", "side of an image", "objects of an image", "images", "peak MiB", "s")
CASES = {
    "check": [(1024, n, i) for n, i in ((50, 4), (1000, 4), (5000, 4), (1000, 16), (1000, 64))],
    "predict": [(1024, 1, 4), (1024, 1, 16), (1024, 1, 64), (2048, 1, 1), (4096, 1, 1)],
    "raster": [(2048, 1, 1), (4096, 1, 1), (8192, 1, 1)],
    "everything": [(512, n, i) for n, i in ((64, 1), (256, 1), (1024, 1), (64, 4), (64, 16))],
}
"""Side, objects and images of the lines of each verb."""
OF_BATCHES = ("objects of the image", "prompt", "peak MiB of the batch", "MiB of masks for 64")


def draw(folder: Path, objects: int, images: int, side: int = SIDE) -> None:
    """Images of noise, with so many squares each in an instance map of 16 bits."""
    across = int(np.ceil(np.sqrt(objects)))
    step = side // across
    ids = np.zeros((side, side), np.uint16)
    for k in range(objects):
        y, x = step * (k // across), step * (k % across)
        ids[y : y + max(1, step - 2), x : x + max(1, step - 2)] = k + 1
    random = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for i in range(images):
        pixels = random.integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png", compress_level=1)
        Image.fromarray(ids).save(folder / "masks" / f"{i}.png", compress_level=1)


def split_of(folder: Path, model: FineTuned, mode: str) -> SegmentationDataset:
    """The drawn images as an evaluation reads them."""
    return SegmentationDataset(
        find_records(folder),
        DataConfig(root=str(folder), masks="instance", cache=0),
        model.input.size,
        mask_size=model.mask_size,
        mode=mode,
        input=model.input,
    )


def evaluated(model: FineTuned, objects: int, images: int, mode: str, memory: int) -> Evaluation:
    """The evaluation of a drawn data set."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        draw(folder, objects, images)
        data = split_of(folder, model, mode)
        return evaluate(model, data, measuring=EvalConfig(METRICS, memory=memory))


def measure(objects: int, images: int, mode: str, memory: int, base: str) -> str:
    """The cells of one line, measured in this process."""
    model, cpu = FineTuned(samtune.load_sam(base), "none", "frozen"), torch.device("cpu")
    evaluated(model, 1, 1, mode, memory)  # what is loaded late does not count
    count_peak_anew()
    before, start = peak_memory(cpu), time.perf_counter()
    metrics = evaluated(model, objects, images, mode, memory).metrics
    seconds, peak = time.perf_counter() - start, (peak_memory(cpu) - before) / 2**20
    assert metrics["objects"] == objects * images
    cells = [objects, images, mode, f"{memory / 2**20:.0f} MiB", f"{peak:.0f}", f"{seconds:.1f}"]
    return "|".join(map(str, [*cells, f"{seconds / objects / images:.4f}"]))


def measure_batch(objects: int, mode: str, base: str) -> str:
    """The cells of one line of batches, measured in this process."""
    with shapes_alone():
        model = FineTuned(Sam(spec_of(base)).freeze(), "none", "frozen")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        draw(folder, objects, 1)
        data, cpu = split_of(folder, model, mode), torch.device("cpu")
        collate([data.with_object_maps()[0]]).part(slice(0, 1))
        count_peak_anew()
        before = peak_memory(cpu)
        batch = collate([data.with_object_maps()[0]])
        assert len(batch.prompts) == objects
        peak = (peak_memory(cpu) - before) / 2**20
        part = batch.part(slice(0, min(objects, ANSWERED)))
        masks = 0 if part.prompts.masks is None else part.prompts.masks.nbytes
    return f"{objects}|{mode}|{peak:.0f}|{masks / 2**20:.0f}"


def call(verb: str, model: FineTuned, folder: Path, objects: int) -> int:
    """Calls a verb on what is drawn in a folder; the number of images that it did."""
    images, out = folder / "images", folder / "out"
    if verb == "check":
        return int(check(DataConfig(root=str(folder), masks="instance")).counts["images"])
    if verb == "everything":
        keep = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "box_nms_thresh": 1.0}
        generator = MaskGenerator(model, points_per_side=math.isqrt(objects), **keep)
        answer = everything_folder(generator, images, out, overlays=False)
        print(f"{answer['instances']} objects", file=sys.stderr)
        return int(answer["images"])
    how = {"formats": ["geotiff"]} if verb == "raster" else {"prompts": {"*": {"boxes": [BOX]}}}
    return int(predict_folder(model.predictor(), images, out, overlays=False, **how)["images"])


def measure_verb(verb: str, side: int, objects: int, images: int, base: str) -> str:
    """The cells of one line of verbs, measured in this process."""
    model, cpu = FineTuned(samtune.load_sam(base), "none", "tuned"), torch.device("cpu")
    model.input = (
        replace(model.input, tiles="tiled", scale=0.5) if verb == "raster" else model.input
    )
    answering.LARGE = 0 if verb == "raster" else answering.LARGE
    for size, count, number in ((256, 1, 1), (side, objects, images)):  # the first loads modules
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            if verb == "raster":
                (folder / "images").mkdir()
                large_raster.make(folder / "images" / "a.tif", size)
            else:
                draw(folder, count, number, size)
            count_peak_anew()
            before, start = peak_memory(cpu), time.perf_counter()
            assert call(verb, model, folder, count) == number
            seconds, peak = time.perf_counter() - start, (peak_memory(cpu) - before) / 2**20
    return f"{verb}|{side}|{objects}|{images}|{peak:.0f}|{seconds:.1f}"


def options_of(base: str, case: tuple[object, ...]) -> list[str]:
    """The options of one line."""
    return ["--base", base, "--line", *map(str, case)]


def measured(options: list[str]) -> list[str]:
    """The cells of one line, measured in a process of its own."""
    line = [sys.executable, __file__, *options]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    cells = done.stdout.strip().split("|")
    print(cells, file=sys.stderr)
    return cells


def main() -> None:
    """Prints the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objects", type=int, nargs="+", default=[50, 500, 5000])
    parser.add_argument("--images", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--modes", nargs="+", default=["box"])
    parser.add_argument("--memory", type=int, nargs="+", default=[2**30, 2**28])
    parser.add_argument("--base", default="nano")
    parser.add_argument("--batches", action="store_true")
    parser.add_argument("--verbs", nargs="+", choices=CASES)
    parser.add_argument("--line", nargs="+")
    options = parser.parse_args()
    if options.line and options.verbs:
        print(measure_verb(options.verbs[0], *map(int, options.line), options.base))
        return
    if options.verbs:
        lines = [(verb, case) for verb in options.verbs for case in CASES[verb]]
        rows = [measured(["--verbs", v, *options_of(options.base, case)]) for v, case in lines]
        print(table(OF_VERBS, rows))
        return
    if options.line and options.batches:
        print(measure_batch(int(options.line[0]), options.line[1], options.base))
        return
    if options.line:
        objects, images, mode, memory = options.line
        print(measure(int(objects), int(images), mode, int(memory), options.base))
        return
    first = options.objects[0]
    if options.batches:
        pairs = [(n, m) for m in options.modes for n in options.objects]
        rows = [measured(["--batches", *options_of(options.base, pair)]) for pair in pairs]
        print(table(OF_BATCHES, rows))
        return
    cases = [(n, 1, m, b) for b in options.memory for m in options.modes for n in options.objects]
    cases += [(first, i, options.modes[0], options.memory[0]) for i in options.images if i > 1]
    rows = [measured(options_of(options.base, case)) for case in cases]
    print("# Memory of an evaluation against the number of objects and images\n")
    print(f"    {' '.join(['python', 'benchmarks/evaluation_memory.py', *sys.argv[1:]])}\n")
    print(table(COLUMNS, rows))


if __name__ == "__main__":
    main()
