"""Every method in every format: difference, size, and seconds in onnxruntime beside PyTorch.

    python benchmarks/exports/table.py run FILE.jsonl [ADAPTER DECODER]
    python benchmarks/exports/table.py large FILE.jsonl
    python benchmarks/exports/table.py page FILE.jsonl > benchmarks/results/exports.md

A row is one adapter with one decoder, both as ``name`` or ``name:form``, and one line of the file;
rows that are there already are skipped, so the same command goes on. Other forms come with one
partner. With ADAPTER and DECODER only that row is written, anew. ``large`` adds a row of ViT-B at
1024 pixels with drawn weights, also in labelme's own engine; it takes minutes of one core.

The base is the shipped nano: its real weights give real masks, and a row takes seconds of one core,
where ViT-B takes minutes. Every trained tensor is moved by noise, so that each part of a method
acts. What nano cannot take runs on MobileSAM's TinyViT with drawn weights and a frame of 256
pixels. Seconds are those of the processor in one thread, so that other work on the machine does not
count.

Files of ``onnx`` and ``torch`` are made from one trace. A part is written once for all rows that
have it: the encoder for all decoders that read the same of it, the decoder for all adapters. Each
row asks its own files beside its own model all the same, so that a file of another model would show
as a difference.
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
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import nn

from samtune.adapters import ADAPTERS
from samtune.assets import demo_data
from samtune.data import read_image
from samtune.decoders import DECODERS
from samtune.errors import InputError
from samtune.exports.base import FORMATS, Answers, Ask, Job
from samtune.exports.checks import Findings, Reference, asks, check_images, compare
from samtune.exports.formats.onnx import OnnxAnswers, Runner
from samtune.exports.formats.torch_program import PROGRAM, ProgramAnswers
from samtune.exports.onnx_files import OnnxModel
from samtune.exports.parts import DECODER, ENCODER, PartsFormat, traced_parts
from samtune.exports.tracing import TracedPart
from samtune.exports.writing import PICTURE, SUMMARY, export
from samtune.geometry import InputPolicy
from samtune.model.finetuned import FineTuned
from samtune.model.parts import check_fit, check_pair
from samtune.model.strength import build
from samtune.registry import Registry
from samtune.report.page import versions
from samtune.sam.model import Sam
from samtune.sam.spec import SPECS
from samtune.sam.weights import load_sam

Row = dict[str, Any]
BASES = ("nano", "vit_t")
WEIGHTS = ("pth", "hf", "peft")
"""The formats that hold tensors alone: what they can express depends on the method."""
GRAPHS = ("onnx", "torch", *WEIGHTS)
"""Those, and the formats of traced graphs."""
TRACED = ("torch", "onnx")
"""The formats of traced graphs."""
TOOLS = ("anylabeling", "x-anylabeling", "labelme", "samexporter")
"""The formats that put the graphs of ``onnx`` behind a tool's own frame."""
STRETCH = "x-anylabeling, stretch"
LOADING = ("cvat", "label-studio", "hub")
"""The formats that load the checkpoint, whatever it holds."""
TOLD = "lora"
"""The adapter with which every decoder, and every format of tools, is run."""
UNPROMPTED = " without prompts"
LARGE = ", 1024 pixels"
"""The end of a decoder's name in a row of ViT-B."""
LARGE_PAIRS = ((TOLD, "tuned"), ("adaptformer", "hq"), (TOLD, "semantic"))
"""An encoder and a decoder, those of a decoder that reads more than the embedding, and one file."""
OPEN = 12
"""Files that are kept open for the next rows."""
NOISE = 0.05
CLASSES = 5


def pairs() -> list[tuple[str, str]]:
    """Every pair of an adapter and a decoder that fit, and the other forms with one partner."""
    fitting = [(a, d) for a in ADAPTERS for d in DECODERS if base_of(a, d)]
    alone, whose = partners(fitting)
    forms = [(f"{a}:{form}", alone[a]) for a in ADAPTERS for form in ADAPTERS.forms(a)]
    forms += [(whose[d], f"{d}:{form}") for d in DECODERS for form in DECODERS.forms(d)]
    return [*fitting, *forms, (TOLD, f"tuned{UNPROMPTED}")]


def partners(fitting: Sequence[tuple[str, str]]) -> tuple[dict[str, str], dict[str, str]]:
    """The decoder that stands beside each adapter, and the adapter beside each decoder."""
    alone = {a: "tuned" if (a, "tuned") in fitting else dict(fitting)[a] for a in ADAPTERS}
    whose = {d: a for a, d in reversed(fitting)}
    return alone, whose | {d: TOLD for d in DECODERS if (TOLD, d) in fitting}


def is_first(adapter: str, decoder: str) -> bool:
    """Whether a row is the one that each adapter, and each decoder, has before all others."""
    alone, whose = partners([pair for pair in pairs() if ":" not in f"{pair}"])
    return alone.get(adapter) == decoder or whose.get(decoder) == adapter


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
    model = FineTuned(
        base(name),
        adapter,
        decoder,
        adapter_options=dict(ADAPTERS[adapter].small) | of_adapter
        if name == "nano"
        else of_adapter,
        decoder_options=of_decoder,
        input=InputPolicy((256, 256)),
        prompts="box+point" if DECODERS[decoder].prompted and not unprompted else "none",
    )
    for registry, part, options in (
        (ADAPTERS, model.adapter, model.adapter_options),
        (DECODERS, model.decoder, model.decoder_options),
    ):
        torch.manual_seed(0)  # a part has the same numbers beside whatever other
        part.load_state_dict(build(registry, model.sam, part.name, options)[0].state_dict())
        moved(part)
    return model.eval()


def moved(part: nn.Module) -> nn.Module:
    """A module of which every trained tensor is off its start, so that each part acts."""
    with torch.no_grad():
        for tensor in part.parameters():
            tensor.add_(NOISE * torch.randn_like(tensor) * min(1.0, float(tensor.std(False)) + 0.1))
    return part


@cache
def base(name: str) -> Sam:
    """A base, which all rows share."""
    return load_sam("nano") if name == "nano" else drawn(name)


def drawn(name: str) -> Sam:
    """A base of an official size with drawn weights, whose masks mean nothing but must agree."""
    torch.manual_seed(0)
    sam = Sam(SPECS[name])
    with torch.no_grad():
        for tensor in sam.image_encoder.parameters():
            if tensor.dim() > 1:
                tensor.normal_(std=0.02)
    return sam.freeze()


class Shelf:
    """Files of parts, each written once for all rows that have the part, and kept open.

    Args:
        place: An empty folder.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.files: dict[tuple[str, ...], Path] = {}
        self.runners: dict[int, Runner] = {}  # the last used come last

    def file_of(
        self, key: tuple[str, ...], target: PartsFormat, job: Job, name: str, part: TracedPart
    ) -> Path:
        """A part's file, see :func:`key_of` and :meth:`PartsFormat.write_part`."""
        if key not in self.files:
            file = self.place / f"{len(self.files)}{target.ending(job)}"
            target.write_part(job, name, part, file)
            self.files[key] = file
        return self.files[key]

    def runner_of(self, link: Path, load: Callable[[], Runner]) -> Runner:
        """A file at work; links to one file share it."""
        file = link.stat().st_ino
        self.runners[file] = self.runners.pop(file, None) or load()
        if len(self.runners) > OPEN:
            del self.runners[next(iter(self.runners))]
        return self.runners[file]


def key_of(model: FineTuned, row: Row, name: str) -> tuple[str, ...]:
    """What two rows must share to have the same part."""
    if name == DECODER:
        return row["base"], row["decoder"], name
    if name == ENCODER:
        # a decoder is in it by what it reads besides the embedding, or shows to the adapter
        shown = row["decoder"] if model.decoder.tokens is not None else ""
        return row["base"], row["adapter"], f"{model.decoder.taps}", shown, name
    return row["base"], row["adapter"], row["decoder"], name


class OnShelf:
    """Answers by files of a shelf, which it needs while the answers are made."""

    def __init__(self, job: Job, folder: Path, shelf: Shelf) -> None:
        self.shelf = shelf
        super().__init__(job, folder)  # type: ignore[call-arg]


class SharedFiles(OnShelf, OnnxAnswers):
    """ONNX files in one thread, of a shelf."""

    def opened(self, path: Path) -> Runner:
        """A file to run."""
        file = path.with_name(f"{path.name}.onnx")
        return self.shelf.runner_of(file, lambda: OnnxModel(file, threads=1))


class SharedPrograms(OnShelf, ProgramAnswers):
    """Programs of a shelf."""

    def opened(self, path: Path) -> Runner:
        """A program to run."""
        file = path.with_name(f"{path.name}{PROGRAM}")
        return self.shelf.runner_of(file, lambda: super(SharedPrograms, self).opened(path))


ANSWERING: dict[str, type[SharedPrograms | SharedFiles]] = {
    "torch": SharedPrograms,
    "onnx": SharedFiles,
}
"""The formats of graphs; a program ends where it was written as ONNX, so that it comes first."""


def row_of(adapter: str, decoder: str, photos: Path, shelf: Shelf) -> Row:
    """A row: what each format comes to, or why there is none."""
    model = model_of(adapter, decoder)
    row: Row = {"adapter": adapter, "decoder": decoder, "base": model.sam.spec.name}
    row |= {"trained": model.trainable(), "formats": traced(model, row, photos, shelf)}
    names = (*WEIGHTS, *(LOADING if adapter == TOLD else ()))
    row["formats"] |= {name: cell(model, name, photos) for name in names}
    return row


def programs_of(adapter: str, decoder: str, photos: Path, shelf: Shelf) -> Row:
    """The cell of ``torch`` of a row that has the others."""
    model = model_of(adapter, decoder)
    row: Row = {"adapter": adapter, "decoder": decoder, "base": model.sam.spec.name}
    return row | {"formats": traced(model, row, photos, shelf, TRACED[:1])}


def tools_of(decoder: str, photos: Path) -> Row:
    """More cells of a row of :data:`TOLD`: the formats of tools."""
    model = model_of(TOLD, decoder)
    stretching = copy.deepcopy(model)  # the base is shared
    stretching.tuned_input = replace(model.tuned_input, resize="stretch")
    cells = {name: cell(model, name, photos) for name in TOOLS}
    cells[STRETCH] = cell(stretching, "x-anylabeling", photos)
    return {"adapter": TOLD, "decoder": decoder, "formats": cells}


def traced(
    model: FineTuned, row: Row, photos: Path, shelf: Shelf, names: Sequence[str] = TRACED
) -> Row:
    """The cells of the formats of graphs, whose files come from the shelf."""
    images = check_images(photos, model.input)
    parts, cells = traced_parts(Job(model, "m")), {}
    for name in names:
        target = cast(PartsFormat, FORMATS[name]())
        job = Job(model, "m", options=vars(FORMATS.config(name, {})))
        with TemporaryDirectory(dir=shelf.place) as place:
            try:
                target.check(job)
                for n, part in parts.items():
                    key = (*key_of(model, row, n), name)
                    link = Path(place, f"m{n}{target.ending(job)}")
                    link.hardlink_to(shelf.file_of(key, target, job, n, part))
                answers = ANSWERING[name](job, Path(place), shelf)
                findings = compare(job, answers, images)
                findings.refuse_difference(job, name)
            except InputError as error:
                cells[name] = {"reason": str(error)}
                continue
            cells[name] = cell_of(findings, list(Path(place).iterdir()))
            if name == "onnx":
                cells[name] |= seconds(job, answers, images[0][1])
    return cells


def cell(model: FineTuned, name: str, photos: Path) -> Row:
    """One format of a row, written as the command does it."""
    with TemporaryDirectory() as place:
        try:
            exported = export(model, Path(place) / "out", name, name="m", check=photos)
        except InputError as error:
            return {"reason": str(error)}
        kept = [exported.folder / f for f in exported.files if f not in (SUMMARY, PICTURE)]
        return cell_of(exported.findings, kept)


def cell_of(findings: Findings, files: Sequence[Path]) -> Row:
    """The numbers of a cell."""
    return {
        "difference": findings.difference,
        "iou": findings.iou,
        "iou_as_consumer": findings.consumer_iou,
        "bytes": sum(file.stat().st_size for file in files),
    }


def seconds(job: Job, answers: Answers, image: np.ndarray) -> Row:
    """Seconds of one image and one prompt, in onnxruntime and in PyTorch: the least of five."""
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
    with TemporaryDirectory() as place, TemporaryDirectory() as files:
        shutil.copy(photo(), place)
        shelf = Shelf(Path(files))
        for adapter, decoder in [only] if only else sorted(pairs(), key=by_worth):
            if only or (adapter, decoder) not in rows:
                write_row(file, lambda a=adapter, d=decoder: row_of(a, d, Path(place), shelf))
            elif "torch" not in rows[adapter, decoder]["formats"]:
                write_row(file, lambda a=adapter, d=decoder: programs_of(a, d, Path(place), shelf))
        for decoder in [] if only else [d for a, d in pairs() if a == TOLD]:
            if TOOLS[0] not in rows.get((TOLD, decoder), {"formats": {}})["formats"]:
                write_row(file, lambda d=decoder: tools_of(d, Path(place)))


def write_row(file: Path, make: Callable[[], Row]) -> None:
    """Makes a row, and adds it to a file."""
    began = time.process_time()
    row = make()
    row["seconds"] = time.process_time() - began
    append(file, row)
    print(f"{row['adapter']} {row['decoder']}: {row['seconds']:.0f} s", flush=True)


def by_worth(pair: tuple[str, str]) -> tuple[bool, bool, str, str]:
    """The order of rows: each adapter and decoder once, then what shares files, then the others."""
    comes_first = is_first(*pair)
    return not comes_first, is_whole(pair[1]) and not comes_first, *pair


def is_whole(decoder: str) -> bool:
    """Whether encoder and decoder are one file, which no other row has."""
    return not DECODERS[decoder.partition(":")[0].partition(" ")[0]].prompted


def large(file: Path) -> None:
    """Writes the rows of ViT-B at 1024 pixels: ONNX, and once labelme's own engine on its folder.

    Rows that are there already are skipped.
    """
    torch.set_num_threads(1)
    for adapter, decoder in LARGE_PAIRS:
        if (adapter, decoder + LARGE) not in read(file):
            write_row(file, lambda a=adapter, d=decoder: large_row(a, d))


def large_row(adapter: str, decoder: str) -> Row:
    """A row of ViT-B, whose weights are drawn."""
    torch.manual_seed(0)
    options = {"classes": CLASSES} if decoder == "semantic" else {}
    prompts = "box+point" if DECODERS[decoder].prompted else "none"
    sam = drawn("vit_b")
    model = FineTuned(sam, adapter, decoder, decoder_options=options, prompts=prompts).eval()
    moved(model)
    row: Row = {"adapter": adapter, "decoder": decoder + LARGE, "base": "vit_b"}
    with TemporaryDirectory() as place:
        photos = Path(place, "photos")
        photos.mkdir()
        shutil.copy(photo(), photos)
        row |= {"trained": model.trainable(), "formats": {"onnx": cell(model, "onnx", photos)}}
        print(row, flush=True)
        if (adapter, decoder) == LARGE_PAIRS[0]:
            row["formats"]["labelme"] = in_labelme(model, photos, Path(place, "labelme"))
    return row


def in_labelme(model: FineTuned, photos: Path, out: Path) -> Row:
    """The cell of labelme, whose own engine is asked with one box."""
    from judge_tools import labelme

    exported = export(model, out, "labelme", name="nuclei", check=photos)
    image = read_image(next(photos.iterdir()), model.input)
    box = [60.0, 50.0, 190.0, 200.0]
    theirs = labelme(out)(image, [{"data": box}], 0)
    ours = Reference(Job(model, "m"), image).logits(Ask("box", box=tuple(box)))[0] > 0
    iou = float((ours & theirs).sum() / max(1, (ours | theirs).sum()))
    return cell_of(exported.findings, list(out.glob("*.onnx"))) | {"iou_in_tool": iou}


def append(file: Path, row: Row) -> None:
    """Adds a row."""
    with file.open("a", encoding="utf-8") as out:
        out.write(json.dumps(row) + "\n")


def photo() -> Path:
    """The image that everything is asked about."""
    return sorted((demo_data() / "images" / "test").glob("*.png"))[0]


def read(file: Path) -> dict[tuple[str, str], Row]:
    """The rows of a file; later cells of a pair are added to earlier ones."""
    rows: dict[tuple[str, str], Row] = {}
    for line in file.read_text("utf-8").splitlines() if file.is_file() else []:
        row = json.loads(line)
        pair = row["adapter"], row["decoder"]
        before = rows.get(pair, {"formats": {}})
        rows[pair] = {**before, **row, "formats": {**before["formats"], **row["formats"]}}
    return rows


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
        for name in FORMATS:
            text = text.replace(f"--format={name}: ", "")
            text = text.removeprefix(FORMATS[name].consumer) if name in TOOLS else text
        text = f"the tool{text}" if text[0] == " " else text
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
        f"{measured} of {len(order)} pairs"
        + (f"; {missing} are not measured yet.\n" if missing else ", which are all that fit.\n"),
        "## Graphs and weights\n",
        table(columns, body),
        "## Folders of tools\n",
        "Their files hold the same encoder and decoder behind the tool's frame, and differ by "
        "decoder alone, so that one adapter (`lora`) stands for all. The second number is the IoU "
        "with pixels as the tool prepares them. `cvat`, `label-studio` and `hub` load the "
        "checkpoint, and take every method. An IoU below 1 is the tool's doing; these masks of "
        "moved weights are ragged, so that it is lower than for a tuned model, of which "
        "[exports_tools.md](exports_tools.md) has the numbers.\n",
        table(["decoder", *more], tools),
        *large_lines([rows[a, d + LARGE] for a, d in LARGE_PAIRS if (a, d + LARGE) in rows]),
        "## Reasons\n",
        *(f"{number}. {text}" for text, number in reasons.texts.items()),
    ]
    return "\n".join(lines) + "\n"


def large_lines(rows: Sequence[Row]) -> list[str]:
    """The section on ViT-B, if there are rows."""
    columns = ["adapter", "decoder", "format", "difference", "size", "IoU", "IoU in the tool"]
    body = [
        [
            *(f"`{each}`" for each in (row["adapter"], row["decoder"].removesuffix(LARGE), name)),
            *(f"{value['difference']:.1e}", f"{value['bytes'] / 1e6:.1f} MB"),
            f"{value['iou']:.4f}",
            f"{value['iou_in_tool']:.4f}" if "iou_in_tool" in value else "-",
        ]
        for row in rows
        for name, value in row["formats"].items()
    ]
    if not body:
        return []
    return [
        "## ViT-B at 1024 pixels\n",
        "    python benchmarks/exports/table.py large FILE.jsonl\n",
        "The same image and shapes with a vit_b of drawn weights, whose masks mean nothing but "
        "must agree. The last column is a box in labelme's own engine (osam), for the format "
        "`labelme` alone. Rows that are missing were not measured.\n",
        table(columns, body),
    ]


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
