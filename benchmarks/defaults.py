"""Tunes the shipped base on many small tasks, to choose default settings and to show them.

    python benchmarks/defaults.py --data FOLDER --out FILE.jsonl --variant old
    python benchmarks/defaults.py --data FOLDER --out FILE.jsonl --variant rate3e-4 \
        --set dsb2018 scenes --shots 4 16 --prompts box none train.lr=3e-4
    python benchmarks/defaults.py --data FOLDER --out FILE.jsonl --variant old new --cover
    python benchmarks/defaults_page.py FILE.jsonl > benchmarks/results/defaults.md

A cell is one training: a variant of the settings, a data set, a number of images, a prompt, a draw
of the images. Each finished cell is one line of the file with its settings and the IoU of every
test image before and after, by prompt; cells that are there already are skipped, so the same
command goes on. Cells come in the order of their worth: 16 images of every set first.

FOLDER holds ``camvid``, ``dsb2018``, ``isbi2012``, ``kvasir-seg`` and ``tiny-coco``, as their
sources distribute them; the drawn sets are written beside FILE.jsonl. Sets for choosing and sets
for showing are different ones (:data:`SETS`). Of each set the same few images are validation and
test, by the hash of their names, and of each of these images the same few objects are asked for
(:class:`FewObjects`). An image's IoU is the mean over its prompts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from drawn_sets import write
from source_version import source_version

from samtune.data import Example, SegmentationDataset, collate
from samtune.data.layouts import find
from samtune.data.shapes import measure as measure_objects
from samtune.data.splits import divided, draw_shots
from samtune.evaluation.image_results import pair_masks
from samtune.inference.batches import prompted_batch
from samtune.metrics import iou_dice
from samtune.model.feature_cache import FeatureCache
from samtune.model.finetuned import FineTuned
from samtune.prompts import NONE
from samtune.runs.assembly import dataset_of, tuned
from samtune.runs.config import RunConfig
from samtune.runs.plan import with_framing
from samtune.runs.selection import judged_by
from samtune.runs.words import from_words
from samtune.sam.model import Sam
from samtune.sam.weights import load_sam
from samtune.training.engine import fit
from samtune.training.order import batches_per_epoch
from samtune.training.schedule import FitConfig, total_steps

ALL = "all"
TEST, VAL = 24, 8
"""Images at most."""
OBJECTS = 8
"""Objects of a validation or test image at most."""
VALIDATIONS = 2
"""Of a training, where its settings do not say; the last step has the last one."""
MOST = 256
"""Images that ``all`` means at most."""
WATCHED = ("none", "point", "box")
"""Prompts that every model is asked with, beside its own."""


@dataclass(frozen=True)
class Task:
    """A data set and how it is read."""

    role: str
    """Whether settings are chosen on it, or it is kept back to show them."""
    words: tuple[str, ...]
    folder: str = ""
    """Below the folder of all; empty for a drawn set."""
    test: str = "test"
    """The split that validation and test images come from, if one serves for both."""
    classes: bool = False
    """Without a prompt a map of classes is asked for."""


SETS = {
    "camvid": Task("choosing", ("data.name=camvid",), "camvid", classes=True),
    "tiny-coco": Task("choosing", (), "tiny-coco", test="val"),
    "dsb2018": Task("choosing", ("data.masks=instance",), "dsb2018"),
    "scenes": Task("choosing", ("data.masks=instance",)),
    "kvasir-seg": Task("showing", ("data.name=kvasir",), "kvasir-seg"),
    "isbi2012": Task(
        "showing",
        (
            "data.name=isbi2012",
            "data.objects=component",
            "data.min_area=50",
            "data.val_fraction=0.2",
        ),
        "isbi2012",
    ),
    "vessels": Task("showing", ()),
}
"""Whole foreground for kvasir-seg and vessels, a class of an image for camvid, instances else."""
OLD = (
    "train.lr=1e-3", "train.epochs=20", "train.warmup=0.05", "train.weight_decay=1e-4",
    "train.batch_size=4", "data.augment=standard", "adapter.name=lora", "input.tiles=whole",
    "train.strength=none", "train.average=none", "train.keep=none",
)  # fmt: skip
"""The defaults before they were chosen by measurement."""
VARIANTS: dict[str, tuple[str, ...]] = {"old": OLD, "new": ()}
SHOTS = (16, 1, ALL, 4, 64)
PROMPTS = ("none", "box", "point", "mixed")
Row = dict[str, Any]
Place = tuple[str, int | str, str, int]
"""What a cell has beside its variant: set, images, prompt and draw."""


@dataclass(frozen=True)
class Cell:
    """One training."""

    variant: str
    set: str
    shots: int | str
    prompt: str
    draw: int

    def key(self) -> tuple[Any, ...]:
        """What tells it from others in the file."""
        return ("cell", self.variant, self.set, self.shots, self.prompt, self.draw)


class FewObjects(SegmentationDataset):
    """A data set of evaluation that asks for so many objects of an image, evenly spread."""

    def __getitem__(self, index: int) -> Example:
        """One example."""
        example = super().__getitem__(index)
        count = len(example.prompts)
        if count <= OBJECTS or example.original is None:
            return example
        rows = torch.linspace(0, count - 1, OBJECTS).round().long()
        some = replace(example, prompts=example.prompts.only(rows), classes=example.classes[rows])
        if example.objects is not None:
            objects = replace(example.objects, numbers=example.objects.numbers[rows])
            return replace(some, objects=objects)
        return replace(some, targets=example.targets[rows], original=example.original[rows])


class Bench:
    """What cells share: the base, the records and the answers of the base.

    Args:
        data: The folder of all data sets.
        out: The file of lines.
        words: Settings over those of the variant.
        steps: Optimiser steps at most; ``None`` for no limit.
    """

    def __init__(self, data: Path, out: Path, words: Sequence[str], steps: int | None) -> None:
        self.data, self.out, self.words, self.steps = data, out, tuple(words), steps
        self.source = source_version()
        self.sam: Sam = load_sam("nano", device="cpu")
        self.kept = FeatureCache(2**30)
        self.parts: dict[str, dict[str, list[Any]]] = {}
        self.tests: dict[tuple[str, str], SegmentationDataset] = {}
        self.before: dict[tuple[str, str], list[float]] = {}
        self.done: set[tuple[Any, ...]] = set()
        for row in read_rows(out):
            self.done.add(key_of(row))
            if row["kind"] == "zero_shot":
                self.before[row["set"], row["prompt"]] = row["iou"]

    def config(self, cell: Cell) -> RunConfig:
        """The settings of a cell."""
        task = SETS[cell.set]
        folder = task.folder and self.data / task.folder
        root = folder or write(cell.set, self.out.parent / "drawn" / cell.set)
        own = [f"data.root={root}", f"prompts.train={cell.prompt}", f"seed={cell.draw}"]
        own.append(f"prompts.eval={'box' if cell.prompt == 'mixed' else cell.prompt}")
        if task.classes and cell.prompt == NONE:
            own.append("decoder.name=semantic")
        words = [*own, *task.words, *VARIANTS.get(cell.variant, ()), *self.words, "device=cpu"]
        return from_words(words)

    def records(self, cell: Cell, config: RunConfig) -> dict[str, list[Any]]:
        """The images of a cell by split."""
        if cell.set not in self.parts:
            task, parts = SETS[cell.set], divided(find(config.data), config.data)
            val, test = hashed(parts["val"]), hashed(parts["test"])
            if task.test == "val":
                val, test = val[:VAL], val[VAL:]
            train = hashed(parts["train"])[:MOST]
            self.parts[cell.set] = {"train": train, "val": val[:VAL], "test": test[:TEST]}
        parts = self.parts[cell.set]
        if cell.shots == ALL:
            return parts
        data = replace(config.data, shots=int(cell.shots), shot_seed=cell.draw)
        return {**parts, "train": draw_shots(parts["train"], data)}

    def fits(self, cell: Cell) -> bool:
        """Whether the set has so many images, and more than the next smaller number of shots."""
        if cell.shots == ALL:
            return True
        whole = replace(cell, shots=ALL)
        return len(self.records(whole, self.config(whole))["train"]) > int(cell.shots)

    def run(self, cell: Cell) -> None:
        """Trains a cell, and writes its line and those of the base that lack."""
        start = time.perf_counter()
        config = self.config(cell)
        parts = self.records(cell, config)
        config, _ = with_framing(config, measure_objects(parts["train"], config.data))
        torch.manual_seed(config.seed)
        model = tuned(config, self.sam)
        train = dataset_of(config, model, parts["train"], True)
        settings, mode = judged_by(config)
        val = self._test(cell, config, model, mode, "val")
        result = fit(
            model, train, val, self._budget(settings, len(train)), seed=cell.draw, device="cpu",
            measuring=config.eval,
        )  # fmt: skip
        model.cache = self.kept
        modes = self._modes(cell)
        tests = {mode: self._test(cell, config, model, mode, "test") for mode in modes}
        lacking = {m: d for m, d in tests.items() if (cell.set, m) not in self.before}
        if lacking:
            for mode, iou in measure(model.plain(), lacking).items():
                self.before[cell.set, mode] = iou
                self._add({"kind": "zero_shot", "set": cell.set, "prompt": mode, "iou": iou})
        after = measure(model, tests)
        self._add({
            "kind": "cell", **vars(cell), "images": len(train), "steps": result.steps,
            "best": result.best, "trained": model.trainable(),
            "settings": config.differing(), "words": [*VARIANTS.get(cell.variant, ()), *self.words],
            "before": {mode: self.before[cell.set, mode] for mode in modes},
            "after": after, "seconds": round(time.perf_counter() - start, 1),
        })  # fmt: skip

    def _budget(self, fit_config: FitConfig, images: int) -> FitConfig:
        """The training's settings within the budget."""
        if self.steps is not None:
            most = min(self.steps, fit_config.max_steps or self.steps)
            fit_config = replace(fit_config, max_steps=most)
        batches = batches_per_epoch(images, fit_config.whole_batch, 1)
        total = total_steps(fit_config, batches)
        return replace(
            fit_config, eval_every=fit_config.eval_every or max(1, -(-total // VALIDATIONS))
        )

    def _modes(self, cell: Cell) -> tuple[str, ...]:
        if SETS[cell.set].classes:  # one model answers with maps of classes or with single masks
            return (NONE,) if cell.prompt == NONE else ("point", "box")
        return WATCHED

    def _test(
        self, cell: Cell, config: RunConfig, model: FineTuned, mode: Any, split: str
    ) -> SegmentationDataset:
        key = (f"{cell.set}-{split}", f"{mode}, {model.input}")
        if key not in self.tests:
            records = self.records(cell, config)[split]
            self.tests[key] = dataset_of(config, model, records, False, mode)
            self.tests[key].__class__ = FewObjects
        return self.tests[key]

    def _add(self, row: Row) -> None:
        self.out.parent.mkdir(parents=True, exist_ok=True)
        with self.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**row, **self.source}) + "\n")
        self.done.add(key_of(row))


@torch.no_grad()
def measure(
    model: FineTuned, tests: Mapping[str, SegmentationDataset]
) -> dict[str, list[float | None]]:
    """By prompt the IoU of each image, the mean over its prompts; each image is encoded once.

    An image without anything to ask for has none.
    """
    model.eval()
    values: dict[str, list[float | None]] = {mode: [] for mode in tests}
    for index in range(len(next(iter(tests.values())))):
        images = None
        for mode, dataset in tests.items():
            batch = collate([dataset[index]])
            images = images or prompted_batch(model, batch)
            masks = images.answer(batch.prompts).masks[0]
            targets, valid = batch.originals[0], batch.original_valid[0]
            pairs = pair_masks(dataset, masks, targets, valid, batch.classes)
            iou, _ = iou_dice(pairs.masks, pairs.targets, pairs.valid)
            values[mode].append(round(float(iou.mean()), 5) if len(iou) else None)
    return values


def hashed(records: Sequence[Any]) -> list[Any]:
    """Records in an order by the hash of their names."""
    return sorted(records, key=lambda r: hashlib.sha256(f"grid:{r.name}".encode()).digest())


def read_rows(path: Path) -> list[Row]:
    """The lines of a file; a last one that was cut off is left out."""
    rows = []
    for line in path.read_text("utf-8").splitlines() if path.is_file() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def key_of(row: Row) -> tuple[Any, ...]:
    """What tells a line from others."""
    if row["kind"] == "zero_shot":
        return ("zero_shot", row["set"], row["prompt"])
    return Cell(*(row[k] for k in ("variant", "set", "shots", "prompt", "draw"))).key()


def cells(args: argparse.Namespace, bench: Bench) -> Iterator[Cell]:
    """The cells that the command line asks for, in order; those of one place together."""
    places: Sequence[Place] = [
        (name, shots, prompt, draw)
        for draw in range(args.draws)
        for shots in args.shots
        for prompt in args.prompts
        for name in args.set
    ]
    if args.cover:
        places = cover([place for place in places if bench.fits(Cell("", *place))], bench.done)
    for place in places:
        for variant in args.variant:
            yield Cell(variant, *place)


def cover(places: Sequence[Place], done: Collection[tuple[Any, ...]]) -> list[Place]:
    """Those that are measured, then few that meet every pair of set, images and prompt."""
    there = {key[2:] for key in done if key[0] == "cell"}
    chosen = [place for place in places if place in there]
    rest = [place for place in places if place not in there]
    met = {pair for place in chosen for pair in pairs_of(place)}
    while rest:
        best = max(rest, key=lambda place: len(pairs_of(place) - met))
        if pairs_of(best) <= met:
            break
        met |= pairs_of(best)
        rest.remove(best)
        chosen.append(best)
    return chosen


def pairs_of(place: Place) -> set[tuple[Any, ...]]:
    """What meets in a place, two by two."""
    return set(combinations(zip(("set", "shots", "prompt"), place, strict=False), 2))


def number(word: str) -> int | str:
    """A number of images, or all."""
    return word if word == ALL else int(word)


def main(words: Sequence[str] | None = None) -> None:
    """Measures what is not there yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variant", nargs="+", default=["new"])
    parser.add_argument("--set", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--shots", nargs="+", type=number, default=list(SHOTS))
    parser.add_argument("--prompts", nargs="+", default=list(PROMPTS))
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--cover", action="store_true", help="few cells that meet every pair")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("settings", nargs="*", metavar="key=value")
    args = parser.parse_args(words)
    torch.set_num_threads(1)
    bench = Bench(args.data, args.out, args.settings, args.steps)
    end = time.monotonic() + 60 * args.minutes
    for cell in cells(args, bench):
        if time.monotonic() > end:
            print("the time is up; the same command goes on", file=sys.stderr)
            break
        if cell.key() not in bench.done and bench.fits(cell):
            bench.run(cell)
            print(*cell.key()[1:], file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
