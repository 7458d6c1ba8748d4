"""Prints the result pages of methods.sh and data_sets.sh from the run folders that they leave.

python benchmarks/tables.py methods OUT_FOLDER > benchmarks/results/methods.md
python benchmarks/tables.py data_sets OUT_FOLDER > benchmarks/results/data_sets.md
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from samtune.adapters import ADAPTERS
from samtune.compare.rows import grids, with_deviation
from samtune.model.checkpoint import read_header
from samtune.report.quantities import duration, metric, quantity
from samtune.runs.trees import leaves
from samtune.runs.words import read_tree
from samtune.sam.spec import SPECS
from samtune.sam.weights import fingerprint, load_sam

Tree = Mapping[str, Any]


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def read(path: Path) -> Any:
    """The JSON of a file; of a captured command the last line."""
    text = path.read_text("utf-8")
    return json.loads(text) if text.startswith("{\n") else json.loads(text.splitlines()[-1])


def how(folder: Path, *without: str) -> str:
    """The settings that say what a run's numbers stand for, but some, from its ``config.yaml``."""
    config = leaves(read_tree(folder / "config.yaml"))
    keys = ("train.max_steps", "train.batch_size", "train.lr", "train.loss", "data.augment")
    keys += ("prompts.train", "data.shots")
    return ", ".join(
        f"`{key}={config[key]}`"
        for key in keys
        if key not in without and config.get(key) is not None
    )


def measured(out: Path) -> str:
    """What everything on a page was measured with; the base is that of the runs in ``out``."""
    bases = {read_header(file)["base"]["sha256"] for file in out.rglob("best.safetensors")}
    if len(bases) != 1:
        raise SystemExit(f"{out}: runs of {len(bases)} bases; a page is of one")
    (base,) = bases
    which = "the shipped nano" if base == fingerprint(load_sam("nano")) else "an earlier nano"
    return (
        f"Base: {which}, fingerprint of its tensors {base[:12]}... One thread a run, two runs "
        f"beside each other on {os.cpu_count()} cores ({platform.machine()}, no GPU), torch "
        f"{torch.__version__}. IoU and Dice are means over the prompts of the test split, at the "
        "original resolution. Times are upper bounds: other work ran on the machine."
    )


def methods(out: Path) -> str:
    """Every method on two data sets: the pages of two comparisons."""
    parts = [
        "# Every method with the shipped base\n",
        "    benchmarks/methods.sh isbi2012 ISBI2012_FOLDER OUT_FOLDER\n"
        "    benchmarks/methods.sh camvid CAMVID_FOLDER OUT_FOLDER\n",
        measured(out) + "\n",
        "The same short budget and one rate for all: this shows that each method learns, not which "
        "is best. One seed; zero-shot stands first. Without a prompt nano answers with one object, "
        "so it starts near zero where all of the foreground is asked for. A name with a colon is "
        "another form of a method (`samtune methods NAME`). gsam's ResNet starts at random, where "
        "the published one starts from ImageNet. Memory is the process's, in which the runs follow "
        "one another; each peak is counted anew.\n",
    ]
    fitting = [name for name in ADAPTERS if SPECS["nano"].encoder in ADAPTERS[name].encoders]
    other = ", ".join(f"`{name}`" for name in ADAPTERS if name not in fitting)
    parts.append(f"Not here, since they are made for another kind of base: {other}.\n")
    of_classes = {"lora", "adaptformer", "gsam", "sm_adaptformer", "samus"}
    of_classes |= {"head_lora", "head_conv_lora"}
    for name, title, without in (
        ("isbi2012", "ISBI 2012: cell interiors, no prompt", set()),
        ("camvid", "CamVid: eleven classes, no prompt", set(ADAPTERS) - of_classes),
    ):
        if not (out / name / "comparison.json").is_file():
            parts.append(f"## {title}\n\nNot measured yet.\n")
            continue
        found = read(out / name / "comparison.json")
        first = Path(found["rows"][0]["runs"][0])
        parts += [
            f"## {title}\n",
            f"{found['images']} test images; {how(out / name / first.name)}.\n",
        ]
        before = found["zero_shot"]
        rows = [["zero-shot", "", metric(before["iou"]), metric(before["dice"]), "", "0", "", ""]]
        for row in found["rows"]:
            gain = row["iou"]["mean"] - row["zero_shot"]["iou"]
            rows.append([
                f"`{row['method']}`", f"`{row['decoder']}`", metric(row["iou"]["mean"]),
                metric(row["dice"]["mean"]), metric(gain, sign=True),
                quantity(row["trainable_parameters"]), duration(row["seconds"]),
                quantity(row["peak_memory_bytes"], "B"),
            ])  # fmt: skip
        columns = ("method", "decoder", "IoU", "Dice", "gain", "trained", "time", "memory")
        parts.append(table(columns, rows))
        worse = [r["method"] for r in found["rows"] if r["iou"]["mean"] <= r["zero_shot"]["iou"]]
        parts.append(
            f"Not better than zero-shot: {', '.join(worse)}.\n"
            if worse
            else f"All {len(found['rows'])} beat zero-shot. {added(found['rows'])}\n"
        )
        run = {row["adapter"] for row in found["rows"]} | {"none"}
        left = [method for method in fitting if method not in run | without]
        if left:
            parts.append(f"Not measured yet: {', '.join(left)}.\n")
    return "\n".join(parts)


def added(rows: Sequence[Tree]) -> str:
    """What adapters add to the decoder that all of them share, in a sentence."""
    alone = next(row for row in rows if row["method"] == "decoder")
    gains = {
        row["method"]: row["iou"]["mean"] - alone["iou"]["mean"]
        for row in rows
        if row["decoder"] == alone["decoder"] and row["adapter"] != "none"
    }
    least, most = min(gains, key=gains.__getitem__), max(gains, key=gains.__getitem__)
    return (
        f"`{alone['decoder']}` without an adapter comes to {metric(alone['iou']['mean'])}; "
        f"adapters add {metric(gains[least], sign=True)} (`{least}`) to "
        f"{metric(gains[most], sign=True)} (`{most}`) to it."
    )


def shots(out: Path) -> str:
    """Few shots of Kvasir-SEG, with the guesses that need no model."""
    found = read(out / "kvasir-shots" / "comparison.json")
    rows = [
        [name, "", metric(guess["iou"]), metric(guess["dice"])]
        for name, guess in found["guesses"].items()
    ]
    before = found["zero_shot"]
    rows.append(["zero-shot", "", metric(before["iou"]), metric(before["dice"])])
    rows += [
        [f"`{row['method']}`", str(row["shots"]), with_deviation(row["iou"]),
         with_deviation(row["dice"])]
        for row in found["rows"]
    ]  # fmt: skip
    return table(("", "shots", "IoU", "Dice"), rows)


def prompts(out: Path) -> str:
    """The same models asked with several prompts: IoU."""
    (grid,) = grids(read(out / "kvasir-shots" / "comparison.json"))
    return table(grid.columns, grid.rows)


def matrix(path: Path) -> str:
    """Several models asked with every prompt: IoU."""
    found = read(path)
    models = found["matrix"]
    rows = []
    for mode in models[0]["by_prompt"]:
        rows.append([mode, *(metric(m["by_prompt"][mode]["iou"]) for m in models)])
        for name, guess in found["matrix_guesses"].get(mode, {}).items():
            rows.append([f"· {name}, no model", metric(guess["iou"]), *[""] * (len(models) - 1)])
    names = (
        "trained with " + m["trained_with"] if m["trained_with"] else "zero-shot" for m in models
    )
    return table(("asked with", *names), rows)


def classes(folder: Path) -> str:
    """One class a row."""
    rows = [
        [name, *(metric((v.get(side) or {}).get(key)) for key in ("iou", "iou_pooled")
                 for side in ("zero_shot", "tuned"))]
        for name, v in read(folder / "summary.json")["by_class"].items()
    ]  # fmt: skip
    columns = ("class", "zero-shot IoU", "tuned IoU", "zero-shot pooled", "tuned pooled")
    return table(columns, rows)


def metrics(folder: Path) -> str:
    """One metric a row, zero-shot and tuned, the boxes' guesses first where there are any."""
    summary = read(folder / "summary.json")
    rows = [[f"iou of the {name}", metric(g["iou"]), ""] for name, g in
            (summary.get("guesses") or {}).items()]  # fmt: skip
    named = {key: {s: summary[s][key] for s in ("zero_shot", "tuned")} for key in ("iou", "dice")}
    for name, values in (named | summary["metrics"]).items():
        rows.append([name, *(metric(values.get(side)) for side in ("zero_shot", "tuned"))])
    return f"{summary['images']} images.\n\n" + table(("metric", "zero-shot", "tuned"), rows)


def checks(out: Path) -> str:
    """What ``samtune data check`` says of each folder: a row each."""
    rows = []
    for path in sorted((out / "check").glob("*.json")):
        found = read(path)
        splits = ", ".join(f"{s['images']} {name}" for name, s in found["counts"]["splits"].items())
        kinds = Counter(row["kind"] for row in found["remarks"])
        remarks = ", ".join(f"{kind} ({n})" for kind, n in kinds.items())
        state = "ok" if found["ok"] else f"{len(found['problems'])} problems"
        rows.append([path.stem, state, splits, remarks or "none"])
    return table(("folder", "", "images", "remarks"), rows)


def data_sets(out: Path) -> str:
    """Five data sets: few shots, prompts, classes, instances."""
    shot = Path(read(out / "kvasir-shots" / "comparison.json")["rows"][-1]["runs"][0]).name
    parts = [
        "# The shipped base on five data sets\n",
        "    benchmarks/data_sets.sh PART DATA_FOLDER OUT_FOLDER\n",
        measured(out) + " Adapter `lora`; without prompts the target is the whole foreground.\n",
        "## What `samtune data check` says of the folders\n",
        checks(out),
        "## Kvasir-SEG, few shots, boxes\n",
        "Three draws each, mean and standard deviation; "
        f"{how(out / 'kvasir-shots' / shot, 'data.shots')}.\n",
        shots(out),
        "The same models, IoU by prompt; all but none come from the ground truth:\n",
        prompts(out),
        "Trained with one kind of prompt, asked with each, IoU; "
        f"{how(out / 'kvasir-none', 'prompts.train')}.\n",
        matrix(out / "kvasir-matrix.json"),
    ]
    for name, title, shown in (
        ("camvid", "CamVid, a class a pixel", (metrics, classes)),
        ("isbi2012-gsam", "ISBI 2012 by Generalized SAM's rule", (metrics,)),
        (
            "coco",
            "COCO, one mask an instance, boxes: the test split that samtune makes",
            (metrics,),
        ),
        ("coco-val2017", "The same model on the images of val2017", (metrics,)),
        ("dsb2018", "Data Science Bowl 2018, one mask a nucleus, boxes", (metrics,)),
    ):
        parts.append(f"## {title}\n")
        if (out / name / "config.yaml").is_file():
            parts.append(how(out / name) + "\n")
        parts += [show(out / name) for show in shown]
    return "\n".join(parts)


def main() -> None:
    """Prints one page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", choices=("methods", "data_sets"))
    parser.add_argument("out", type=Path, metavar="OUT_FOLDER")
    args = parser.parse_args()
    print({"methods": methods, "data_sets": data_sets}[args.page](args.out), end="")


if __name__ == "__main__":
    main()
