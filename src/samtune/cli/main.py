"""The command line; importing it is cheap, each verb imports what it needs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from samtune.cli.completion import complete_method, complete_recipe, complete_words
from samtune.cli.console import Json, Quiet, Words, answer, speaking, warning
from samtune.cli.data import app as data_app
from samtune.cli.doctor import doctor
from samtune.cli.ending import end_of, prepare_streams
from samtune.cli.everything import calibrate, everything
from samtune.cli.hints import in_full
from samtune.cli.importing import bring_in
from samtune.cli.outward import bundle, export
from samtune.cli.plan import plan
from samtune.cli.predict import predict
from samtune.cli.reference import list_metrics, list_settings
from samtune.cli.setting_list import TakesSettings

DemoWords = Annotated[
    list[str] | None,
    typer.Argument(
        help="Settings as key=value.", show_default=False, autocompletion=complete_words
    ),
]

ALONE = ("predict", "everything", "calibrate", "import", "merge", "export", "bundle")
"""Verbs whose work is not shared among processes: the main one does it."""

FIVE_THINGS = """\
samtune fine-tunes the Segment Anything Model on your own images.

  samtune demo                       see it work on what ships with samtune
  samtune data check FOLDER          look at your images and masks
  samtune train FOLDER               fine-tune, and measure what that brought
  samtune eval RUN FOLDER            measure a trained model on other data
  samtune predict RUN PHOTOS         write masks for new images

RUN is the folder that a training names, as runs/lora-tuned-nano-polyps.
All verbs: samtune --help; the settings of a training: samtune train --help"""
"""The text that ``samtune`` alone prints."""

FIRST = ("demo", "data", "train", "eval", "predict", "everything", "compare")
"""The verbs in the order in which people need them; the others follow."""

SEE_TRAIN = "samtune train --help lists them."
"""Ends the help of the other verbs that take settings."""


class InOrder(TyperGroup):
    """Lists the verbs that people need first before the others."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of the verbs."""
        return [*FIRST, *(name for name in super().list_commands(ctx) if name not in FIRST)]


app = typer.Typer(
    name="samtune",
    cls=InOrder,
    help="Fine-tune the Segment Anything Model. Settings are key=value words, as in train.lr=1e-4.",
    pretty_exceptions_enable=False,
)
app.add_typer(data_app, name="data")
app.command()(export)
app.command()(bundle)
app.command(epilog=f"Settings are those of a training; {SEE_TRAIN}")(plan)
app.command()(doctor)
app.command(name="settings")(list_settings)
app.command(name="metrics")(list_metrics)


@app.command(epilog=f"Settings are those of a training; {SEE_TRAIN}")
def demo(words: DemoWords = None, as_json: Json = False, quiet: Quiet = False) -> None:
    """Fine-tune on what ships with samtune, evaluate, and show the result."""
    from importlib.util import find_spec

    from samtune.assets import demo_data

    defaults = {"data": {"root": str(demo_data())}}
    words = list(words or [])
    if find_spec("skimage") is None and not any(word.startswith("prompts.eval=") for word in words):
        words.insert(0, "prompts.eval=none")
        if not quiet:
            typer.echo(
                "note: nuclei are counted too after pip install 'samtune[instances]'", err=True
            )
    _run_training(["demo", *words], as_json, quiet, defaults, "demo")


@app.command(cls=TakesSettings)
def train(words: Words = None, as_json: Json = False, quiet: Quiet = False) -> None:
    """Fine-tune on your own folder of images and masks: samtune train FOLDER."""
    _run_training(words or [], as_json, quiet)


@app.command(name="eval", epilog=f"Settings are the checkpoint's unless set; {SEE_TRAIN}")
def evaluate(
    source: Annotated[
        str, typer.Argument(help="A checkpoint, the folder of a run, or a base (zero-shot only).")
    ],
    words: Words = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a checkpoint, or several, beside the zero-shot base on a data set."""
    from samtune.cli.first_look import look

    look([word for word in words or [] if "=" in word], ("adapter", "decoder", "data.root"))
    from samtune.runs.jobs import evaluate_run
    from samtune.runs.prompt_matrix import evaluate_several
    from samtune.runs.source import Source

    more = [word for word in words or [] if Source.is_named_by(word)]
    settings = [word for word in words or [] if word not in more]
    with speaking(as_json, quiet) as display, warning(display):
        if more:
            summary = evaluate_several([source, *more], settings, display)
            display.matrix(summary)
        else:
            summary = evaluate_run(source, settings, display)
            display.results(summary)
    answer(summary, as_json)


app.command()(predict)
app.command()(everything)
app.command()(calibrate)


@app.command(
    epilog=f"Besides methods=, shots= and seeds= it takes the settings of a training; {SEE_TRAIN}"
)
def compare(words: Words = None, as_json: Json = False, quiet: Quiet = False) -> None:
    """Train several methods alike and compare: methods=decoder,lora shots=1,16 seeds=3."""
    from samtune.cli.completion import OF_A_COMPARISON
    from samtune.cli.first_look import look

    look(words or [], [*(word.rstrip("=") for word in OF_A_COMPARISON), "adapter", "decoder"])
    from samtune.compare.jobs import compare as run

    with speaking(as_json, quiet) as display, warning(display):
        result = run(words or [], display)
    answer(result, as_json)
    if result["failed"]:
        raise typer.Exit(1)


app.command(name="import")(bring_in)


@app.command()
def merge(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint, or the folder of a run.")],
    out: Annotated[Path, typer.Option("--out", help="The .pth or .safetensors file to write.")],
    base: Annotated[str | None, typer.Option(help="The base's weights.")] = None,
    trust: Annotated[
        list[str] | None,
        typer.Option(
            "--trust",
            help="A Python module whose code may run if the checkpoint names a part of it; "
            "other commands say trust=MODULE.",
        ),
    ] = None,
    strength: Annotated[
        str | None,
        typer.Option(
            "--strength",
            help="Fraction of the training that acts, from 0 (the base) to 1, or the kind of "
            "prompt whose strength is taken, as box; by default that of the trained prompts.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a checkpoint and its base as one SAM file with the official names."""
    from samtune.errors import InputError
    from samtune.model.checkpoint import load
    from samtune.model.merging import merge as write
    from samtune.model.merging import place_of

    with speaking(as_json) as display:
        if strength is not None and ":" in strength:
            raise InputError(
                f"--strength {strength}: a SAM file holds one set of weights for all prompts; give "
                "one number, as in --strength 0.5, or a kind of prompt, as in --strength box"
            )
        place_of(out, (checkpoint, base))  # before any weights are read
        model = load(checkpoint, base, trust=trust or (), strength=strength)
        merged = write(model, out, (checkpoint, base))
        display.say(
            f"{merged.file}: differs by at most {merged.max_difference:.2g} on a random image"
        )
        if model.strength.by_kind:
            display.say(
                f"strength {merged.strength:g}: a SAM file holds one set of weights for all "
                f"prompts, and the checkpoint has {model.strength}"
            )
    result = {"file": str(merged.file), "max_difference": merged.max_difference}
    answer({**result, "strength": merged.strength}, as_json)


@app.command()
def methods(
    name: Annotated[
        str | None,
        typer.Argument(
            help="An adapter or a decoder, for its options.", autocompletion=complete_method
        ),
    ] = None,
    advise: Annotated[
        bool, typer.Option("--advise", help="List which settings suit which case, by measurements.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the adaptation methods and decoders, or one's options."""
    if advise:
        _advise(name, as_json)
        return
    from samtune.cli import catalogue

    with speaking(as_json) as display:
        rows = catalogue.list_methods() if name is None else [catalogue.describe_method(name)]
        if name is None:
            for found in (rows, catalogue.list_decoders()):
                columns, *cells = catalogue.method_rows(found, brief=display.narrow)
                if display.narrow:
                    display.table(columns, cells)
                else:
                    display.listing(columns, cells, fixed=2)
            plugins = catalogue.list_plugins()
            if plugins:
                columns, *cells = catalogue.plugin_rows(plugins)
                if display.narrow:
                    display.table(columns, cells)
                else:
                    display.listing(columns, cells, fixed=2)
            for plugin in (plugin for plugin in plugins if plugin["remark"]):
                display.say(f"note: {plugin['remark']}")
            display.say("samtune methods NAME shows one in full, with its options")
            rows = [*rows, *plugins]
        else:
            display.say(f"{name}: {catalogue.facts(rows[0])}")
            if options := catalogue.option_rows(rows[0]["options"]):
                display.table(("option", "default", "meaning"), options)
            else:
                display.say("no options")
    answer(rows if name is None else rows[0], as_json)


def _advise(name: str | None, as_json: bool) -> None:
    """The short list of what to take when."""
    from samtune.cli.advice import advice_lines, list_advice
    from samtune.errors import InputError

    with speaking(as_json) as display:
        if name is not None:
            raise InputError(f"{name}: --advise tells of all cases at once; leave the name out")
        display.say(advice_lines())
    answer(list_advice(), as_json)


@app.command()
def recipes(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A recipe's name, for all of it, or a word in the names of several.",
            autocompletion=complete_recipe,
        ),
    ] = None,
    as_yaml: Annotated[
        bool, typer.Option("--yaml", help="Write it as a YAML file to edit: samtune train FILE.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Where --yaml writes; by default NAME.yaml.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the shipped recipes with their published numbers, or show one in full."""
    from samtune.cli.recipe_list import (
        COLUMNS,
        brief,
        list_recipes,
        recipe_page,
        recipe_rows,
        write_recipe,
    )

    with speaking(as_json) as display:
        rows = list_recipes(name)
        if as_yaml or out is not None:
            file = write_recipe(name, rows, out)
            display.say(f"{file}: edit it and start with: samtune train {file} data.root=FOLDER")
        elif len(rows) == 1 and name is not None:
            display.say(recipe_page(rows[0]))
        else:
            shown = [COLUMNS, *recipe_rows(rows)]
            columns, *cells = map(brief, shown) if display.narrow else shown
            display.listing(columns, cells)
            display.say("samtune recipes NAME shows one in full")
    answer(rows[0] if name == rows[0]["name"] else rows, as_json)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"samtune {version('samtune')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(FIVE_THINGS)


def main(args: list[str] | None = None) -> None:
    """Runs the command line; wrong input ends with one line and exit code 2.

    A signal that ends the run does so with one line too, and exit code 128 and its number.

    Args:
        args: The words after ``samtune``; by default those of the process.
    """
    from samtune.distributed import is_main
    from samtune.interrupts.signals import heeding_signals

    args = sys.argv[1:] if args is None else args
    prepare_streams()
    if not is_main() and args[:1] and args[0] in ALONE:
        raise SystemExit(0)
    try:
        with heeding_signals():
            code = app(in_full(args), prog_name="samtune", standalone_mode=False)
            sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        code = end_of(error, args)
    raise SystemExit(code if isinstance(code, int) else 0)


def _run_training(
    words: list[str],
    as_json: bool,
    quiet: bool,
    defaults: dict[str, Any] | None = None,
    name: str | None = None,
) -> None:
    from samtune.cli.first_look import look

    look(words)
    from samtune.planning.first_line import first_line
    from samtune.planning.presets import configuration
    from samtune.runs.jobs import train as run

    with speaking(as_json, quiet) as display, warning(display):
        config = configuration(words, defaults)
        summary = run(config, display, first_line, name)
        display.results(summary)
    answer(summary, as_json)
