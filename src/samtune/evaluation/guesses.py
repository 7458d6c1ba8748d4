"""The guesses without a model that an evaluation measures beside the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from samtune.batch import Batch
from samtune.data import SegmentationDataset
from samtune.evaluation.image_results import Ends, MaskPairs, Place, image_result
from samtune.evaluation.sums import (
    ImageSums,
    counter_on,
    draws_of,
    gather_items,
    suite_for,
)
from samtune.evaluation.uncertainty import Draws
from samtune.inference.batches import Answers
from samtune.metrics.config import EvalConfig
from samtune.model.finetuned import FineTuned
from samtune.prompts import kind_of

if TYPE_CHECKING:
    from samtune.metrics import MaskMetrics


class Guess(Protocol):
    """Measures a guess that needs no model; a model that scores lower has learned nothing."""

    def addition(
        self, batch: Batch, at: Place, pairs: MaskPairs, answers: Answers, ends: Ends
    ) -> Callable[[], object]:
        """Prepares the addition of an image, or of some of its masks; see ``ImageSums``.

        Args:
            batch: The batch.
            at: Position of the image.
            pairs: The model's masks beside their targets.
            answers: The model's answers.
            ends: The place of these masks among the image's.
        """

    def results(self) -> tuple[dict[str, Any], Draws]:
        """The metrics over all processes, and their draws."""


def guesses_for(
    model: FineTuned, dataset: SegmentationDataset, config: EvalConfig
) -> dict[str, Guess]:
    """The guesses that a model should beat, by name.

    For boxes these are the masks that the boxes alone give, for maps of classes the most frequent
    class everywhere, otherwise the whole image as one object.
    """
    from samtune.metrics import filled_box, inscribed_ellipse, whole_image
    from samtune.metrics.contract import MEASURES

    if dataset.class_maps:
        return {"one class everywhere": OneClass()}
    boxed = all(kind_of(mode) == "box" for mode in dataset.modes)
    of_boxes = {"filled box": filled_box, "inscribed ellipse": inscribed_ellipse}
    # A guess has a mask, but no probabilities and no estimate of its IoU.
    names = tuple(name for name in config.names if set(MEASURES[name].needs) <= {"whole"})
    of_masks = replace(config, metrics=names)
    guesses = of_boxes if boxed else {"whole image": whole_image}
    return {name: MaskGuess(guess, model, dataset, of_masks) for name, guess in guesses.items()}


class MaskGuess:
    """A guess with a mask for each prompt.

    Args:
        guess: Maps boxes ``(N, 4)`` and the image's size to masks ``(N, h0, w0)``.
        model: The model, for the device of the sums.
        dataset: The images.
        config: The metrics.
    """

    def __init__(
        self,
        guess: Callable[[Tensor, tuple[int, int]], Tensor],
        model: FineTuned,
        dataset: SegmentationDataset,
        config: EvalConfig,
    ) -> None:
        self.guess, self.dataset = guess, dataset
        self.sums = ImageSums(counter_on(model.device), suite_for(model, dataset, config))

    def addition(
        self, batch: Batch, at: Place, pairs: MaskPairs, answers: Answers, ends: Ends
    ) -> Callable[[], object]:
        """Prepares the addition of an image, see :class:`Guess`."""
        i = at.in_batch
        geometry = batch.geometries[i]
        boxes = batch.prompts.only(batch.prompts.image == i).boxes().reshape(-1, 2, 2)
        # Rounded, because mapping to the model's frame and back moves an edge slightly.
        boxes = geometry.to_original(boxes).flatten(1).double().round(decimals=3)
        guessed = pairs._replace(masks=self.guess(boxes, geometry.original))

        result = partial(image_result, self.dataset, batch, at, guessed, answers)
        return self.sums.addition(at.in_dataset, guessed, result, *ends)

    def results(self) -> tuple[dict[str, Any], Draws]:
        """The metrics over all processes, and their draws."""
        masks, suite = self.sums.masks, self.sums.suite
        numbers = masks.metric.compute()
        numbers |= {} if suite is None else suite.compute()
        return numbers, draws_of(masks, suite)


class OneClass:
    """The guess that a map has its data set's most frequent class everywhere."""

    def __init__(self) -> None:
        self.areas: list[tuple[int, Tensor, Tensor]] = []

    def addition(
        self, batch: Batch, at: Place, pairs: MaskPairs, answers: Answers, ends: Ends
    ) -> Callable[[], object]:
        """Prepares the addition of an image's classes; all images decide which class it is."""
        return partial(self._add, at, pairs)

    def _add(self, at: Place, pairs: MaskPairs) -> None:
        from samtune.metrics.areas import areas_of

        pixels = areas_of(pairs.targets, pairs.targets, pairs.valid)[:, 2].cpu()
        there = pixels > 0
        self.areas.append((at.in_dataset, pairs.classes.cpu()[there], pixels[there]))

    def results(self) -> tuple[dict[str, Any], Draws]:
        """The metrics over all processes, and their draws."""
        from samtune.metrics import MaskMetrics
        from samtune.metrics.per_image import PerImage

        areas = sorted(gather_items(self.areas), key=lambda each: each[0])
        total = torch.zeros(1 + max((int(c.max()) for _, c, n in areas if len(n)), default=0))
        for _, classes, pixels in areas:
            total.index_add_(0, classes, pixels.float())
        metrics, guess = MaskMetrics(sync_on_compute=False), int(total.argmax())
        masks = PerImage(metrics)
        for index, *of_image in areas:
            masks.note(index, partial(_add_one_class, metrics, guess, *of_image))
        return metrics.compute(), draws_of(masks, None, complete=True)


def _add_one_class(metrics: MaskMetrics, guess: int, classes: Tensor, pixels: Tensor) -> None:
    """Adds an image that is predicted to be of one class everywhere.

    Args:
        metrics: The metrics to update.
        guess: The predicted class.
        classes: ``(n,)`` int64: the classes in the image.
        pixels: ``(n,)`` int64: their pixel counts.
    """
    if guess not in classes:
        classes = torch.cat([classes, torch.tensor([guess])])
        pixels = torch.cat([pixels, torch.tensor([0])])
    taken = torch.where(classes == guess, pixels.sum(), 0)
    metrics.add(torch.stack([torch.minimum(taken, pixels), taken, pixels], 1), classes)
