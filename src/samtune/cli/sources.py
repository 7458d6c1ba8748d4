"""The words that verbs over images share: what is read, and where results go."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from glob import glob, has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

if TYPE_CHECKING:
    from samtune.report.terminal import Display

STANDARD_INPUT = "-"
LIST = ".txt"
"""The ending of a file that lists images."""

Checkpoint = Annotated[
    str, typer.Argument(help="A checkpoint, the folder of a run, or a base's name.")
]
Source = Annotated[
    str,
    typer.Argument(
        help="An image, a folder of images, a .txt file with a path per line, or - for such "
        "lines from standard input."
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="Folder for the masks; by default SOURCE-masks."),
]
Overlays = Annotated[bool, typer.Option(help="Write overlay pictures too.")]
Formats = Annotated[
    list[str] | None,
    typer.Option(
        "--as", help="What to write, as in png,coco,yolo; see docs/predict.md. Default: png."
    ),
]
Tolerance = Annotated[
    float, typer.Option(help="Pixels that polygons may be from the mask; 0 keeps its edges.")
]


class Request(NamedTuple):
    """The words of a verb over images, read and checked before any weights are."""

    images: list[str]
    """Images and folders."""
    settings: list[str]
    out: str | Path
    """The folder for the results."""
    formats: list[str]

    @property
    def source(self) -> str | list[str]:
        """The images; a single one as itself."""
        return self.images if len(self.images) > 1 else self.images[0]


def request_of(
    source: str,
    words: Sequence[str] | None,
    out: Path | None,
    formats: Sequence[str] | None,
    tolerance: float,
) -> Request:
    """The images, settings and formats that the words of such a verb ask for.

    Args:
        source: See :data:`Source`.
        words: Further images, and settings.
        out: See :data:`Out`.
        formats: See :data:`Formats`.
        tolerance: See :data:`Tolerance`.

    Raises:
        InputError: An unknown format, no distance, no such image, or a folder that is read.
    """
    from samtune.inference.formats import PNG, chosen_formats
    from samtune.inference.outlines import check_tolerance
    from samtune.inference.places import default_out, refuse_source

    names = chosen_formats(formats or [PNG])
    check_tolerance(tolerance)
    images, settings = sources_of([source, *(words or [])])
    folder = out or default_out(images)
    refuse_source(folder, images)
    return Request(images, settings, folder, names)


def tell(display: Display, result: Mapping[str, Any], line: str) -> None:
    """Shows the remarks of a prediction, and a line of what came out if anything did.

    Args:
        display: The output for the user.
        result: The result of :func:`samtune.inference.folder.predict_folder`.
        line: The line.
    """
    for remark in result["remarks"]:
        display.warn(f"samtune: {remark}")
    if result["images"]:
        display.result(line)


def end(result: Mapping[str, Any]) -> None:
    """Ends a verb: with 1 if some images failed, with 2 if all did.

    Raises:
        typer.Exit: With the exit code, if any failed.
    """
    if result["failed"]:
        raise typer.Exit(1 if result["images"] else 2)


def sources_of(words: Sequence[str]) -> tuple[list[str], list[str]]:
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
