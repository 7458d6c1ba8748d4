"""Automatic instances: plain generator, watershed of distances, and seeds as prompts.

    python benchmarks/instances.py train FOLDER OUT MODEL:SHOTS:STEPS ...  # what is finished stays
    python benchmarks/instances.py measure FOLDER OUT [WAY ...]    # what is measured stays
    python benchmarks/instances.py whole FOLDER OUT [WAY ...]      # the same on all test images
    python benchmarks/instances.py exchange FOLDER OUT MODEL       # predicted maps for true ones
    python benchmarks/instances.py page OUT                        # the table

FOLDER is that of a data set of DATA, by its name. MODEL is one of MODELS, SHOTS a number of
training images or ``all``; MODEL:SHOTS:STEPS:FILE goes on with a file of OUT, as in
``image:all:100:image-16-400``. WAY is one of those in which instances are found. The last weights
of a training are measured, on the first images of the test split that samtune makes, or on all of
them; ways that are fitted see the first images of the validation split, or up to 50 of all of them.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import samtune
from samtune.data.dense_targets import distances
from samtune.data.opening import DataSplits
from samtune.data.split import Split
from samtune.evaluation.automatic import evaluate_automatic
from samtune.evaluation.calibration import calibrate, calibrate_watershed
from samtune.inference.everything.dense_maps import DenseMaps
from samtune.inference.everything.instances import Instances
from samtune.inference.everything.watershed import (
    WatershedConfig,
    WatershedGenerator,
    instances_of,
)

BATCH = 4
"""Images in a batch of the training."""
DATA: dict[str, dict[str, Any]] = {
    "dsb2018": {"masks": "instance"},
    "tiny-coco": {},
    "isbi2012": {"masks": "binary", "objects": "component"},
    "kvasir-seg": {"objects": "component"},
}
"""How the masks of a data set are read, by the name of its folder."""
COUNTS = {"dsb2018": (24, 12, 16, 6)}
"""Images that are measured, and with a grid of points; and on which a watershed and a grid are
fitted, at most."""
OTHERS = (6, 6, 6, 6)
"""The same for other data sets."""
POINTS = 16
"""Points on a side of the plain generator's grid; SAM's own number is 32."""
MODELS: dict[str, dict[str, Any]] = {
    "instances": {
        "decoder": "instances",
        "decoder_options": {"scale": 8, "image": False},
        "prompts": "none",
        "loss": "distances + foreground",
    },
    "image": {
        "adapter": "none",
        "decoder": "instances",
        "decoder_options": {"scale": 8, "image": True},
        "prompts": "none",
        "loss": "distances + foreground",
        "cached": True,
    },
    "views": {
        "adapter": "none",
        "decoder": "instances",
        "decoder_options": {"scale": 8, "image": True},
        "prompts": "none",
        "loss": "distances + foreground",
        "cached": True,
        "views": (16, 2),
    },
    "frozen": {
        "adapter": "none",
        "decoder": "instances",
        "decoder_options": {"scale": 8, "image": False},
        "prompts": "none",
        "loss": "distances + foreground",
        "cached": True,
    },
    "both": {
        "decoder": "instances",
        "decoder_options": {"scale": 8, "image": False, "prompts": "tuned"},
        "prompts": "box,point",
        "loss": "bce + dice + iou_head + distances + foreground",
    },
    "tuned": {
        "adapter": "none",
        "decoder": "tuned",
        "prompts": "box,point",
        "loss": "bce + dice",
        "cached": True,
        "settings": {"max_objects": 8},
    },
    "tuned, quality": {
        "adapter": "none",
        "decoder": "tuned",
        "prompts": "box,point",
        "loss": "bce + dice + quality_head",
        "cached": True,
        "settings": {"max_objects": 8, "background_points": 8},
    },
}
"""By name: decoder, prompts and loss; the base is nano, the adapter lora unless another is named.
If encodings are cached, images are not augmented, or have so many augmented views: of a few shots,
and of all images."""
LOOSE = {"pred_iou_thresh": 0.5, "stability_score_thresh": 0.5}
"""Thresholds of the grid that are about those of small training, instead of SAM's 0.88 and 0.95."""


def data_of(folder: str, **settings: Any) -> DataSplits:
    """The images, with splits that are the same at each call."""
    return samtune.open_data(folder, **DATA[Path(folder).name], **settings)


def counts_of(folder: str, grid: bool, whole: bool) -> tuple[int | None, int | None]:
    """How many images are measured, and fitted on; ``None`` for all."""
    if whole:
        return None, None
    test, test_grid, fit, fit_grid = COUNTS.get(Path(folder).name, OTHERS)
    return (test_grid, fit_grid) if grid else (test, fit)


def made(name: str) -> samtune.FineTuned:
    """A model that is not trained yet."""
    torch.manual_seed(0)
    form = MODELS[name]
    return samtune.FineTuned(
        samtune.load_sam("nano"),
        form.get("adapter", "lora"),
        form["decoder"],
        decoder_options=form.get("decoder_options"),
        prompts=form["prompts"],
    )


def train(folder: str, out: Path, word: str) -> None:
    """Trains a model, unless it is there already."""
    name, shots, steps, *before = word.split(":")
    file = out / f"{'-'.join([name, shots, steps, *before])}.safetensors"
    if file.is_file():
        return
    model, form = made(name), MODELS[name]
    if before:
        model.load_state_dict(samtune.load(out / f"{before[0]}.safetensors").state_dict())
    few, many = form.get("views", (None, None))
    changes = {"augment": "none"} if form.get("cached") and not few else {}
    data = data_of(folder, views=many if shots == "all" else few, **changes)
    split = data.train if shots == "all" else data.train[: int(shots)]
    prompts = samtune.PromptConfig(train=form["prompts"].split(","), **form.get("settings", {}))
    images = samtune.prepare(split, model, train=True, prompts=prompts)
    config = samtune.FitConfig(
        max_steps=int(steps),
        batch_size=BATCH,
        loss=form["loss"],
        keep="none",
        average="none",
        feature_cache=2 * 10**9 if form.get("cached") else 0,
    )
    start = time.process_time()
    samtune.fit(model, images, config, on_event=print)
    model.strength = 1
    samtune.save(model, file)
    seconds = round(time.process_time() - start)
    about = {"model": name, "shots": shots, "steps": int(steps), "images": len(split)}
    about |= {"after": before[0]} if before else {}
    file.with_suffix(".json").write_text(json.dumps({**about, "cpu_seconds": seconds}))


def generators(
    model: samtune.FineTuned, folder: str, whole: bool = False
) -> dict[str, Callable[[], Any]]:
    """By name: what makes a generator of a model."""
    grid = partial(samtune.MaskGenerator, model, points_per_side=POINTS)
    return {
        "watershed": partial(WatershedGenerator, model),
        "watershed, fitted": partial(fitted, model, folder, False, whole),
        "seeds as prompts": partial(WatershedGenerator, model, WatershedConfig("prompts")),
        "seeds as prompts, fitted": partial(fitted, model, folder, False, whole, answer="prompts"),
        "grid, SAM's thresholds": grid,
        "grid, loose thresholds": partial(grid, **LOOSE),
        "grid, fitted": partial(fitted, model, folder, True, whole),
    }


def measure(folder: str, out: Path, ways: Sequence[str] = (), whole: bool = False) -> None:
    """Measures each trained model, and the base, in each way that it has."""
    rows = out / ("whole.jsonl" if whole else "rows.jsonl")
    known = rows.read_text().splitlines() if rows.is_file() else []
    done = {(row["file"], row["way"]) for row in map(json.loads, known)}
    base = samtune.FineTuned(samtune.load_sam("nano"))
    models = {"base": lambda: base}
    for file in sorted(out.glob("*.safetensors")):
        models[file.stem] = lambda file=file: samtune.load(file)
    for name, load in models.items():
        model = load()
        for way, make in generators(model, folder, whole).items():
            if (name, way) in done or (ways and way not in ways):
                continue
            try:
                generator = make()
            except samtune.InputError as error:
                print(name, way, error)
                continue
            count, _ = counts_of(folder, "grid" in way, whole)
            samples = data_of(folder).test[:count]
            row = {"data": Path(folder).name, "file": name, "way": way, "images": len(samples)}
            row |= scores(generator, samples)
            with rows.open("a") as sink:
                sink.write(json.dumps(row) + "\n")
            print(row, flush=True)


def fitted(
    model: samtune.FineTuned, folder: str, grid: bool, whole: bool = False, **fixed: Any
) -> Any:
    """A generator whose settings are fitted for mSA on validation images."""
    _, count = counts_of(folder, grid, whole)
    val = samtune.prepare(data_of(folder).val[:count], model, train=False)
    if grid:
        fit = calibrate(model, val, grids=(POINTS,))
        print(fit.settings, fit.default, fit.value, flush=True)
        return samtune.MaskGenerator(model, **fit.settings)
    fit = calibrate_watershed(model, val, **fixed)
    print(fit.settings, fit.default, fit.value, flush=True)
    return WatershedGenerator(model, **fit.settings)


def exchange(folder: str, out: Path, name: str) -> None:
    """Prints the metrics with predicted maps in place of true ones, on the images of measure."""
    model = samtune.load(out / f"{name}.safetensors").eval()
    count, _ = counts_of(folder, False, False)
    images = samtune.prepare(data_of(folder).test[:count], model, train=False)
    maps: dict[bytes, dict[str, DenseMaps]] = {}
    for i in range(len(images)):
        sample = images.sample(i)
        true = DenseMaps(*distances(sample.labels.map, sample.labels.classes).numpy())
        predicted = DenseMaps.of(model, sample.image)
        maps[sample.image.tobytes()] = {"predicted": predicted, "true": true}
    print("| foreground | distances | mSA |\n|---|---|---|")
    for foreground, other in itertools.product(("predicted", "true"), repeat=2):

        def mixed(image: np.ndarray, first: str = foreground, second: str = other) -> Instances:
            both = maps[image.tobytes()]
            away = both[second]
            mix = DenseMaps(both[first].foreground, away.centre, away.boundary)
            return instances_of(mix, WatershedConfig()).by_score()

        numbers = evaluate_automatic(model, images, mixed).metrics
        print(f"| {foreground} | {other} | {numbers['msa']:.3f} |", flush=True)


def scores(generator: Any, test: Split) -> dict[str, Any]:
    """The metrics of a generator on images, and its CPU seconds for one."""
    seconds, instances = [0.0], [0]

    def timed(image: np.ndarray) -> Instances:
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", samtune.inference.predictor.PromptMismatch)
            answer = generator(image)
        seconds[0] += time.process_time() - start
        instances[0] += len(answer)
        return answer

    images = samtune.prepare(test, generator.model, train=False)
    numbers = evaluate_automatic(generator.model, images, timed).metrics
    names = ("msa", "sa50", "ap", "ap50", "pq", "aji", "count_error")
    row = {key: round(float(numbers[key]), 4) for key in names}
    return {**row, "instances": instances[0], "cpu_seconds": round(seconds[0] / len(test), 3)}


def page(out: Path) -> None:
    """Prints the table of all measurements."""
    heads = (
        "data",
        "images",
        "training",
        "instances by",
        *("mSA", "SA50", "AP", "AP50", "PQ", "AJI"),
        "count error",
        "s/image",
    )
    print(f"| {' | '.join(heads)} |\n" + "|---" * len(heads) + "|")
    files = [out / name for name in ("rows.jsonl", "whole.jsonl")]
    for line in (each for f in files if f.is_file() for each in f.read_text().splitlines()):
        row = json.loads(line)
        about = out / f"{row['file']}.json"
        what = json.loads(about.read_text()) if about.is_file() else None
        training = "none" if what is None else (
            f"{what['model']}, {what['images']} images, {what['steps']} steps "
            f"({what['cpu_seconds']} CPU s)"
        )  # fmt: skip
        numbers = (f"{row[key]:.3f}" for key in ("msa", "sa50", "ap", "ap50", "pq", "aji"))
        cells = (*numbers, f"{row['count_error']:.1f}", f"{row['cpu_seconds']:.2f}")
        what = f"| {row.get('data', out.name)} | {row['images']} | {training} | {row['way']} "
        print(f"{what}| {' | '.join(cells)} |")


def main() -> None:
    """Reads the command line."""
    verb, *words = sys.argv[1:]
    if verb == "page":
        page(Path(words[0]))
        return
    folder, out = words[0], Path(words[1])
    out.mkdir(parents=True, exist_ok=True)
    if verb == "train":
        for word in words[2:]:
            train(folder, out, word)
    elif verb == "exchange":
        exchange(folder, out, words[2])
    else:
        measure(folder, out, words[2:], whole=verb == "whole")


if __name__ == "__main__":
    main()
