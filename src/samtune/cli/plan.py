"""The verb that says what a training takes before it begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from samtune.cli.console import Json, Words, answer, speaking

if TYPE_CHECKING:
    from samtune.runs.config import RunConfig


def plan(
    words: Words = None,
    quick: Annotated[bool, typer.Option("--quick", help="Count only; time no steps.")] = False,
    as_json: Json = False,
) -> None:
    """Say what a training takes: memory, time, and the settings with which it fits."""
    from samtune.cli.first_look import look

    look([word for word in words or [] if "=" in word], ("adapter", "decoder", "data.root"))
    from samtune.planning.forecast import Forecast
    from samtune.planning.lines import as_json as plain
    from samtune.planning.lines import lines_of, load_of, ways

    with speaking(as_json) as display:
        load, steps = load_of(_configuration(words or []))
        forecast = Forecast.of(load, timed=not quick)
        by_size = ways(forecast)
        display.say(lines_of(forecast, steps, by_size))
    answer(plain(forecast, steps, by_size), as_json)


def _configuration(words: Sequence[str]) -> RunConfig:
    """The configuration of a training: of words, or of a checkpoint with words over it."""
    from samtune.planning.presets import configuration
    from samtune.runs.source import Source

    named = [word for word in words if Source.is_named_by(word)]
    rest = [word for word in words if word not in named]
    first = {k: v for k, v in Source.of(named[0]).settings().items()} if named else None
    return configuration(rest, first)
