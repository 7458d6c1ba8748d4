"""A forecast in lines for people, and as plain values."""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter

from samtune.data.layouts import find
from samtune.data.shapes import measure
from samtune.distributed import place
from samtune.planning.forecast import SIZES, USABLE, Forecast, Way, late_blocks, way_to_fit
from samtune.planning.load import OBJECTS, Load
from samtune.planning.presets import GIGA
from samtune.precision import arithmetic
from samtune.report.quantities import counted, duration, quantity
from samtune.runs.config import RunConfig
from samtune.runs.data_of_run import parts_to_train_on
from samtune.runs.screen_lines import line
from samtune.runs.values import Tree
from samtune.training.order import batches_per_epoch
from samtune.training.schedule import total_steps

LOOKED_AT = 16
"""Number of masks whose objects are counted."""


def load_of(config: RunConfig) -> tuple[Load, int | None]:
    """The load of a configuration, and how many steps it has, if it names data.

    Raises:
        InputError: The data are wrong.
    """
    if config.data.root is None:
        return Load(config), None
    parts, _ = parts_to_train_on(config, find(config.data))
    shapes = measure(parts["train"], config.data, LOOKED_AT)
    objects = max(1, round(len(shapes) / max(1, shapes.images)))
    train, processes = config.train, place()[1]
    how = train.whole_batch, processes, train.epoch_fraction, train.last_batch
    steps = total_steps(train, batches_per_epoch(len(parts["train"]), *how))
    return Load(config, objects), steps


def ways(forecast: Forecast) -> dict[int, Way | None]:
    """How a training fits into each of the usual memories, by gigabytes."""
    late = late_blocks(forecast.load.config)
    also = [] if late is None else [{**late, "train.checkpointing": True}]
    by_size: dict[int, Way | None] = {}
    for size in SIZES:
        by_size[size] = way_to_fit(forecast, USABLE * size * GIGA, also)
        way = by_size[size]
        if way is not None and not way.settings:  # so do all larger ones
            by_size |= dict.fromkeys((more for more in SIZES if more > size), way)
            break
    return by_size


def lines_of(forecast: Forecast, steps: int | None, by_size: dict[int, Way | None]) -> str:
    """A forecast for a terminal."""
    load, config = forecast.load, forecast.load.config
    train, (trainable, whole) = config.train, forecast.parameters
    count, at_once = load.count(train.at_once), train.at_once
    height, width = load.frame
    rows = [
        line(
            "method",
            f"{config.adapter['name']}, decoder {config.decoder['name']} on {config.base.name}; "
            f"{quantity(trainable)} of {quantity(whole)} parameters are trained",
        ),
        line(
            "step",
            f"{counted(train.whole_batch * train.accumulate, 'image')} of {height} x {width} "
            f"pixels, {at_once} at once, {counted(load.prompts * load.rounds, 'prompt')} each",
        ),
        line(
            "",
            f"{quantity(forecast.flops(), 'FLOP')} in "
            f"{arithmetic(train.precision, forecast.device)} on {forecast.device}",
        ),
        line(
            "memory",
            f"{quantity(forecast.peak(at_once), 'B')} at most: weights "
            f"{quantity(count.weights, 'B')}, for the gradient {quantity(count.for_backward, 'B')}",
        ),
        line("time", _time(forecast, steps)),
        line("fits", "memory   settings"),
        *(line("", row) for row in _fits(by_size)),
    ]
    if load.config.data.root is None:
        rows.append(f"note: without a folder of data, an image has {OBJECTS} objects")
    if forecast.device.type == "cpu":
        rows.append("note: counted as this processor computes; a GPU's kernels need less or more")
    return "\n".join(rows)


def _time(forecast: Forecast, steps: int | None) -> str:
    seconds = forecast.seconds()
    if seconds is None:
        reason = "no step was timed"
        return reason if forecast.trials else f"{reason}; samtune plan without --quick times two"
    images = " and ".join(str(trial.images) for trial in forecast.trials)
    text = f"{duration(seconds)} per step, by timed steps of {images} images"
    if steps is None:
        return text
    return f"{text}; {counted(steps, 'step')} take {duration(steps * seconds)}"


def _fits(by_size: dict[int, Way | None]) -> list[str]:
    """A row for each way to fit, with the memories that it is for."""
    rows, texts = [], [(size, _words(way)) for size, way in by_size.items()]
    for text, group in groupby(texts, itemgetter(1)):
        sizes = [str(size) for size, _ in group]
        ends = "-".join(dict.fromkeys((sizes[0], sizes[-1])))
        rows.append(f"{f'{ends} GB':<9}{text}")
    return rows


def _words(way: Way | None) -> str:
    if way is None:
        return "a smaller base or input.size, or adapter.name=none"
    words = [f"{key}={_value(value)}" for key, value in way.settings.items()]
    return f"{' '.join(words) or 'as it is'} ({quantity(way.peak, 'B')})"


def _value(value: object) -> str:
    if isinstance(value, list):
        return f"[{value[0]}..{value[-1]}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def as_json(forecast: Forecast, steps: int | None, by_size: dict[int, Way | None]) -> Tree:
    """A forecast as plain values."""
    fits = {
        f"{size}gb": None if way is None else {"settings": way.settings, "peak_bytes": way.peak}
        for size, way in by_size.items()
    }
    return {**forecast.json(), "steps": steps, "fits": fits}
