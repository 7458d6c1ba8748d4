"""The verb that writes a model as the files of other tools."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samtune.cli.completion import complete_format, format_names
from samtune.cli.console import Json, answer, speaking

if TYPE_CHECKING:
    from samtune.report.terminal import Display

OF_MODEL = ("base", "adapter", "decoder", "input", "strength", "trust")
"""The groups of settings that say which model is exported."""


def export(
    checkpoint: Annotated[
        str | None,
        typer.Argument(
            help="A checkpoint, the folder of a run, or a base's name.", show_default=False
        ),
    ] = None,
    words: Annotated[
        list[str] | None,
        typer.Argument(help="Settings: base.weights=..., strength=..., format.NAME=..."),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            help=f"One of {', '.join(format_names())}; samtune export alone describes them.",
            autocompletion=complete_format,
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The folder to write.")] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the files; by default method and base.")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="fp32, fp16 or int8, if the format has it.")
    ] = "fp32",
    threshold: Annotated[
        float, typer.Option(help="Logits above it are inside; 0 is a probability of one half.")
    ] = 0.0,
    check: Annotated[
        Path | None,
        typer.Option(
            "--check", help="A folder of images to check with; by default those of the demo."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a model as the files of another tool: ONNX, AnyLabeling, CVAT, ..."""
    with speaking(as_json) as display:
        if checkpoint is None:
            rows = list_formats()
            whole = ("format", "for", "writes", "precisions", "needs")
            columns = ("format", "precisions", "for") if display.narrow else whole
            cells = [[row[key] for key in columns] for row in rows]
            display.listing(columns, cells, fixed=2 if display.narrow else 1)
            display.say("samtune export CHECKPOINT --format FORMAT --out FOLDER")
        else:
            how = {
                "format": format,
                "out": out,
                "name": name,
                "precision": precision,
                "threshold": threshold,
                "check": check,
            }
            rows = [_export(checkpoint, words or [], how, display)]
    answer(rows if checkpoint is None else rows[0], as_json)


def bundle(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint, or the folder of a run.")],
    out: Annotated[Path, typer.Option("--out", help="The .safetensors file to write.")],
    base: Annotated[str | None, typer.Option(help="The base's weights.")] = None,
    licence: Annotated[
        str,
        typer.Option(help="The base's licence, as apache-2.0, if samtune does not know it."),
    ] = "",
    as_json: Json = False,
) -> None:
    """Write a checkpoint, its base and a card as one file, which works alone."""
    with speaking(as_json) as display:
        from samtune.model.bundle import bundle as write

        path = write(checkpoint, out, base, licence=licence)
        display.say(f"{path}: {path.stat().st_size / 1e6:.1f} MB; samtune predict {path} PHOTOS")
    answer({"file": str(path)}, as_json)


def list_formats() -> list[dict[str, Any]]:
    """The formats of export, for the list of the command line and of the documentation."""
    from samtune.exports.base import FORMATS

    return [
        {
            "format": name,
            "for": FORMATS[name].consumer,
            "writes": FORMATS[name].writes,
            "needs": f"samtune[{FORMATS[name].extra}]" if FORMATS[name].extra else "",
            "precisions": ", ".join(FORMATS[name].precisions),
        }
        for name in FORMATS
    ]


def used_by(format: str) -> Callable[[str], bool]:
    """Whether a format makes use of a setting, by its name as ``base.weights``."""
    from samtune.data import InputConfig
    from samtune.data.intensity import OF_READING
    from samtune.exports.base import FORMATS
    from samtune.options import changeable

    cuts = set() if FORMATS[format].cuts else {f"input.{name}" for name in changeable(InputConfig)}
    names = {"data.class_names"} if FORMATS[format].names_classes else set()
    used = names | {f"data.{name}" for name in OF_READING}
    return lambda key: key in used or (key.partition(".")[0] in OF_MODEL and key not in cuts)


def _export(source: str, words: list[str], how: dict[str, Any], display: Display) -> dict[str, Any]:
    from samtune.errors import InputError
    from samtune.exports.base import FORMATS
    from samtune.exports.writing import export as write
    from samtune.runs.source import Source
    from samtune.runs.values import Tree
    from samtune.runs.words import layers, refuse_unused

    for option in ("format", "out"):
        if how[option] is None:
            listed = f"; the formats are {', '.join(FORMATS)}" if option == "format" else ""
            raise InputError(f"--{option}: is missing, as in --format onnx --out exported{listed}")
    FORMATS[how["format"]].check_installed()
    of_format = [word for word in words if word.startswith("format.")]
    settings: Tree = {}
    for layer in layers([word.removeprefix("format.") for word in of_format]):
        settings |= layer
    of_model = [word for word in words if word not in of_format]
    for word in of_model:
        refuse_unused(word, f"export --format {how['format']}", used_by(how["format"]))
    origin = Source.of(source, of_model)
    config = origin.configure(of_model, measures=False)
    model = origin.model(config)
    exported = write(
        model,
        **how,
        classes=config.data.class_names,
        checkpoint=None if origin.is_base else origin.word,
        base=config.base.weights,
        **settings,
    )
    display.say(f"{exported.folder}: {', '.join(exported.files)}")
    checks = exported.findings
    display.say(
        f"checked on {len(checks.checks)} prompts beside the model: logits differ by at most "
        f"{checks.difference:.2g}, IoU of the masks {checks.iou:.4f}, as {how['format']} prepares "
        f"images {checks.consumer_iou:.4f}"
    )
    if exported.note:
        display.say(exported.note)
    if exported.advice:
        display.say(f"hint: {exported.advice}")
    return exported.summary()
