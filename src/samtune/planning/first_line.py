"""The line of a training's first screen about what it will take, if it is a long one."""

from __future__ import annotations

from math import prod

from samtune.errors import InputError
from samtune.planning.forecast import Forecast
from samtune.planning.load import Load
from samtune.report.quantities import quantity
from samtune.runs.first_screen import images_per_step
from samtune.runs.plan import Plan
from samtune.runs.screen_lines import line
from samtune.training.order import batches_per_epoch
from samtune.training.schedule import total_steps

LONG = 100e12
"""Operations of a training from which on its line is worth the seconds that counting takes."""


def first_line(plan: Plan) -> list[str]:
    """The operations and memory of a step, counted; nothing for a short training.

    Args:
        plan: The plan of the training that is about to begin.
    """
    train, model = plan.settings, plan.model
    how = train.whole_batch, 1, train.epoch_fraction, train.last_batch
    steps = total_steps(train, batches_per_epoch(len(plan.train), *how))
    tokens = prod(side // model.sam.image_encoder.stride for side in model.input.size)
    encoder = sum(p.numel() for p in model.sam.image_encoder.parameters())
    if 6 * encoder * tokens * steps * images_per_step(train) < LONG:
        return []
    forecast = Forecast(Load(plan.config))
    try:
        peak = quantity(forecast.peak(train.at_once), "B")
        return [line("plan", f"{quantity(forecast.flops(), 'FLOP')} and about {peak} per step")]
    except InputError:  # a method that decides by values
        return []
