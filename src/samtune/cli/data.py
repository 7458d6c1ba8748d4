"""``samtune data``: lists known data sets and layouts, and checks a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samtune.cli.console import Json, Words, answer, speaking
from samtune.report.quantities import counted

if TYPE_CHECKING:
    from samtune.data.check import Check
    from samtune.data.remarks import Finding
    from samtune.report.terminal import Display

FILES_SHOWN = 3
"""Files shown of each kind of finding; the JSON lists all."""
FEW_KINDS = 4
"""Most kinds of findings of which several files are shown; of more, one each, to fit a screen."""

app = typer.Typer(
    help="Known data sets and layouts, and a check of your own.", no_args_is_help=True
)


@app.command(name="list")
def listing(
    layouts: Annotated[bool, typer.Option("--layouts", help="The layouts alone.")] = False,
    as_json: Json = False,
) -> None:
    """List the published data sets, for data.name, and the layouts, for data.layout."""
    ways = [{"name": way.name, "about": way.about} for way in _layouts().values()]
    rows = [] if layouts else named_sets()
    with speaking(as_json) as display:
        if rows:
            columns = ("data.name", "what is segmented", "classes", "paper")
            display.table(
                columns, [(r["name"], r["task"], str(r["classes"]), r["paper"]) for r in rows]
            )
        display.table(("data.layout", "about"), [(way["name"], way["about"]) for way in ways])
    answer(ways if layouts else rows, as_json)


@app.command()
def check(words: Words = None, as_json: Json = False) -> None:
    """Look at every file at once: samtune data check FOLDER."""
    from samtune.cli.first_look import look

    look(words or [], ("data.root",))
    from samtune.data import DataConfig
    from samtune.data.check import check as look_at
    from samtune.data.problems import complaints
    from samtune.runs.words import from_words

    with speaking(as_json) as display:
        result, config = None, DataConfig()
        with complaints() as refused:
            config = from_words(words or []).data
            result = look_at(config, lambda n, total: display.progress("check", n, total))
        if result is None:
            result = _unread(refused)
        show(display, result, root=f"{config.root}/" if result.counts["images"] else "")
    answer(result.tree(), as_json)
    if not result.ok:
        raise typer.Exit(2)


def named_sets() -> list[dict[str, Any]]:
    """The facts about each published data set, by name."""
    from samtune.data.named import DATASETS

    keys = ("name", "task", "title", "paper", "url", "layout")
    rows = []
    for name in sorted(DATASETS):
        each = DATASETS[name]
        classes = {
            "classes": each.defaults.get("classes", 1),
            "class_names": list(each.defaults.get("class_names", ())),
        }
        rows.append({**{key: getattr(each, key) for key in keys}, **classes})
    return rows


def show(display: Display, result: Check, root: str = "") -> None:
    """A check for the eye: counts, then each kind of problem and remark with its first files.

    Args:
        display: The terminal that results go to.
        result: The result of the check.
        root: The folder that is removed from file names.
    """
    from samtune.data.findings import first_lines

    counts = result.counts
    if counts["splits"]:
        columns = ("split", "images", "objects", "empty", "height", "width", "ignored")
        display.table(columns, [_split_row(n, s) for n, s in counts["splits"].items()])
    if counts["masks"]:
        kinds = ", ".join(f"{kind} in {counted(n, 'file')}" for kind, n in counts["masks"].items())
        display.say(f"mask values: {kinds}")
    if counts["bands"]:
        display.say(f"bands of images, from 0: {'; '.join(counts['bands'])}")
    if counts["classes"]:
        rows = [_class_row(row) for row in counts["classes"] if row["images"]]
        display.table(("value", "class", "pixels", "images", "objects"), rows)
        absent = [row["name"] for row in counts["classes"] if not row["images"]]
        if absent:
            display.say(f"classes without a pixel: {', '.join(absent)}")
    groups = result.groups()
    for heading, alike in groups:
        if len(groups) > FEW_KINDS:
            display.say("\n".join(first_lines(heading, alike, root)))
        else:
            _show_kind(display, heading, alike, root)
    display.say(result.verdict())


def _unread(refused: Sequence[Exception]) -> Check:
    """The problems of files that are read for their settings, as a check.

    Raises:
        InputError: The refusal is of no file.
    """
    from samtune.data.check import Check, findings
    from samtune.data.problems import DataError

    errors = [error for error in refused if isinstance(error, DataError)]
    if not errors:
        raise refused[-1]
    rows = [row for error in errors for row in findings(error, error.file)]
    empty: dict[str, Any] = {"images": 0, "masks": {}, "splits": {}, "classes": [], "bands": []}
    return Check(tuple(rows), (), empty)


def _layouts() -> Mapping[str, Any]:
    from samtune.data.layouts import LAYOUTS

    return LAYOUTS


def _show_kind(display: Display, title: str, rows: Sequence[Finding], root: str) -> None:
    display.say(f"{title}, {counted(len(rows), 'time')}")
    shown = rows[:FILES_SHOWN]
    for row in shown:
        display.say(f"  {row.file.removeprefix(root)}: {row.what}")
    if len(rows) > FILES_SHOWN:
        display.say(f"  ... and {len(rows) - FILES_SHOWN} more; --json lists them all")
    for remedy in dict.fromkeys(row.remedy for row in shown):
        display.say(f"  -> {remedy}")


def _split_row(name: str, summary: Mapping[str, Any]) -> tuple[str, ...]:
    sides = [
        f"{least}" if least == most else f"{least} to {most}"
        for least, most in zip(summary["smallest"], summary["largest"], strict=True)
    ]
    numbers = (str(summary[key]) for key in ("images", "objects", "empty"))
    return name, *numbers, *sides, f"{summary['ignored']:.1%}"


def _class_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    counts = (str(row[key]) for key in ("images", "objects"))
    return str(row["class"]), row["name"], f"{row['share']:.2%}", *counts
