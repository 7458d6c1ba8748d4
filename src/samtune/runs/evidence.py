"""Measurements for a training's diagnosis: on a few images, once the training is over."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from samtune.data import SegmentationDataset, collate
from samtune.data.shapes import Shapes
from samtune.distributed import from_main, is_main
from samtune.evaluation.streaming import predict
from samtune.metrics.contract import MEASURES
from samtune.model.finetuned import FineTuned
from samtune.prompts import NONE
from samtune.report.overlays import Overlay
from samtune.report.terminal import Display
from samtune.runs.assembly import dataset_of
from samtune.runs.baseline import answers_to_image, spread
from samtune.runs.config import RunConfig
from samtune.runs.diagnosis import Colours, Evidence, diagnose, misfits, needs_base
from samtune.runs.framing import wider_settings, width_in_tokens
from samtune.runs.measuring import measure
from samtune.runs.selection import judged_by
from samtune.training.state import trained_tensors

IMAGES = 16
"""Number of training images that are answered, or as many as the test has if that is more."""
IMAGES_IN_TILES = 4
"""The number if each of them is many tiles."""
MOST_IMAGES = 32
COLOURED = 16
"""Number of images per split whose colours are measured."""
PICTURES = 4
"""Number of training images in the report."""


class Examination:
    """Looks for the causes of a training's result; it is created before the first step.

    Args:
        models: The base and the model to tune.
        parts: The files of each split.
        config: The run's settings.
        shapes: The objects of the training masks.
    """

    def __init__(
        self,
        models: tuple[FineTuned, FineTuned],
        parts: Mapping[str, Sequence[Any]],
        config: RunConfig,
        shapes: Shapes,
    ) -> None:
        self.models, self.parts, self.config, self.shapes = models, parts, config, shapes
        self.mode = judged_by(config)[1]
        """The prompts of the validation, so that training images are comparable with it."""
        self.norm = _norm(models[1].state_dict().values())

    def causes(
        self, rows: Sequence[Mapping[str, Any]], folder: Path, display: Display
    ) -> tuple[list[str], list[Overlay]]:
        """The likely causes in words, and pictures of training images that cannot be fit.

        Args:
            rows: The records of the training.
            folder: The run's folder, with the state after the last step.
            display: The output for progress.
        """
        model = self.models[1]
        strength = model.strength
        model.strength = 1.0  # the trained weights, as the validations of the training had them
        evidence = replace(self.measure(display), rows=rows)
        evidence = replace(evidence, weights=(self.norm, norm_after(folder)))
        if from_main(partial(needs_base, evidence)):  # the others have no records
            evidence = replace(evidence, training_before=self._training_before(display))
        sentences, pictures = diagnose(evidence), self._pictures(evidence)
        model.strength = strength
        return sentences, pictures

    def measure(self, display: Display) -> Evidence:
        """Measurements after the training: on training images, between prompts, between splits."""
        config, model, train = self.config, self.models[1], self._some_training_images()
        after = measure(model, train, config, display, "tuned, training images")
        metric, wide = config.train.metric, len(self.shapes) > 0
        return Evidence(
            lr=config.train.peak_lr,
            metric=metric if metric in MEASURES and MEASURES[metric].higher else "iou",
            width=width_in_tokens(config, self.shapes) if wide else None,
            wider=wider_settings(config, self.shapes),
            training={train.records[item["index"]].name: item["iou"] for item in after.items},
            pairs=()
            if self.mode == NONE
            else answer_pairs(model, self._dataset(self.parts["val"]), config),
            starts_as_base=model.adapter.identity_at_init and not model.decoder.changes_at_start,
            colours={
                name: _colours(self._dataset(spread(list(records), COLOURED)))
                for name, records in self.parts.items()
            },
        )

    def _training_before(self, display: Display) -> float:
        train = self._some_training_images()
        what = "zero-shot, training images"
        return measure(self.models[0], train, self.config, display, what).metrics["iou"]

    def _some_training_images(self) -> SegmentationDataset:
        least = IMAGES_IN_TILES if self.config.input.tiles == "tiled" else IMAGES
        most = min(MOST_IMAGES, max(least, len(self.parts["test"])))
        return self._dataset(spread(list(self.parts["train"]), most))

    def _pictures(self, evidence: Evidence) -> list[Overlay]:
        by_name = {record.name: record for record in self.parts["train"]}
        worst = misfits(evidence)[:PICTURES]
        if not worst or not is_main():
            return []
        dataset = self._dataset([by_name[name] for name in worst])
        overlays = []
        for index, name in enumerate(worst):
            overlay, answers = answers_to_image(self.models, dataset, index, self.config)
            iou = evidence.training[name]
            overlays.append(replace(overlay, before=answers[0], after=answers[1], iou_after=iou))
        return overlays

    def _dataset(self, records: Sequence[Any]) -> SegmentationDataset:
        return dataset_of(self.config, self.models[1], records, False, self.mode)


def norm_after(folder: Path) -> float:
    """The norm of all trained tensors after the last step of a training, from its state.

    Args:
        folder: The run's folder.
    """
    return _norm(trained_tensors(folder / "last").values())


def answer_pairs(
    model: FineTuned, dataset: SegmentationDataset, config: RunConfig
) -> list[tuple[float, float]]:
    """The IoU between the answers to two prompts of one image, and that between their objects.

    The first prompt is compared with the last, the second with the last but one, and so on; a few
    of a few images.
    """
    pairs: list[tuple[float, float]] = []
    how = (config.train.precision, config.train.multimask, dataset.rounds)
    for index in range(min(len(dataset), IMAGES)):
        batch = collate([dataset[index]])
        if len(batch.prompts) < 2 or len(pairs) >= IMAGES:
            continue
        answers, objects = predict(model, batch, *how)[0].cpu(), batch.originals[0]
        for first in range(min(len(answers) // 2, 2)):
            last = len(answers) - 1 - first
            pairs.append((_iou(answers[first], answers[last]), _iou(objects[first], objects[last])))
    return pairs


def _norm(tensors: Iterable[torch.Tensor]) -> float:
    return math.hypot(*(float(t.detach().float().norm()) for t in tensors))


def _iou(a: torch.Tensor, b: torch.Tensor) -> float:
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else float("nan")


def _colours(dataset: SegmentationDataset) -> Colours:
    images = (dataset.sample(index).image.reshape(-1, 3) for index in range(len(dataset)))
    means, contrasts = zip(*((image.mean(0), image.mean(1).std()) for image in images), strict=True)
    return Colours(np.stack(means), np.array(contrasts))
