"""``samtune predict``: masks for images, folders, lists of files, or what standard input names."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from glob import glob, has_magic
from pathlib import Path
from typing import Annotated

import typer

from samtune.cli.console import Json, Quiet, answer, speaking, warning

STANDARD_INPUT = "-"
LIST = ".txt"
"""The ending of a file that lists images."""


def predict(
    checkpoint: Annotated[
        str, typer.Argument(help="A checkpoint, the folder of a run, or a base's name.")
    ],
    source: Annotated[
        str,
        typer.Argument(
            help="An image, a folder of images, a .txt file with a path per line, or - for such "
            "lines from standard input."
        ),
    ],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            help="Further images and folders; base.weights=..., strength=..., device=..., "
            "input.tiles=..., train.precision=..."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for the masks; by default SOURCE-masks."),
    ] = None,
    box: Annotated[
        list[str] | None, typer.Option("--box", help="x0,y0,x1,y1 in pixels; for every image.")
    ] = None,
    point: Annotated[
        list[str] | None, typer.Option("--point", help="x,y or x,y,0 (outside); for every image.")
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            "--prompts",
            help="JSON by image name, COCO's JSON, or YOLO's .txt files; see docs/prompts.md.",
        ),
    ] = None,
    overlays: Annotated[bool, typer.Option(help="Write overlay pictures too.")] = True,
    threshold: Annotated[
        float, typer.Option(help="Logits above it are inside; 0 is a probability of one half.")
    ] = 0.0,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--as", help="What to write, as in png,coco,yolo; see docs/predict.md. Default: png."
        ),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="Pixels that polygons may be from the mask; 0 keeps its edges.")
    ] = 1.0,
    batch_size: Annotated[int, typer.Option(help="Images encoded together; more for a GPU.")] = 1,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write masks for images: PNG, COCO, YOLO, LabelMe, GeoJSON, GeoTIFF, NIfTI, ..."""
    from samtune.cli.numbers import prompts_of
    from samtune.inference.folder import check_batch_size, predict_folder, refuse_outside
    from samtune.inference.formats import PNG, chosen_formats
    from samtune.inference.outlines import check_tolerance
    from samtune.inference.places import default_out, refuse_source
    from samtune.report.quantities import counted
    from samtune.runs.predicting import predictor_of

    with speaking(as_json, quiet) as display, warning(display):
        names = chosen_formats(formats or [PNG])
        check_tolerance(tolerance)
        check_batch_size(batch_size)
        sources, settings = _sources([source, *(words or [])])
        folder = out or default_out(sources)
        refuse_source(folder, sources)  # before any weights are read
        all_prompts = prompts_of(box or [], point or [], prompts)
        if all_prompts:
            refuse_outside(sources, all_prompts)
        predictor, classes = predictor_of(checkpoint, settings, threshold)
        result = predict_folder(
            predictor,
            sources if len(sources) > 1 else sources[0],
            folder,
            prompts=all_prompts,
            overlays=overlays,
            classes=classes,
            progress=lambda done, total: display.progress("predict", done, total),
            sources=(checkpoint, prompts),
            formats=names,
            tolerance=tolerance,
            batch_size=batch_size,
            tiles=lambda done, total: display.progress("tiles", done, total, images=0),
        )
        for remark in result["remarks"]:
            display.warn(f"samtune: {remark}")
        if result["images"]:
            strength = predictor.model.strength
            note = "" if strength == 1 else f", at strength {strength:g}"
            whose = counted(result["images"], "image")
            display.result(f"the masks of {whose} lie in {result['out']}{note}")
    answer(result, as_json)
    if result["failed"]:
        raise typer.Exit(1 if result["images"] else 2)


def _sources(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The images and folders among words, lists read, and the settings."""
    from samtune.errors import InputError
    from samtune.files import as_path

    sources, settings = list[str](), list[str]()
    for place, word in enumerate(words):
        if word == STANDARD_INPUT:
            sources += _lines(_standard_input(), "standard input", Path())
        elif word.lower().endswith(LIST) and as_path(word).is_file():
            file = as_path(word)
            sources += _lines(_text_of(file), word, file.parent)
        elif place == 0 or ("=" not in word and not word.endswith((".yaml", ".yml"))):
            if not as_path(word).exists() and has_magic(word):
                sources += _matching(word)
                continue
            if not as_path(word).exists():
                raise InputError(f"{word}: does not exist; give an image or a folder of images")
            sources.append(word)
        else:
            settings.append(word)
    return sources, settings


def _matching(pattern: str) -> list[str]:
    """The files that fit a pattern which the shell has not read, as Windows' does not."""
    from samtune.errors import InputError
    from samtune.files import as_path

    files = sorted(glob(str(as_path(pattern)), recursive=True))
    if not files:
        raise InputError(f"{pattern}: fits no file; check the pattern")
    return files


def _lines(text: str, origin: str, folder: Path) -> list[str]:
    """The files that a list names, a path per line; those of a file are relative to its folder."""
    from samtune.errors import InputError
    from samtune.files import as_path

    names = [line.strip() for line in text.splitlines() if line.strip()]
    if not names:
        raise InputError(f"{origin}: names no image; give a path per line")
    paths = []
    for number, name in enumerate(names, 1):
        beside = folder / as_path(name)
        path = beside if beside.exists() else as_path(name)
        if not path.exists():
            raise InputError(f"{origin}, line {number}: {name}: no such file; check the path")
        paths.append(str(path))
    return paths


def _text_of(file: Path) -> str:
    from samtune.errors import InputError
    from samtune.texts import read_text

    try:
        return read_text(file)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: is no text; give a path per line") from error


def _standard_input() -> str:
    from samtune.errors import InputError

    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise InputError(
            "standard input: is no text; give a path per line, as from ls or find"
        ) from error
