"""Common to the verbs of the command line: options, output for people, and the JSON answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samtune.cli.completion import complete_words
from samtune.interrupts.signals import exit_code_of, words_of

if TYPE_CHECKING:
    from samtune.report.terminal import Display

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Say only what came out, and what is wrong.")
]
Words = Annotated[
    list[str] | None,
    typer.Argument(
        help="A data folder, names of recipes, YAML files, and settings as key=value.",
        show_default=False,
        autocompletion=complete_words,
    ),
]


class Interrupted(Exception):
    """The user pressed Ctrl-C, or another signal ended the run.

    Args:
        error: The exception.
    """

    def __init__(self, error: KeyboardInterrupt) -> None:
        super().__init__(words_of(error))
        self.code = exit_code_of(error)


@contextmanager
def speaking(as_json: bool, quiet: bool = False) -> Iterator[Display]:
    """The display of a verb; with ``as_json`` it leaves stdout to the answer.

    Args:
        as_json: Whether there is one.
        quiet: Whether only results and warnings are shown.

    Raises:
        Interrupted: In place of ``KeyboardInterrupt``, of which typer's releases each make
            something else.
    """
    from samtune.report.terminal import Display

    try:
        with Display(as_json, quiet) as display:
            yield display
    except KeyboardInterrupt as error:
        raise Interrupted(error) from None


@contextmanager
def warning(display: Display) -> Iterator[None]:
    """Shows samtune's own warnings as one line on stderr."""
    import warnings

    from samtune.inference.predictor import PromptMismatch

    with warnings.catch_warnings():
        warnings.simplefilter("always", PromptMismatch)
        warnings.showwarning = lambda message, *_, **__: display.warn(f"samtune: {message}")
        yield


def answer(value: Any, as_json: bool) -> None:
    """The last line of stdout for programs; of several processes the main one's."""
    from samtune.distributed import is_main

    if as_json and is_main():
        print(json.dumps(value))
