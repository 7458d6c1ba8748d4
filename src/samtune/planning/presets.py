"""Settings by the memory of a device: those of ``preset=`` and ``train.micro_batch=auto``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from samtune.errors import InputError
from samtune.planning.forecast import USABLE, Forecast, free_memory, way_to_fit
from samtune.planning.load import Load
from samtune.runs.assembly import device_of
from samtune.runs.config import RunConfig
from samtune.runs.trees import lay_over
from samtune.runs.values import Tree, nested
from samtune.runs.words import from_words

GIGA = 10**9


def configuration(words: Sequence[str], first: Mapping[str, Any] | None = None) -> RunConfig:
    """The configuration for a command line whose preset and number of images at once are chosen.

    Args:
        words: Words, as :func:`samtune.runs.words.from_words` takes them.
        first: Defaults below everything else, also below a preset.

    Raises:
        InputError: See :func:`samtune.runs.words.from_words`; or nothing makes it fit.
    """
    config = from_words(words, first)
    if config.preset is None:
        return with_micro_batch(config) if config.resume is None else config
    settings = settings_of(config)
    words = [word for word in words if word.partition("=")[0] != "preset"]
    below: Tree = dict(first or {})
    for key, value in settings.items():
        below = lay_over(below, nested(key, value))
    return replace(from_words(words, below), preset=None)


def settings_of(config: RunConfig) -> Tree:
    """The settings that the preset of a configuration stands for, by names as ``train.precision``.

    Raises:
        InputError: No settings make the training fit.
    """
    name = str(config.preset)
    on_cpu: Tree = {"device": "cpu"} if name == "cpu" else {}
    config = replace(config, **on_cpu)
    forecast = Forecast(Load(config))
    way = way_to_fit(forecast, USABLE * _room(name, torch.device(device_of(config))))
    if way is None:
        raise InputError(
            f"preset={name}: {config.adapter['name']} on {config.base.name} does not fit, whatever "
            "is set; choose a smaller base, a smaller input.size or adapter.name=none"
        )
    return {**on_cpu, **way.settings}


def with_micro_batch(config: RunConfig) -> RunConfig:
    """A configuration with a number in the place of ``train.micro_batch=auto``.

    The number is the largest whose memory is there; at least 1.
    """
    if not config.train.fits_memory:
        return config
    forecast = Forecast(Load(config))
    room, images = USABLE * free_memory(forecast.device), config.train.whole_batch
    while images > 1 and forecast.peak(images) > room:
        images = (images + 1) // 2
    train = replace(config.train, batch_size=config.train.whole_batch, micro_batch=images)
    return replace(config, train=train)


def _room(name: str, device: torch.device) -> float:
    """Bytes of the memory that a preset is about."""
    return free_memory(device) if name in ("cpu", "auto") else int(name[:-2]) * GIGA
