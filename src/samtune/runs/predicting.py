"""Builds the predictor for a command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from samtune.inference.predictor import Predictor, check_threshold
from samtune.report.classes import Classes
from samtune.runs.config import RunConfig
from samtune.runs.source import Source
from samtune.runs.trees import leaves
from samtune.runs.words import layers, refuse_unused

PRECISION = "train.precision"
USED = ("base", "adapter", "decoder", "input", "data", "strength", "device")
"""The groups of settings that a prediction uses or checks, besides the precision."""


class Prediction(NamedTuple):
    """A predictor, and how its answers are shown."""

    predictor: Predictor
    classes: Classes


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
    for word in words:
        refuse_unused(word, "predict", _is_used)
    origin = Source.of(source)
    config = origin.configure(words, measures=False)
    chosen = any(PRECISION in leaves(tree) for tree in layers(words))
    precision = config.train.precision if chosen else "fp32"
    predictor = origin.model(config).predictor(threshold, precision)
    return Prediction(predictor, classes_of(config))


def classes_of(config: RunConfig) -> Classes:
    """The names of the classes of a model's training."""
    return Classes(config.data.class_names, config.data.background)


def _is_used(key: str) -> bool:
    return key.partition(".")[0] in USED or key == PRECISION
