"""Evaluates a model on a data set as a configuration says."""

from __future__ import annotations

from samtune.data import SegmentationDataset
from samtune.evaluation.streaming import Evaluation, evaluate
from samtune.model.finetuned import FineTuned
from samtune.report.terminal import Display
from samtune.runs.config import RunConfig


def measure(
    model: FineTuned,
    dataset: SegmentationDataset,
    config: RunConfig,
    display: Display,
    what: str,
    guesses: bool = False,
) -> Evaluation:
    """Evaluates with the configuration's settings, showing progress under the name ``what``."""
    return evaluate(
        model,
        in_frame_of(model, dataset),
        batch_size=config.train.at_once,
        precision=config.train.precision,
        multimask=config.train.multimask,
        workers=config.data.workers,
        progress=lambda done, total: display.progress(what, done, total),
        guesses=guesses,
        measuring=config.eval,
    )


def in_frame_of(model: FineTuned, dataset: SegmentationDataset) -> SegmentationDataset:
    """A data set in the frame of another model, with the same prompts."""
    return dataset.in_frame(model.input.size, model.mask_size)
