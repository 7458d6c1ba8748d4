"""``samtune everything``: all objects of images, without prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from samtune.cli import sources
from samtune.cli.console import Json, Quiet, answer, speaking, warning
from samtune.cli.sources import Checkpoint, Formats, Out, Overlays, Source, Tolerance


def everything(
    checkpoint: Checkpoint,
    source: Source,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            help="Further images and folders; everything.points_per_side=..., "
            "everything.pred_iou_thresh=..., and those of predict; see docs/everything.md."
        ),
    ] = None,
    out: Out = None,
    overlays: Overlays = True,
    formats: Formats = None,
    tolerance: Tolerance = 1.0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find all objects of images, and number, outline and count them."""
    from samtune.data.pictures import pictures_in
    from samtune.inference.everything.counts import check_counts
    from samtune.inference.everything.folder import everything_folder
    from samtune.report.quantities import counted
    from samtune.runs.predicting import generator_of
    from samtune.runs.screen_lines import of_answers

    with speaking(as_json, quiet) as display, warning(display):
        request = sources.request_of(source, words, out, formats, tolerance)
        check_counts(request.out)
        search = generator_of(checkpoint, request.settings)
        generator = search.generator
        images = pictures_in(request.source, generator.model.input).records
        display.say(of_answers(generator.model, generator.precision, len(images), 1))
        result = everything_folder(
            generator,
            request.source,
            request.out,
            classes=search.classes,
            class_count=search.class_count,
            overlays=overlays,
            progress=lambda done, total: display.progress("everything", done, total),
            sources=(checkpoint,),
            formats=request.formats,
            tolerance=tolerance,
        )
        objects, count = counted(result["instances"], "object"), counted(result["images"], "image")
        sources.tell(display, result, f"{objects} in {count}: {result['out']}")
    answer(result, as_json)
    sources.end(result)


def calibrate(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint, or the folder of a run.")],
    out: Annotated[Path, typer.Option("--out", help="The .safetensors file to write.")],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            help="Settings: everything.fit=msa or ap; data.root=... and data.split=... for other "
            "images than the validation images of its training."
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fit the thresholds of samtune everything on annotated images; write a new checkpoint."""
    from samtune.runs.calibrating import calibrate_checkpoint

    with speaking(as_json, quiet) as display, warning(display):
        result = calibrate_checkpoint(checkpoint, words or [], out, display)
    answer(result, as_json)
