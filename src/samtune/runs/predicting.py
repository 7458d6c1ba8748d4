"""Builds the predictor for a command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from samtune.errors import InputError
from samtune.inference.everything.config import EverythingConfig
from samtune.inference.everything.generator import MaskGenerator
from samtune.inference.everything.instances import InstanceGenerator
from samtune.inference.everything.watershed import (
    WatershedConfig,
    WatershedGenerator,
    finds_by_watershed,
)
from samtune.inference.predictor import Predictor, check_threshold
from samtune.model.finetuned import FineTuned
from samtune.precision import Precision
from samtune.report.classes import Classes
from samtune.runs.config import RunConfig
from samtune.runs.source import Source
from samtune.runs.trees import leaves
from samtune.runs.words import chosen_keys, layers, refuse_unused

PRECISION = "train.precision"
USED = ("base", "adapter", "decoder", "input", "data", "strength", "device", "trust")
"""The groups of settings that a prediction uses or checks, besides the precision."""


class Prediction(NamedTuple):
    """A predictor, and how its answers are shown."""

    predictor: Predictor
    classes: Classes


class Search(NamedTuple):
    """A generator of instances, and the classes of what it finds."""

    generator: InstanceGenerator
    classes: Classes | None = None
    class_count: int = 0


def predictor_of(source: str, words: Sequence[str], threshold: float = 0.0) -> Prediction:
    """A predictor for a checkpoint, or for a base by its name.

    Args:
        source: A checkpoint's path, the folder of its run, or the name of a base.
        words: Settings as ``key=value``; with ``train.precision`` the forward pass has that
            precision, whatever the training had.
        threshold: Logits above it are inside.

    Raises:
        InputError: Wrong checkpoint, base, settings or threshold, or a setting against the
            checkpoint or of no use to a prediction.
    """
    check_threshold(threshold)  # before any weights are read
    model, config, precision = _model_of(source, words, "predict", USED)
    return Prediction(model.predictor(threshold, precision), classes_of(config))


def generator_of(source: str, words: Sequence[str]) -> Search:
    """A generator of instances for a checkpoint, or for a base by its name.

    Args:
        source: See :func:`predictor_of`.
        words: The same settings, and those of ``everything`` and ``watershed``.

    Raises:
        InputError: As :func:`predictor_of`, or a model that cannot find instances.
    """
    groups = (EverythingConfig.section, WatershedConfig.section)
    for word in words:
        refuse_unused(word, "everything", lambda key: key != f"{groups[0]}.fit")
    model, config, precision = _model_of(source, words, "everything", (*USED, *groups))
    by_group = {group: _set_in(words, group) for group in groups}
    decoder, settings = model.acting.decoder, config.watershed
    floods = finds_by_watershed(model, settings.answer, "answer" in by_group[groups[1]])
    unused = groups[0] if floods else groups[1]
    asks_for_grid = settings.answer == "grid"
    for key in by_group[unused]:
        if not (asks_for_grid and (unused, key) == (groups[1], "answer")):
            raise InputError(
                f"{unused}.{key}: no effect, since {_way_of(floods)}; leave it out"
                + (", or set watershed.answer=grid" if floods and decoder.prompted else "")
            )
    if not floods:
        changes = {name: getattr(config.everything, name) for name in by_group[groups[0]]}
        return Search(MaskGenerator(model, precision=precision, **changes))
    changes = {name: getattr(settings, name) for name in by_group[groups[1]]}
    generator = WatershedGenerator(model, precision=precision, **changes)
    count = decoder.object_classes
    return Search(generator, classes_of(config) if count else None, count)


def _set_in(words: Sequence[str], group: str) -> list[str]:
    """The settings of a group that words set, without the group's name."""
    keys = (key for key in chosen_keys(words) if key.startswith(f"{group}."))
    return sorted(key.removeprefix(f"{group}.") for key in keys)


def _way_of(floods: bool) -> str:
    way = "a watershed" if floods else "a grid of points"
    return f"the model finds objects by {way}"


def _model_of(
    source: str, words: Sequence[str], verb: str, groups: Sequence[str]
) -> tuple[FineTuned, RunConfig, Precision]:
    """A model with the settings of a command line, of which it uses some groups."""

    def is_used(key: str) -> bool:
        return key.partition(".")[0] in groups or key == PRECISION

    for word in words:
        refuse_unused(word, verb, is_used)
    origin = Source.of(source, words)
    config = origin.configure(words, measures=False)
    chosen = any(PRECISION in leaves(tree) for tree in layers(words))
    return origin.model(config), config, config.train.precision if chosen else "auto"


def classes_of(config: RunConfig) -> Classes:
    """The names of the classes of a model's training."""
    return Classes(config.data.class_names, config.data.background)
