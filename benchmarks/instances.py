"""Automatic instances: plain generator, watershed of distances, and seeds as prompts.

    python benchmarks/instances.py train FOLDER OUT MODEL:SHOTS:STEPS ...  # what is finished stays
    python benchmarks/instances.py measure FOLDER OUT [WAY ...]        # what is measured stays
    python benchmarks/instances.py page OUT                            # the table

FOLDER is that of a data set of DATA, by its name. MODEL is one of MODELS, SHOTS a number of
training images or ``all``; MODEL:SHOTS:STEPS:FILE goes on with a file of OUT, as in
``image:all:100:image-16-400``. WAY is one of those in which instances are found. The last weights
of a training are measured, on the first images of the test split that samtune makes; ways that are
fitted see the first images of the validation split.
"""

from __future__ import annotations

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
from samtune.data.opening import DataSplits
from samtune.data.split import Split
from samtune.evaluation.automatic import evaluate_automatic
from samtune.evaluation.calibration import calibrate, calibrate_watershed
from samtune.inference.everything.instances import Instances
from samtune.inference.everything.watershed import WatershedConfig, WatershedGenerator

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
        "decoder_options": {"scale": 8},
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
    "frozen": {
        "adapter": "none",
        "decoder": "instances",
        "decoder_options": {"scale": 8},
        "prompts": "none",
        "loss": "distances + foreground",
        "cached": True,
    },
    "both": {
        "decoder": "instances",
        "decoder_options": {"scale": 8, "prompts": "tuned"},
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
If encodings are cached, images are not augmented."""
LOOSE = {"pred_iou_thresh": 0.5, "stability_score_thresh": 0.5}
"""Thresholds of the grid that are about those of small training, instead of SAM's 0.88 and 0.95."""


def data_of(folder: str, augment: str = "standard") -> DataSplits:
    """The images, with splits that are the same at each call."""
    return samtune.open_data(folder, augment=augment, **DATA[Path(folder).name])


def counts_of(folder: str, grid: bool) -> tuple[int, int]:
    """How many images are measured, and fitted on."""
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
    data = data_of(folder, "none" if form.get("cached") else "standard")
    split = data.train if shots == "all" else data.train[: int(shots)]
    prompts = samtune.PromptConfig(train=form["prompts"].split(","), **form.get("settings", {}))
    images = samtune.prepare(split, model, train=True, prompts=prompts)
    config = samtune.FitConfig(
        max_steps=int(steps),
        batch_size=BATCH,
        loss=form["loss"],
        keep="none",
        average="none",
        feature_cache=10**9 if form.get("cached") else 0,
    )
    start = time.process_time()
    samtune.fit(model, images, config, on_event=print)
    model.strength = 1
    samtune.save(model, file)
    seconds = round(time.process_time() - start)
    about = {"model": name, "shots": shots, "steps": int(steps), "images": len(split)}
    about |= {"after": before[0]} if before else {}
    file.with_suffix(".json").write_text(json.dumps({**about, "cpu_seconds": seconds}))


def generators(model: samtune.FineTuned, folder: str) -> dict[str, Callable[[], Any]]:
    """By name: what makes a generator of a model."""
    grid = partial(samtune.MaskGenerator, model, points_per_side=POINTS)
    return {
        "watershed": partial(WatershedGenerator, model),
        "watershed, fitted": partial(fitted, model, folder, False),
        "seeds as prompts": partial(WatershedGenerator, model, WatershedConfig("prompts")),
        "grid, SAM's thresholds": grid,
        "grid, loose thresholds": partial(grid, **LOOSE),
        "grid, fitted": partial(fitted, model, folder, True),
    }


def measure(folder: str, out: Path, ways: Sequence[str] = ()) -> None:
    """Measures each trained model, and the base, in each way that it has."""
    rows = out / "rows.jsonl"
    known = rows.read_text().splitlines() if rows.is_file() else []
    done = {(row["file"], row["way"]) for row in map(json.loads, known)}
    base = samtune.FineTuned(samtune.load_sam("nano"))
    models = {"base": lambda: base}
    for file in sorted(out.glob("*.safetensors")):
        models[file.stem] = lambda file=file: samtune.load(file)
    for name, load in models.items():
        model = load()
        for way, make in generators(model, folder).items():
            if (name, way) in done or (ways and way not in ways):
                continue
            try:
                generator = make()
            except samtune.InputError as error:
                print(name, way, error)
                continue
            count, _ = counts_of(folder, "grid" in way)
            samples = data_of(folder).test[:count]
            row = {"file": name, "way": way, "images": len(samples), **scores(generator, samples)}
            with rows.open("a") as sink:
                sink.write(json.dumps(row) + "\n")
            print(row, flush=True)


def fitted(model: samtune.FineTuned, folder: str, grid: bool) -> Any:
    """A generator whose settings are fitted for mSA on validation images."""
    _, count = counts_of(folder, grid)
    val = samtune.prepare(data_of(folder).val[:count], model, train=False)
    if grid:
        fit = calibrate(model, val, grids=(POINTS,))
        print(fit.settings, fit.default, fit.value, flush=True)
        return samtune.MaskGenerator(model, **fit.settings)
    fit = calibrate_watershed(model, val)
    print(fit.settings, fit.default, fit.value, flush=True)
    return WatershedGenerator(model, WatershedConfig(**fit.settings))


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
    """Prints the table."""
    heads = (
        "training",
        "instances by",
        "mSA",
        "SA50",
        "AP",
        "AP50",
        "PQ",
        "count error",
        "s/image",
    )
    print(f"| {' | '.join(heads)} |\n" + "|---" * len(heads) + "|")
    for line in (out / "rows.jsonl").read_text().splitlines():
        row = json.loads(line)
        about = out / f"{row['file']}.json"
        what = json.loads(about.read_text()) if about.is_file() else None
        training = "none" if what is None else (
            f"{what['model']}, {what['images']} images, {what['steps']} steps "
            f"({what['cpu_seconds']} CPU s)"
        )  # fmt: skip
        numbers = (f"{row[key]:.3f}" for key in ("msa", "sa50", "ap", "ap50", "pq"))
        cells = (*numbers, f"{row['count_error']:.1f}", f"{row['cpu_seconds']:.2f}")
        print(f"| {training} | {row['way']} | {' | '.join(cells)} |")


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
    else:
        measure(folder, out, words[2:])


if __name__ == "__main__":
    main()
