"""Whole trainings as a user types them, with all defaults, on 16 + 16 images of Kvasir-SEG.

    python benchmarks/whole_runs.py KVASIR_FOLDER OUT_FOLDER
    python benchmarks/whole_runs.py KVASIR_FOLDER OUT_FOLDER --page

The first trains what is not there yet, the second prints ``benchmarks/results/whole_runs.md``.
KVASIR_FOLDER has ``images``, ``masks`` and the lists of the data set's split: the first 16 lines of
``train.txt`` are trained on, the first 16 of ``validation.txt`` are the validation, and all of
``test.txt`` the test. Nothing but the length and the prompts is set.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from source_version import source_version
from tables import table

from samtune.report.quantities import metric

FEW = 16
"""Images to train on, and as many for the validation."""
RUNS = {
    "none-point": ("prompts.train=none,point",),
    "box": (),
}
"""The words of each run beside the data's and :data:`LENGTH`."""
LENGTH = "train.max_steps=120"


def write_lists(kvasir: Path, folder: Path) -> Path:
    """A folder with the same images and masks, and lists of few training images; gives it."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("images", "masks"):
        if not (folder / part).exists():
            (folder / part).symlink_to((kvasir / part).resolve())
    for name, count in (("train.txt", FEW), ("validation.txt", FEW), ("test.txt", None)):
        lines = (kvasir / name).read_text("utf-8").splitlines()[:count]
        (folder / name).write_text("\n".join(lines) + "\n", "utf-8")
    return folder


def train(data: Path, out: Path) -> None:
    """Trains each run that has no summary yet."""
    for name, words in RUNS.items():
        if not (out / name / "summary.json").is_file():
            command = [sys.executable, "-m", "samtune", "train", f"data.root={data}", LENGTH]
            noted = json.dumps(source_version())
            subprocess.run([*command, *words, f"output={out / name}"], check=True)
            (out / f"{name}.version.json").write_text(noted, "utf-8")


def page(out: Path) -> str:
    """The page of the runs that are there."""
    parts = [
        "# Whole trainings with all defaults\n",
        "    python benchmarks/whole_runs.py KVASIR_FOLDER OUT_FOLDER\n",
        f"Kvasir-SEG, {FEW} images and {FEW} for validation, test split; the shipped base. What is "
        "typed stands above each table; a step has 4 images. IoU with its 95 % bootstrap interval "
        f"over test images, paired for the difference. {platform.machine()} without a GPU, torch "
        f"{torch.__version__}.\n",
    ]
    for name, words in RUNS.items():
        if (out / name / "summary.json").is_file():
            summary = json.loads((out / name / "summary.json").read_text("utf-8"))
            typed = " ".join(["samtune train data.root=FOLDER", LENGTH, *words])
            parts += [f"## {name}\n", f"    {typed}\n", run_table(summary)]
            parts.append(f"{summary['images']} test images. {summary['verdict'].capitalize()}.")
            parts[-1] += f"{handed_back(summary)} {measured_at(out / f'{name}.version.json')}\n"
    return "\n".join(parts)


def handed_back(summary: dict[str, Any]) -> str:
    """A sentence if a run keeps the base's numbers by being the base."""
    if any(values["trained"] and values["tuned"] != values["zero_shot"]
           for values in summary["by_prompt"].values()):  # fmt: skip
        return ""
    return " The trained prompts keep their IoU because the run hands the base back, not by tuning."


def measured_at(path: Path) -> str:
    """The code that measured a run, in a sentence."""
    if not path.is_file():
        return "An earlier version of the code measured it, which noted no commit."
    noted = json.loads(path.read_text("utf-8"))
    return f"Measured by samtune {noted['version']} at commit {noted['commit']}."


def run_table(summary: dict[str, Any]) -> str:
    """One prompt a row."""
    rows = []
    for mode, values in summary["by_prompt"].items():
        ends = values["intervals"]
        cells = [
            f"{metric(values[side]['iou'])} ({metric(low)} to {metric(high)})"
            for side in ("zero_shot", "tuned")
            for low, high in [ends[side]["iou"]]
        ]
        low, high = (metric(end, sign=True) for end in ends["difference"]["iou"])
        gain = metric(values["tuned"]["iou"] - values["zero_shot"]["iou"], sign=True)
        which = "trained" if values["trained"] else "kept"
        rows.append([f"{mode} ({which})", *cells, f"{gain} ({low} to {high})"])
    return table(("asked with", "zero-shot", "tuned", "difference"), rows)


def main() -> None:
    """Trains, or prints the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kvasir", type=Path, metavar="KVASIR_FOLDER")
    parser.add_argument("out", type=Path, metavar="OUT_FOLDER")
    parser.add_argument("--page", action="store_true")
    args = parser.parse_args()
    if args.page:
        print(page(args.out), end="")
    else:
        train(write_lists(args.kvasir, args.out / "data"), args.out)


if __name__ == "__main__":
    main()
