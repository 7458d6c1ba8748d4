"""The command line; importing it is cheap, each verb imports what it needs."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="samtune",
    help="Fine-tune the Segment Anything Model. Settings are key=value words, as in train.lr=1e-4.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
Words = Annotated[
    list[str] | None,
    typer.Argument(help="Recipe names, YAML files and key=value settings.", show_default=False),
]


@app.command()
def demo(words: Words = None, as_json: Json = False) -> None:
    """Fine-tune on what ships with samtune, evaluate, and show the result."""
    from samtune.assets import demo_data
    from samtune.config import from_words

    given = {"data": {"root": str(demo_data())}}
    _trained(from_words(["demo", *(words or [])], given), as_json)


@app.command()
def train(words: Words = None, as_json: Json = False) -> None:
    """Fine-tune on your own folder of images and masks: samtune train data.root=FOLDER."""
    from samtune.config import from_words

    _trained(from_words(words or []), as_json)


@app.command(name="eval")
def evaluate(
    source: Annotated[str, typer.Argument(help="A checkpoint, or a base's name (zero-shot only).")],
    words: Words = None,
    as_json: Json = False,
) -> None:
    """Measure a checkpoint, beside the zero-shot base, on a data set."""
    from samtune.config import parse_override, read_tree
    from samtune.runs import evaluate_run

    trees = [
        read_tree(Path(w)) if w.endswith((".yaml", ".yml")) and "=" not in w else parse_override(w)
        for w in words or []
    ]
    with _speaking(as_json) as display:
        summary = evaluate_run(source, trees, display)
        display.results(summary)
    _answer(summary, as_json)


@app.command()
def predict(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint, or a base's name.")],
    source: Annotated[str, typer.Argument(help="An image, or a folder of images.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the masks.")],
    words: Annotated[list[str] | None, typer.Argument(help="base.weights=..., device=...")] = None,
    box: Annotated[
        list[str] | None, typer.Option("--box", help="x0,y0,x1,y1 in pixels; for every image.")
    ] = None,
    point: Annotated[
        list[str] | None, typer.Option("--point", help="x,y or x,y,0 (outside); for every image.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option("--prompts", help="JSON: image name to boxes or points.")
    ] = None,
    overlays: Annotated[bool, typer.Option(help="Write overlay pictures too.")] = True,
    as_json: Json = False,
) -> None:
    """Write masks for images: PNG, overlays and COCO run lengths."""
    from samtune.prediction import predict_folder
    from samtune.runs import predictor_of

    with _speaking(as_json) as display:
        asked = _asked(box or [], point or [], prompts)
        predictor = predictor_of(checkpoint, words or [])
        trained_for = predictor.model.prompts
        if not asked and trained_for not in ("none", "mixed"):
            display.say(
                f"note: {checkpoint} was trained with prompt {trained_for}, and none is given "
                "(--box, --point, --prompts)"
            )
        found = predict_folder(
            predictor,
            source,
            out,
            prompts=asked,
            overlays=overlays,
            progress=lambda done, total: display.progress("predict", done, total),
        )
        for failure in found["failed"]:
            display.errors.print(f"failed: {failure['reason']}", markup=False)
        display.say(f"{found['images']} masks in {found['out']}")
    _answer(found, as_json)
    if found["failed"]:
        raise typer.Exit(2)


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="One method, for its options.")] = None,
    as_json: Json = False,
) -> None:
    """List the adaptation methods, or one method's options."""
    from samtune.catalogue import describe_method, list_methods

    with _speaking(as_json) as display:
        rows = list_methods() if name is None else [describe_method(name)]
        if name is None:
            columns = ("name", "sits", "trainable", "paper")
            display.table(columns, [_method_row(row) for row in rows])
        else:
            display.say(f"{name}: {rows[0]['summary']}\n{rows[0]['paper']}")
            options = rows[0]["options"]
            lines = [(o["name"], str(o["default"]), o["help"]) for o in options]
            display.table(("option", "default", "meaning"), lines)
    _answer(rows if name is None else rows[0], as_json)


@app.command()
def recipes(as_json: Json = False) -> None:
    """List the shipped recipes."""
    from samtune.config import recipes as shipped

    rows = [{"name": name, **tree.get("recipe", {})} for name, tree in shipped().items()]
    with _speaking(as_json) as display:
        display.table(("name", "about"), [(r["name"], r.get("about", "")) for r in rows])
    _answer(rows, as_json)


def main() -> None:
    """Runs the command line; wrong input ends with one line and exit code 2."""
    from samtune.errors import InputError

    try:
        app()
    except InputError as error:
        print(f"samtune: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("samtune: interrupted; go on with samtune train resume=FOLDER", file=sys.stderr)
        raise SystemExit(130) from None


@contextmanager
def _speaking(as_json: bool) -> Any:
    from samtune.display import Display

    with Display(json=as_json) as display:
        yield display


def _trained(config: Any, as_json: bool) -> None:
    import yaml

    from samtune.runs import train as run

    with _speaking(as_json) as display:
        display.say(yaml.safe_dump(config.tree(), sort_keys=False).rstrip())
        summary = run(config, display)
        display.results(summary)
    _answer(summary, as_json)


def _answer(value: Any, as_json: bool) -> None:
    if as_json:
        print(json.dumps(value))


def _method_row(row: dict[str, Any]) -> tuple[str, ...]:
    return row["name"], row["sits"], f"{row['trainable_parameters']:,}", row["paper"]


def _numbers(word: str) -> list[float]:
    return [float(value) for value in word.split(",")]


def _asked(boxes: list[str], points: list[str], file: Path | None) -> dict[str, Any]:
    from samtune.errors import InputError
    from samtune.prediction import check_prompts, read_prompts

    asked = read_prompts(file) if file is not None else {}
    everywhere: dict[str, Any] = {}
    try:
        if boxes:
            everywhere["boxes"] = [_numbers(word) for word in boxes]
        if points:
            rows = [_numbers(word) for word in points]
            everywhere["points"] = [row[:2] for row in rows]
            everywhere["labels"] = [int(row[2]) if len(row) > 2 else 1 for row in rows]
    except ValueError as error:
        raise InputError("--box takes x0,y0,x1,y1 and --point takes x,y or x,y,label") from error
    if everywhere:
        asked["*"] = check_prompts({"*": everywhere}, "--box/--point")["*"]
    return asked
