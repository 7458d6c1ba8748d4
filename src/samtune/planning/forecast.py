"""The time and memory of a training: counted, then calibrated by two timed steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from samtune.errors import InputError
from samtune.planning.load import Load
from samtune.planning.trial import Trial, run_trials
from samtune.precision import arithmetic
from samtune.runs.assembly import device_of
from samtune.runs.config import RunConfig
from samtune.runs.values import Tree
from samtune.training.memory import free_memory_of_machine

SIZES = (8, 12, 16, 24, 48, 80, 141)
"""Memory of common devices in gigabytes."""
USABLE = 0.9
"""The fraction of a device's memory for a training; the rest is for its driver and for gaps."""
PROGRAM = 250_000_000
"""Bytes of the program's own code and libraries on the CPU, as long as no step was measured."""
GAPS = 1.4
"""The allocator's peak on the CPU as a multiple of the counted one, as long as none was measured:
C libraries keep what is freed between two blocks in use."""
MOST_TIMED = 4
"""The most images at once in a timed step."""


@dataclass(frozen=True)
class Forecast:
    """The memory and time of a step of a training."""

    load: Load
    trials: tuple[Trial, ...] = ()

    @staticmethod
    def of(load: Load, timed: bool) -> Forecast:
        """The forecast of a configuration.

        Args:
            load: The configuration.
            timed: Whether to time two steps, if there is memory for them.
        """
        plain = Forecast(load)
        if not timed:
            return plain
        at_once, room = load.config.train.at_once, free_memory(plain.device)
        sizes = sorted({1, min(at_once, MOST_TIMED) if at_once > 1 else 2})
        fitting = tuple(n for n in sizes if plain.peak(n) < USABLE * room)
        return replace(plain, trials=tuple(run_trials(load, fitting)) if fitting else ())

    @property
    def device(self) -> torch.device:
        """The device of the training."""
        return torch.device(device_of(self.load.config))

    @cached_property
    def parameters(self) -> tuple[int, int]:
        """How many parameters are trained, and how many there are."""
        from samtune.sam.layers import shapes_alone

        with shapes_alone():
            model = self.load.model()
        trainable = model.trainable()
        return trainable, trainable + sum(p.numel() for p in model.sam.parameters())

    def flops(self) -> int:
        """Operations of one step of the optimiser on one device."""
        train = self.load.config.train
        return self.load.count(1).flops * train.whole_batch * train.accumulate

    def peak(self, images: int, other: Load | None = None) -> int:
        """The most bytes of a training with so many images at once.

        Args:
            images: How many.
            other: Another configuration of the same kind, calibrated by this one's steps.
        """
        load = other or self.load
        moments = 4 * 3 * self.parameters[0]  # gradients and both moments of AdamW
        count = load.count(images)
        first, *more = self.trials or (None,)
        program, gaps = self._usual
        if first is not None and more:
            last = more[-1]
            program, gaps = self._through(last, program)
            if images == last.images and other is None:
                return last.peak
        elif first is not None:
            program, gaps = self._through(first, program)
        return int(program + count.weights + moments + gaps * count.peak)

    @property
    def _usual(self) -> tuple[float, float]:
        return (PROGRAM, GAPS) if self.device.type == "cpu" else (0, 1.05)

    def _through(self, trial: Trial, program: float) -> tuple[float, float]:
        """Gaps as a trial shows them, beside what the program takes by itself."""
        count = self.load.count(trial.images)
        fixed = program + count.weights + 12 * self.parameters[0]
        return program, max(1.0, (trial.peak - fixed) / count.peak)

    def seconds(self, images: int | None = None) -> float | None:
        """Seconds of one step of the optimiser on the device that was timed; ``None`` if none was.

        Args:
            images: At once; by default as the settings say.
        """
        return self._seconds([trial.seconds for trial in self.trials], images)

    def cpu_seconds(self, images: int | None = None) -> float | None:
        """The same in seconds of all processors."""
        return self._seconds([trial.cpu_seconds for trial in self.trials], images)

    def _seconds(self, seconds: Sequence[float], images: int | None) -> float | None:
        if not seconds:
            return None
        train = self.load.config.train
        at_once = images or train.at_once
        times = dict(zip((trial.images for trial in self.trials), seconds, strict=True))
        nearest = max((n for n in times if n <= at_once), default=min(times))
        per_image = times[nearest] / nearest
        return per_image * train.whole_batch * train.accumulate

    def json(self) -> Tree:
        """All of it as plain values."""
        trainable, whole = self.parameters
        at_once = self.load.config.train.at_once
        count = self.load.count(at_once)
        return {
            "trained_parameters": trainable,
            "parameters": whole,
            "flops_per_step": self.flops(),
            "images_per_step": self.load.config.train.whole_batch
            * self.load.config.train.accumulate,
            "images_at_once": at_once,
            "prompts_per_image": self.load.prompts * self.load.rounds,
            "weight_bytes": count.weights,
            "kept_bytes": count.for_backward,
            "peak_bytes": self.peak(at_once),
            "seconds_per_step": self.seconds(),
            "device": str(self.device),
            "precision": arithmetic(self.load.config.train.precision, self.device),
            "calibrated_by": [vars(trial) for trial in self.trials],
        }


def free_memory(device: torch.device) -> int:
    """Bytes that a training on a device may take now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_memory_of_machine()


@dataclass(frozen=True)
class Way:
    """Settings with which a training fits into some memory."""

    settings: Tree
    """The changed ones, by names such as ``train.micro_batch``."""
    peak: int
    """The most bytes then."""


def way_to_fit(forecast: Forecast, room: float, also: Sequence[Tree] = ()) -> Way | None:
    """The settings that change least so that a training fits; ``None`` if none of them does.

    In this order: nothing; a smaller precision; fewer images at once; then with recomputed blocks
    as many as fit. Results change by rounding alone.

    Args:
        forecast: The forecast of the settings as they are.
        room: Bytes.
        also: Settings to try last, of other methods.
    """
    train = forecast.load.config.train
    lower: list[Tree] = [{}]
    if arithmetic(train.precision, forecast.device) == "fp32":
        lower.append({"train.precision": "bf16"})
    for further in ({}, {"train.checkpointing": True}, *also):
        if train.checkpointing is True and further == {"train.checkpointing": True}:
            continue
        for change in lower:
            settings = {**change, **further}
            other = changed(forecast.load, settings) if settings else forecast.load
            images = _most_images(forecast, other, room)
            if images is None or (images < train.at_once and change is not lower[-1]):
                continue
            more = {"train.micro_batch": images} if images < train.at_once else {}
            return Way({**settings, **more}, forecast.peak(images, other))
    return None


def _most_images(forecast: Forecast, load: Load, room: float) -> int | None:
    """The most images at once that fit, halving from the number of the settings."""
    images = forecast.load.config.train.at_once
    while images >= 1:
        if forecast.peak(images, None if load is forecast.load else load) <= room:
            return images
        if images == 1:
            return None
        images = (images + 1) // 2
    return None


def changed(load: Load, settings: Tree) -> Load:
    """The load with other settings, by names such as ``train.precision``; made once for each."""
    key = tuple(sorted((name, str(value)) for name, value in settings.items()))
    known = _KNOWN.setdefault(id(load.config), (load.config, {}))[1]
    if key not in known:
        known[key] = replace(load, config=with_settings(load.config, settings))
    return known[key]


_KNOWN: dict[int, tuple[RunConfig, dict[Any, Load]]] = {}


def with_settings(config: RunConfig, settings: Tree) -> RunConfig:
    """A configuration with other settings.

    Raises:
        InputError: They do not fit it.
    """
    from samtune.runs.config import resolve
    from samtune.runs.values import nested

    return resolve([config.tree(), *(nested(key, value) for key, value in settings.items())])


def late_blocks(config: RunConfig) -> Tree | None:
    """The setting that keeps a method to the last half of the blocks, if it has such an option."""
    from samtune.adapters import ADAPTERS
    from samtune.sam.weights import spec_of

    if config.adapter.get("blocks", "") != "all":
        return None
    depth = spec_of(config.base.name).depth
    settings: Tree = {"adapter.blocks": list(range(depth // 2, depth))}
    try:
        with_settings(config, settings)
    except InputError:
        return None
    return settings if ADAPTERS[config.adapter["name"]] else None
