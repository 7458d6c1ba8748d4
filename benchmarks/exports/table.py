"""Every method in every format: difference, size, and seconds in onnxruntime beside PyTorch.

    python benchmarks/exports/table.py run FILE.jsonl [ADAPTER DECODER]
    python benchmarks/exports/table.py large FILE.jsonl
    python benchmarks/exports/table.py page FILE.jsonl > benchmarks/results/exports.md

A row is one adapter with one decoder, both as ``name`` or ``name:form``, and one line of the file;
rows that are there already are skipped, so the same command goes on. Rows come in the order of
their worth: every adapter with one decoder and every decoder with one adapter first, then other
forms, then all other pairs. With ADAPTER and DECODER only that row is written, anew. ``large`` adds
a row of ViT-B at 1024 pixels with drawn weights, also in labelme's own engine; it takes minutes.

The base is the shipped nano: its real weights give real masks, and a row takes about half a minute
of one core, where ViT-B takes minutes. Every trained tensor is moved by noise, so that each part of
a method acts. What nano cannot take runs on MobileSAM's TinyViT with drawn weights and a frame of
256 pixels. Seconds are those of the processor in one thread, so that other work on the machine does
not count.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from samtune.adapters import ADAPTERS
from samtune.assets import demo_data
from samtune.data import read_image
from samtune.decoders import DECODERS
from samtune.errors import InputError
from samtune.exports.base import Ask, Job
from samtune.exports.checks import Reference, asks
from samtune.exports.formats.onnx import OnnxAnswers
from samtune.exports.onnx_files import OnnxModel
from samtune.exports.writing import PICTURE, SUMMARY, export
from samtune.geometry import InputPolicy
from samtune.model.finetuned import FineTuned, check_fit, check_pair
from samtune.registry import Registry
from samtune.report.page import versions
from samtune.sam.model import Sam
from samtune.sam.spec import SPECS
from samtune.sam.weights import load_sam

Row = dict[str, Any]
BASES = ("nano", "vit_t")
GRAPHS = ("onnx", "torch", "pth", "hf", "peft")
"""The formats that hold tensors and graphs alone: what they can express depends on the method."""
TOOLS = ("anylabeling", "x-anylabeling", "labelme", "samexporter")
"""The formats that put the graphs of ``onnx`` behind a tool's own frame."""
WITH_TOOLS = ("tuned", "hq", "prompt_free")
"""Decoders that read the embedding alone, or more, or no prompt."""
STRETCH = "x-anylabeling, stretch"
LOADING = ("cvat", "label-studio", "hub")
"""The formats that load the checkpoint, whatever it holds."""
TOLD = "lora"
"""The adapter with which every decoder, and every format of tools, is run."""
UNPROMPTED = " without prompts"
LARGE = "tuned, 1024 pixels"
NOISE = 0.05
CLASSES = 5


def covering() -> Iterator[tuple[str, str]]:
    """Every adapter with one decoder, every decoder with one adapter, and every other form."""
    fitting = [(a, d) for a in ADAPTERS for d in DECODERS if base_of(a, d)]
    alone = {a: "tuned" if (a, "tuned") in fitting else dict(fitting)[a] for a in ADAPTERS}
    whose = {d: a for a, d in reversed(fitting)}
    whose |= {d: TOLD for d in DECODERS if (TOLD, d) in fitting}
    yield from alone.items()
    yield from ((a, d) for d, a in whose.items())
    yield TOLD, f"tuned{UNPROMPTED}"
    yield from ((f"{a}:{form}", alone[a]) for a in ADAPTERS for form in ADAPTERS.forms(a))
    yield from ((whose[d], f"{d}:{form}") for d in DECODERS for form in DECODERS.forms(d))


def pairs() -> list[tuple[str, str]]:
    """Every pair of an adapter and a decoder that fit, other forms too, by their worth."""
    fitting = [(a, d) for a in ADAPTERS for d in DECODERS if base_of(a, d)]
    return list(dict.fromkeys([*covering(), *fitting]))


def base_of(adapter: str, decoder: str) -> str | None:
    """The base that a pair runs on, or ``None`` if it is refused on all."""
    for name in BASES:
        try:
            check_pair(adapter, decoder)
            check_fit(adapter, decoder, SPECS[name])
        except InputError:
            continue
        return name
    return None


def with_form(registry: Registry[Any], name: str) -> tuple[str, dict[str, Any]]:
    """A method's name, and the options of its form."""
    name, _, form = name.partition(":")
    return name, dict(registry.forms(name)[form]) if form else {}


def model_of(adapter: str, decoder: str) -> FineTuned:
    """The model of a row, every trained tensor of which was moved."""
    unprompted = decoder.endswith(UNPROMPTED)
    decoder = decoder.removesuffix(UNPROMPTED)
    (adapter, of_adapter), (decoder, of_decoder) = (
        with_form(ADAPTERS, adapter),
        with_form(DECODERS, decoder),
    )
    if "classes" in DECODERS[decoder].Config.__dataclass_fields__:
        of_decoder.setdefault("classes", CLASSES)
    name = base_of(adapter, decoder)
    assert name is not None, f"{adapter} and {decoder} fit no base"
    torch.manual_seed(0)
    model = FineTuned(
        load_sam("nano") if name == "nano" else drawn(name),
        adapter,
        decoder,
        adapter_options=dict(ADAPTERS[adapter].small) | of_adapter
        if name == "nano"
        else of_adapter,
        decoder_options=of_decoder,
        input=InputPolicy((256, 256)),
        prompts="box+point" if DECODERS[decoder].prompted and not unprompted else "none",
    )
    return moved(model)


def moved(model: FineTuned) -> FineTuned:
    """A model of which every trained tensor is off its start, so that each part acts."""
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(NOISE * torch.randn_like(tensor) * min(1.0, float(tensor.std(False)) + 0.1))
    return model.eval()


def drawn(name: str) -> Sam:
    """A base of an official size with drawn weights, whose masks mean nothing but must agree."""
    sam = Sam(SPECS[name])
    with torch.no_grad():
        for tensor in sam.image_encoder.parameters():
            if tensor.dim() > 1:
                tensor.normal_(std=0.02)
    return sam.freeze()


def row_of(adapter: str, decoder: str, photos: Path) -> Row:
    """A row: what each format comes to, or why there is none."""
    formats = GRAPHS if (adapter, decoder) in covering() else set(GRAPHS) - {"torch"}
    row: Row = {"adapter": adapter, "decoder": decoder, "formats": {}}
    model = model_of(adapter, decoder)
    row |= {"base": model.sam.spec.name, "trained": model.trainable()}
    cells = {name: (model, name) for name in GRAPHS if name in formats}
    if adapter == TOLD:
        cells |= {name: (model, name) for name in LOADING}
    if adapter == TOLD and decoder in WITH_TOOLS:
        cells |= {name: (model, name) for name in TOOLS}
        stretching = copy.deepcopy(model)  # the base is shared
        stretching.tuned_input = replace(model.tuned_input, resize="stretch")
        cells[STRETCH] = stretching, "x-anylabeling"
    row["formats"] = {key: cell(*value, photos) for key, value in cells.items()}
    return row


def cell(model: FineTuned, name: str, photos: Path) -> Row:
    """One format of a row."""
    with TemporaryDirectory() as place:
        began = time.process_time()
        try:
            exported = export(model, Path(place) / "out", name, name="m", check=photos)
        except InputError as error:
            return {"reason": str(error)}
        spent = time.process_time() - began
        files = [
            exported.folder / file for file in exported.files if file not in (SUMMARY, PICTURE)
        ]
        findings = exported.findings
        result: Row = {
            "difference": findings.difference,
            "iou": findings.iou,
            "iou_as_consumer": findings.consumer_iou,
            "bytes": sum(file.stat().st_size for file in files),
            "export_seconds": spent,
        }
        if name == "onnx":
            result |= seconds(Job(model, "m"), exported.folder, photos)
        return result


class OneThread(OnnxAnswers):
    """The files in one thread."""

    def opened(self, path: Path) -> Any:
        """A file to run."""
        return OnnxModel(path.with_name(f"{path.name}.onnx"), threads=1)


def seconds(job: Job, folder: Path, photos: Path) -> Row:
    """Seconds of one image and one prompt, in onnxruntime and in PyTorch: the least of five."""
    image = read_image(next(photos.iterdir()), job.model.input)
    answers = OneThread(job, folder)
    ask = next(asks(image.shape[:2], answers.kinds, Reference(job, image)))
    ways: dict[str, Callable[[np.ndarray], Any]] = {
        "onnxruntime_seconds": lambda x: answers.same_pixels(x, ask),
        "torch_seconds": lambda x: Reference(job, x).logits(ask),
    }
    least = dict.fromkeys(ways, float("inf"))
    for i in range(6):
        for name, way in ways.items():
            copy = image.copy()  # else the last embedding is taken
            began = time.process_time()
            way(copy)
            if i:
                least[name] = min(least[name], time.process_time() - began)
    return least


def run(file: Path, only: tuple[str, str] | None) -> None:
    """Writes the rows that are missing."""
    torch.set_num_threads(1)
    rows = read(file)
    with TemporaryDirectory() as place:
        shutil.copy(photo(), place)
        for adapter, decoder in [only] if only else pairs():
            if not only and (adapter, decoder) in rows:
                continue
            began = time.process_time()
            row = row_of(adapter, decoder, Path(place))
            row["seconds"] = time.process_time() - began
            append(file, row)
            print(f"{adapter} {decoder}: {row['seconds']:.0f} s", flush=True)


def large(file: Path) -> None:
    """Writes the row of ViT-B at 1024 pixels: ONNX, and labelme's own engine on its folder."""
    from judge_tools import labelme

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = moved(FineTuned(drawn("vit_b"), TOLD, "tuned", prompts="box+point"))
    row: Row = {"adapter": TOLD, "decoder": LARGE, "base": "vit_b", "trained": model.trainable()}
    with TemporaryDirectory() as place:
        photos = Path(place, "photos")
        photos.mkdir()
        shutil.copy(photo(), photos)
        row["formats"] = {"onnx": cell(model, "onnx", photos)}
        print(row, flush=True)
        out = Path(place, "labelme")
        exported = export(model, out, "labelme", name="nuclei", check=photos)
        image = read_image(next(photos.iterdir()), model.input)
        box = [60.0, 50.0, 190.0, 200.0]
        theirs = labelme(out)(image, [{"data": box}], 0)
        ours = Reference(Job(model, "m"), image).logits(Ask("box", box=tuple(box)))[0] > 0
        iou = float((ours & theirs).sum() / max(1, (ours | theirs).sum()))
        row["formats"]["labelme"] = {
            "difference": exported.findings.difference,
            "iou": exported.findings.iou,
            "iou_as_consumer": iou,
            "bytes": sum(each.stat().st_size for each in out.glob("*.onnx")),
        }
    append(file, row)


def append(file: Path, row: Row) -> None:
    """Adds a row."""
    with file.open("a", encoding="utf-8") as out:
        out.write(json.dumps(row) + "\n")


def photo() -> Path:
    """The image that everything is asked about."""
    return sorted((demo_data() / "images" / "test").glob("*.png"))[0]


def read(file: Path) -> dict[tuple[str, str], Row]:
    """The rows of a file; of two for one pair the last."""
    lines = file.read_text("utf-8").splitlines() if file.is_file() else []
    rows = [json.loads(line) for line in lines]
    return {(row["adapter"], row["decoder"]): row for row in rows}


class Reasons:
    """Reasons why there is no file, each with a number."""

    def __init__(self) -> None:
        self.texts: dict[str, int] = {}

    def mark(self, text: str, row: Row) -> str:
        """The number of a reason; the names of the row's parts in it do not count."""
        for kind in ("adapter", "decoder"):
            name = row[kind].partition(":")[0]
            text = text.replace(f"{kind}.name={name}: is ", f"the {kind} is ")
            text = text.replace(f"{kind}.name={name}: {name} ", f"the {kind} ")
        text = text.replace(row["base"], "the base")
        return f"({self.texts.setdefault(text, len(self.texts) + 1)})"


def shown(row: Row, name: str, reasons: Reasons) -> str:
    """A cell: the largest difference and the size."""
    value = row["formats"].get(name)
    if value is None:
        return ""
    if "reason" in value:
        return reasons.mark(value["reason"], row)
    return f"{value['difference']:.1e}, {value['bytes'] / 1e6:.1f} MB"


def page(file: Path) -> str:
    """The results page."""
    rows, order, reasons = read(file), pairs(), Reasons()
    done = [rows[pair] for pair in order if pair in rows]
    measured = len(done)
    done += [rows[TOLD, LARGE]] if (TOLD, LARGE) in rows else []
    done.sort(key=lambda row: (row["adapter"], row["decoder"]))
    body = []
    for row in done:
        onnx = row["formats"]["onnx"]
        speed = ["", ""]
        if "torch_seconds" in onnx:
            speed = [f"{onnx[key]:.2f}" for key in ("onnxruntime_seconds", "torch_seconds")]
        on = "" if row["base"] == "nano" else f" ({row['base']})"
        cells = [shown(row, name, reasons) for name in GRAPHS]
        body.append(
            [f"`{row['adapter']}`{on}", f"`{row['decoder']}`", cells[0], *speed, *cells[1:]]
        )
    more = (*LOADING, *TOOLS, STRETCH)
    tools = [
        [f"`{row['decoder']}`", *(tool_cell(row, name, reasons) for name in more)]
        for row in done
        if row["adapter"] == TOLD
    ]
    values = [v for row in done for v in row["formats"].values() if "difference" in v]
    packages = ("torch", "onnx", "onnxruntime", "onnxscript", "transformers", "peft")
    has = ", ".join(f"{name} {value}" for name, value in versions(packages).items())
    columns = ["adapter", "decoder", "onnx", "onnxruntime, s", "PyTorch, s", *GRAPHS[1:]]
    missing = len(order) - measured
    least, largest = min(v["iou"] for v in values), max(v["difference"] for v in values)
    lines = [
        "# Every method in every format\n",
        "    python benchmarks/exports/table.py run FILE.jsonl",
        "    python benchmarks/exports/table.py page FILE.jsonl > benchmarks/results/exports.md\n",
        "Each cell is the largest difference of mask logits from the model's and the size of "
        "files; a number in brackets is the reason why there is none, below. One image of the demo "
        "is asked whole, as a portrait and as a panorama, with every kind of prompt that the "
        f"format knows. Of {len(values)} exports the largest difference is {largest:.1e}, and the "
        f"least IoU of masks {least:.4f}.\n",
        "Seconds are those of one image and one prompt, encoder and decoder, in the file's run "
        "(onnxruntime) and in the model's (PyTorch): the processor's, in one thread, the least of "
        "five, both in one process.\n",
        "The base is the shipped nano in its frame of 256, which is small enough to run every "
        f"pair; every trained tensor is moved by noise. {platform.machine()}, no GPU, {has}. "
        "`semantic` has five classes. A name with a colon is another form (`samtune methods "
        "NAME`). What is made for MobileSAM's encoder runs on a vit_t of drawn weights.\n",
        "An empty cell of `torch` was not run: its graph is that of `onnx`.\n",
        f"{measured} of {len(order)} pairs"
        + (f"; {missing} are not measured yet.\n" if missing else ", which are all that fit.\n"),
        "## Graphs and weights\n",
        table(columns, body),
        "## Folders of tools\n",
        "Their files hold the same encoder and decoder behind the tool's frame, and differ by "
        "decoder alone, so that one adapter (`lora`) stands for all. The second number is the IoU "
        "with pixels as the tool prepares them. `cvat`, `label-studio` and `hub` load the "
        "checkpoint, and take every method.\n",
        table(["decoder", *more], tools),
        "## Reasons\n",
        *(f"{number}. {text}" for text, number in reasons.texts.items()),
    ]
    return "\n".join(lines) + "\n"


def tool_cell(row: Row, name: str, reasons: Reasons) -> str:
    """A cell of a tool: the largest difference, and the IoU as the tool prepares images."""
    text = shown(row, name, reasons)
    value = row["formats"].get(name, {})
    return f"{text}, IoU {value['iou_as_consumer']:.3f}" if "difference" in value else text


def table(columns: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def main() -> None:
    """Measures, or prints the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "large", "page"))
    parser.add_argument("file", type=Path)
    parser.add_argument("pair", nargs="*")
    args = parser.parse_args()
    if args.what == "page":
        sys.stdout.write(page(args.file))
    elif args.what == "large":
        large(args.file)
    else:
        run(args.file, tuple(args.pair) if args.pair else None)


if __name__ == "__main__":
    main()
