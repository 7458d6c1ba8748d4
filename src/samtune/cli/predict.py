"""``samtune predict``: masks for images, folders, lists of files, or what standard input names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from samtune.cli import sources
from samtune.cli.console import Json, Quiet, answer, speaking, warning
from samtune.cli.sources import Checkpoint, Formats, Out, Overlays, Source, Tolerance


def predict(
    checkpoint: Checkpoint,
    source: Source,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            help="Further images and folders; base.weights=..., strength=..., device=..., "
            "input.tiles=..., train.precision=..."
        ),
    ] = None,
    out: Out = None,
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
    overlays: Overlays = True,
    threshold: Annotated[
        float, typer.Option(help="Logits above it are inside; 0 is a probability of one half.")
    ] = 0.0,
    formats: Formats = None,
    tolerance: Tolerance = 1.0,
    batch_size: Annotated[int, typer.Option(help="Images encoded together; more for a GPU.")] = 1,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write masks for images: PNG, COCO, YOLO, LabelMe, GeoJSON, GeoTIFF, NIfTI, ..."""
    from samtune.cli.numbers import prompts_of
    from samtune.data.pictures import pictures_in
    from samtune.inference.folder import check_batch_size, predict_folder, refuse_outside
    from samtune.report.quantities import counted
    from samtune.runs.predicting import predictor_of
    from samtune.runs.screen_lines import of_answers

    with speaking(as_json, quiet) as display, warning(display):
        request = sources.request_of(source, words, out, formats, tolerance)
        check_batch_size(batch_size)
        all_prompts = prompts_of(box or [], point or [], prompts)
        if all_prompts:
            refuse_outside(request.images, all_prompts)
        predictor, classes = predictor_of(checkpoint, request.settings, threshold)
        model, precision = predictor.model, predictor.precision
        images = pictures_in(request.source, model.input).records
        display.say(of_answers(model, precision, len(images), batch_size))
        result = predict_folder(
            predictor,
            request.source,
            request.out,
            prompts=all_prompts,
            overlays=overlays,
            classes=classes,
            progress=lambda done, total: display.progress("predict", done, total),
            sources=(checkpoint, prompts),
            formats=request.formats,
            tolerance=tolerance,
            batch_size=batch_size,
            tiles=lambda done, total: display.progress("tiles", done, total, images=0),
        )
        strength = predictor.model.strength
        note = "" if str(strength) == "1" else f", at strength {strength}"
        whose = counted(result["images"], "image")
        sources.tell(display, result, f"the masks of {whose} lie in {result['out']}{note}")
    answer(result, as_json)
    sources.end(result)
