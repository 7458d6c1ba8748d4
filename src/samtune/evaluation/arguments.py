"""Checks of the arguments of an evaluation, before any image is read."""

from __future__ import annotations

from typing import Any

from samtune.metrics.config import EvalConfig
from samtune.model.checks import check_model
from samtune.options.arguments import check_made_as, check_whole
from samtune.precision import check_precision

ELSEWHERE = {
    "device": "a model is measured on its own device; move it, as in model.to('cuda')",
    "settings": "the settings are measuring=EvalConfig(...)",
    "config": "the settings are measuring=EvalConfig(...)",
}
"""Words that are no arguments of an evaluation, and where the matter is settled."""


def check_measured(
    model: Any, precision: str, batch_size: Any, workers: Any, measuring: Any
) -> None:
    """Refuses wrong arguments of :func:`samtune.evaluate`.

    Args:
        model: The model to be measured.
        precision: The arithmetic.
        batch_size: Images encoded at once.
        workers: Processes that load data.
        measuring: The settings of the metrics, if there are any.

    Raises:
        InputError: The first that is wrong.
    """
    check_model(model)
    check_precision(precision, model.device)
    check_whole("batch_size", batch_size, 1)
    if workers != "auto":
        check_whole("workers", workers, 0)
    check_made_as("measuring", measuring, EvalConfig, "samtune.EvalConfig(metrics='hd95')")
