"""Prints what ``defaults.py`` measured: python benchmarks/defaults_page.py FILE.jsonl."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from defaults import ALL, PROMPTS, SETS, SHOTS, TEST, VAL, Row, read_rows
from tables import table

from samtune.metrics.intervals import draws, interval

BUDGET = "20 steps of 2 images, at most 8 objects of each, two validations."
SECTIONS = (
    (
        "Old and new defaults",
        f"{BUDGET} Settings are those of `samtune train`, but for the budget. With the new ones "
        "each kind of prompt has its own strength, chosen on the validation images, of which there "
        f"are {VAL} at most here.",
        ("old", "new"),
    ),
    (
        "Learning rate, decoder alone",
        "The decoder is nearly all that `lora + tuned` trains (756 k of 769 k on nano). 20 steps "
        "of 4 images that are not augmented, features kept.",
        ("decoder-1e-3-20", "decoder-3e-4-20", "decoder-1e-4-20"),
    ),
    (
        "Steps, decoder alone",
        "As before at 3e-4; the last number is the steps.",
        ("decoder-3e-4-20", "decoder-3e-4-100"),
    ),
    (
        "Learning rate, new defaults, no prompt",
        f"{BUDGET} The new defaults, and these at the old rate.",
        ("new", "new, lr=1e-3"),
    ),
    (
        "What is trained",
        "20 steps of 4 images at 3e-4, features kept: a copy of SAM's decoder, or a sixth token "
        "and its head on SAM's own (`hq`), which begin at random values: after 200 steps at 1e-3 "
        "`hq` is among the best (methods.md), after these 20 it has learnt next to nothing.",
        ("decoder-3e-4-20", "hq-3e-4-20"),
    ),
)
"""Titles, what is the same in all, and the variants that are compared."""
RATES = ("3e-4", "1e-3")
"""Learning rates that methods were measured at, in variants named ``hq, lr=3e-4``."""
RATES_TEXT = """20 epochs of batches of 4 images, at most 8 objects of each, two validations; the
best of them is chosen, or the base, as always. `hq` and `semantic` without an adapter, with images
that are not augmented and features kept. Gains of the prompt that is trained.
"""
SHOWN = ("old", "new")
"""Variants of the tables by data set."""
WATCH_LIMIT = 0.01
"""How far a prompt that was not trained may fall."""
ORDER = {shots: i for i, shots in enumerate((*sorted(s for s in SHOTS if s != ALL), ALL))}


def pairs(row: Row, mode: str) -> np.ndarray:
    """IoU before and after of the test images that have something to ask for, ``(n, 2)``."""
    both = zip(row["before"][mode], row["after"][mode], strict=True)
    return np.array([pair for pair in both if None not in pair], np.float64)


def gain(row: Row, mode: str) -> tuple[float, float, float]:
    """The mean gain in IoU, and its paired 95 % bootstrap interval over the test images."""
    differences = np.diff(pairs(row, mode), axis=1)[:, 0]
    images = len(differences)
    ends = interval(np.concatenate([d @ differences / images for d in draws(images)]), images)
    low, high = ends or (-np.inf, np.inf)
    return float(differences.mean()), low, high


def trained(row: Row) -> list[str]:
    """The prompts that a cell was trained for and asked with."""
    own = ("box", "point") if row["prompt"] == "mixed" else (row["prompt"],)
    return [mode for mode in own if mode in row["after"]]


def watched(row: Row) -> list[str]:
    """The prompts that a cell was asked with, and not trained for."""
    return [mode for mode in row["after"] if mode not in trained(row)]


def before(row: Row, mode: str) -> float:
    """The mean IoU of the base."""
    return float(pairs(row, mode)[:, 0].mean())


def mean_gain(rows: Iterable[Row], modes: Callable[[Row], list[str]] = trained) -> float:
    """The mean over cells of the mean over their prompts of the gain."""
    values = [np.mean([gain(row, mode)[0] for mode in modes(row)]) for row in rows if modes(row)]
    return float(np.mean(values)) if values else float("nan")


def falls(rows: Iterable[Row]) -> list[str]:
    """Trained prompts that end below zero-shot by more than the interval reaches."""
    found = []
    for row in rows:
        for mode in trained(row):
            value, _, high = gain(row, mode)
            if high < 0:
                found.append(f"{title_of(row)} asked with {mode} {value:+.3f}")
    return found


def forgets(rows: Iterable[Row]) -> list[str]:
    """Prompts that were not trained and end more than the limit below zero-shot."""
    found = []
    for row in rows:
        for mode in watched(row):
            value = gain(row, mode)[0]
            if value < -WATCH_LIMIT:
                found.append(f"{title_of(row)} asked with {mode} {value:+.3f}")
    return found


def title_of(row: Row) -> str:
    """For a person."""
    shots = "all images" if row["shots"] == ALL else f"{row['shots']} images"
    return f"{row['set']}, {shots}, {row['prompt']}:"


def of(rows: Iterable[Row], **values: Any) -> list[Row]:
    """The rows with these values."""
    return [row for row in rows if all(row[key] == value for key, value in values.items())]


def common(rows: Sequence[Row], variants: Sequence[str]) -> dict[str, list[Row]]:
    """By variant the cells that all of these variants have."""

    def place(row: Row) -> tuple[Any, ...]:
        return tuple(row[key] for key in ("set", "shots", "prompt", "draw"))

    places = [{place(row) for row in of(rows, variant=variant)} for variant in variants]
    shared = set.intersection(*places) if places else set()
    return {v: [row for row in of(rows, variant=v) if place(row) in shared] for v in variants}


def overview(by_variant: Mapping[str, Sequence[Row]]) -> str:
    """One line for each variant: its gain and its harm."""
    columns = ["settings", "cells", "mean gain, trained prompts", "of the worst cell"]
    columns += ["trained prompts below zero-shot", "prompts not trained that lose over 0.01"]
    lines = []
    for variant, rows in by_variant.items():
        asked = sum(len(trained(row)) for row in rows)
        others = sum(len(watched(row)) for row in rows)
        worst = min((gain(row, mode)[0] for row in rows for mode in trained(row)), default=0)
        lines.append([
            f"`{variant}`", str(len(rows)), f"{mean_gain(rows):+.3f}", f"{worst:+.3f}",
            f"{len(falls(rows))} of {asked}", f"{len(forgets(rows))} of {others}",
        ])  # fmt: skip
    return table(columns, lines)


def grid(rows: Sequence[Row], name: str, variants: Sequence[str]) -> str:
    """The cells of one set: for each number of images and prompt the gain of each variant."""
    lines = []
    for shots in ORDER:
        for prompt in PROMPTS:
            cells = [of(rows, variant=v, set=name, shots=shots, prompt=prompt) for v in variants]
            first = next((found[0] for found in cells if found), None)
            if first is None:
                continue
            for mode in [*trained(first), *watched(first)]:
                own = "" if mode in trained(first) else " (not trained)"
                line = [f"{first['images']}", prompt, f"{mode}{own}", f"{before(first, mode):.3f}"]
                for found in cells:
                    if not found:
                        line.append("")
                        continue
                    value, low, high = gain(found[0], mode)
                    mark = "**" if high < 0 else ""
                    line.append(f"{mark}{value:+.3f}{mark} ({low:+.3f} to {high:+.3f})")
                lines.append(line)
    return table(["images", "trained with", "asked with", "zero-shot", *variants], lines)


def rates(rows: Sequence[Row]) -> str:
    """Methods at several learning rates: a line for each cell that all of these have."""
    names = [row["variant"].removesuffix(f", lr={RATES[0]}") for row in rows]
    methods = [name for name, row in zip(names, rows, strict=True) if name != row["variant"]]
    lines = []
    for method in dict.fromkeys(methods):
        shared = common(rows, [f"{method}, lr={rate}" for rate in RATES])
        ordered = (sorted(cells, key=title_of) for cells in shared.values())
        for cells in zip(*ordered, strict=True):
            first, mode = cells[0], trained(cells[0])[0]
            line = [f"`{method}`", first["set"], str(first["images"]), mode]
            line += [str(first["steps"]), f"{before(first, mode):.3f}"]
            for row in cells:
                value, low, high = gain(row, mode)
                line.append(f"{value:+.3f} ({low:+.3f} to {high:+.3f})")
            lines.append(line)
    columns = ["method", "set", "images", "trained with", "steps", "zero-shot"]
    return table([*columns, *(f"gain at {rate}" for rate in RATES)], lines) if lines else ""


def demands(rows: Sequence[Row]) -> str:
    """Which cells fall below the base, in words."""
    lines = [f"- trained, and below zero-shot by more than chance: {one}" for one in falls(rows)]
    lines += [f"- not trained, and more than {WATCH_LIMIT} lower: {one}" for one in forgets(rows)]
    return "\n".join(lines or ["No trained prompt falls below zero-shot, and no other one loses."])


def by_prompt(by_variant: Mapping[str, Sequence[Row]]) -> str:
    """One line for each variant: its gain by the prompt that is trained, and what others lose."""
    prompts = [p for p in PROMPTS if any(of(rows, prompt=p) for rows in by_variant.values())]
    columns = ["settings"]
    for prompt in prompts:
        columns += [f"trained with {prompt}: gain", "other prompts"]
    lines = []
    for variant, rows in by_variant.items():
        line = [f"`{variant}`"]
        for prompt in prompts:
            cells = of(rows, prompt=prompt)
            line += [signed(mean_gain(cells)), signed(mean_gain(cells, watched))]
        lines.append(line)
    return table(columns, lines)


def signed(value: float) -> str:
    """A number with its sign; nothing if there is none."""
    return "" if np.isnan(value) else f"{value:+.3f}"


def with_and_without_vessels(by_variant: Mapping[str, Sequence[Row]]) -> str:
    """The gain of boxes for each variant, which the vessels lift, in a sentence."""
    parts = []
    for variant, rows in by_variant.items():
        boxes = of(rows, prompt="box")
        others = [row for row in boxes if row["set"] != "vessels"]
        if others and len(others) < len(boxes):
            gains = f"{mean_gain(boxes):+.3f} over {len(boxes)} cells"
            parts.append(f"`{variant}` {gains}, {mean_gain(others):+.3f} without vessels")
    return f"Trained with box: {'; '.join(parts)}.\n\n" if parts else ""


def versions(rows: Sequence[Row]) -> str:
    """The commits that measured, of lines that say it."""
    commits = dict.fromkeys(row["commit"] for row in rows if "commit" in row)
    unknown = sum("commit" not in row for row in rows)
    parts = [f"{sum(row.get('commit') == c for row in rows)} at commit {c}" for c in commits]
    parts += [f"{unknown} by earlier code that noted no commit"] if unknown else []
    return f"Cells: {', '.join(parts)}."


def section(rows: Sequence[Row], title: str, text: str, variants: Sequence[str]) -> str:
    """A comparison of variants on the cells that all of them have."""
    there = [v for v in variants if of(rows, variant=v)]
    shared = common(rows, there)
    first = next(iter(shared.values()), [])
    if not first or len(there) < 2:
        return ""
    sets = ", ".join(dict.fromkeys(row["set"] for row in first))
    shots = ", ".join(str(s) for s in ORDER if of(first, shots=s))
    where = f"{sets}; images: {shots}; cells: {len(first)}."
    about = with_and_without_vessels(shared)
    return f"## {title}\n\n{text} {where}\n\n{overview(shared)}\n{by_prompt(shared)}\n{about}"


TILES = """\
The images of vessels, and of tiny-coco if there is one training image, are cut into tiles by the
new defaults (`input.tiles=auto`). Zero-shot is measured here on whole images. A point that was not
trained is answered by the base, at strength 0, but in a tile, where its answer is another one.
"""
MISSING = """## Not measured

Of the grid of 1, 4, 16, 64 and all images by none, point, box and mixed there is what the tables
by data set have; the same commands go on with the cells that lack. The comparison of methods over
three draws is this, for Kvasir-SEG (data.name=kvasir), nuclei (data.masks=instance), ISBI 2012
(data.name=isbi2012) and COCO:

    samtune compare data.root=FOLDER methods=decoder,hq,lora,cat_sam_a,ts_sam,sm_adaptformer \\
        shots=1,4,16 seeds=3 train.max_steps=100 train.batch_size=2

Batch size, warm-up, weight decay and augmentation were not varied.
"""
HEAD = f"""# Defaults that are measured

    python benchmarks/defaults.py --data FOLDER --out FILE.jsonl --variant VARIANT ...
    python benchmarks/defaults_page.py FILE.jsonl > benchmarks/results/defaults.md

Base: the shipped nano in its frame of 256 pixels. A cell is one training: settings, a data set, a
number of images, a prompt. Gains are in IoU, tuned less zero-shot, on the same up to {TEST} test
images, of which each asks for up to 8 objects; up to {VAL} other images are the validation.
Intervals are paired 95 % bootstrap intervals over test images; one draw of the training images.
Settings are chosen on {", ".join(n for n, t in SETS.items() if t.role == "choosing")} and shown on
{", ".join(n for n, t in SETS.items() if t.role == "showing")}. scenes and vessels are drawn by the
project, and nano learnt from scenes of that generator, others than these.

`old` has the earlier values of the settings in the present code, not the earlier code. With
`train.strength=none` the base is still a candidate there, so a training that does harm on the
validation images ends as the base, as it did not when these were the defaults: `old` is better
here than it was.
"""


def main() -> None:
    """Prints the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    args = parser.parse_args()
    rows = [row for row in read_rows(args.file) if row["kind"] == "cell"]
    print(
        f"{HEAD}\n{platform.machine()} without a GPU, torch {torch.__version__}. {versions(rows)}\n"
    )
    for title, text, variants in SECTIONS:
        print(section(rows, title, text, variants), end="")
    if of_rates := rates(rows):
        print(f"## Learning rate of decoders that begin at random\n\n{RATES_TEXT}\n{of_rates}")
    print(f"## What does not hold of the new defaults\n\n{demands(of(rows, variant='new'))}\n")
    print(TILES)
    print(MISSING)
    for name, task in SETS.items():
        shown = [v for v in SHOWN if of(rows, set=name, variant=v)]
        if shown:
            print(f"## {name} (for {task.role})\n\n{grid(rows, name, shown)}")


if __name__ == "__main__":
    main()
