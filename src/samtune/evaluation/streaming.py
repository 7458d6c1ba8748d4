"""Measuring a model on a data set: streamed, at the original resolution, over all processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from samtune.batch import Batch
from samtune.data import SegmentationDataset, collate
from samtune.distributed import place
from samtune.evaluation.image_results import (
    MaskPairs,
    Place,
    by_class,
    image_result,
    pair_masks,
)
from samtune.inference.batches import Answers, prompted_batch
from samtune.inference.clicks import central_clicks
from samtune.metrics.config import EvalConfig
from samtune.model.finetuned import FineTuned
from samtune.precision import Precision, autocast
from samtune.prompts import Prompts

if TYPE_CHECKING:
    from samtune.metrics import Suite

__all__ = ["Evaluation", "by_class", "evaluate", "predict"]


@dataclass(frozen=True)
class Evaluation:
    """The numbers of an evaluation."""

    metrics: dict[str, Any]
    """The values of :meth:`samtune.metrics.MaskMetrics.compute`, and of other metrics by name."""
    images: int
    items: list[dict[str, Any]] = field(default_factory=list)
    """One row per image: ``index``, ``name``, ``objects``, mean ``iou`` and ``dice``."""
    by_click: list[dict[str, Any]] = field(default_factory=list)
    """The metrics after each click, where there are several; ``metrics`` are those after the last.
    """
    guesses: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The metrics of masks that boxes alone give, without any model, by the guess's name."""


def evaluate(
    model: FineTuned,
    dataset: SegmentationDataset,
    *,
    batch_size: int = 4,
    precision: Precision = "fp32",
    multimask: bool = False,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
    guesses: bool = False,
    measuring: EvalConfig | None = None,
) -> Evaluation:
    """Measures a model on a data set made with ``train=False``, at the original resolution.

    Streams: memory does not grow with the data. In a distributed run each process takes its share
    and all return the result over the whole.

    Args:
        model: Left in evaluation mode.
        dataset: Images with prompts and targets.
        batch_size: Images encoded at once.
        precision: Arithmetic of the forward pass.
        multimask: Take the best of three masks, by the decoder's own estimate.
        workers: Processes that load data.
        progress: Called with images done and images in all.
        guesses: Also measure the masks that the prompts' boxes alone give.
        measuring: Which metrics to compute besides IoU and Dice, of the last answers.

    Raises:
        InputError: A metric that is unknown, has no meaning for the data, or lacks a package.
    """
    model.eval()
    rank, world = place()
    share = list(range(rank, len(dataset), world))
    sums = _Sums(model, dataset, measuring or EvalConfig(), guesses)
    loader = DataLoader(Subset(dataset, share), batch_size, num_workers=workers, collate_fn=collate)
    for batch in loader:
        rounds = answers_by_round(model, batch, precision, multimask, dataset.rounds)
        promptless = partial(_promptless, model, batch, precision, multimask)
        sums.update(batch, share[len(sums.items) :], rounds, promptless)
        if progress is not None:
            progress(len(sums.items), len(share))
    return sums.compute()


class _Sums:
    """All that one evaluation adds up over the images of this process."""

    def __init__(
        self, model: FineTuned, dataset: SegmentationDataset, config: EvalConfig, guesses: bool
    ) -> None:
        self.dataset = dataset
        self.by_round = [_counter(model.device) for _ in range(dataset.rounds)]
        self.boxes = _Guesses(model, dataset, config) if guesses else None
        self.suite = _suite(model, dataset, config)
        self.items: list[dict[str, Any]] = []

    def update(
        self,
        batch: Batch,
        indices: Sequence[int],
        rounds: Iterator[Answers],
        promptless: Callable[[int], Tensor],
    ) -> None:
        """Adds a batch: the masks of every round, all else of the last one.

        Args:
            batch: Images with their targets.
            indices: Their places in the data set; more may follow.
            rounds: The answers, see :func:`answers_by_round`.
            promptless: See :func:`samtune.evaluation.image_results.image_result`.
        """
        dataset, suite = self.dataset, self.suite
        for metrics, answers in zip(self.by_round, rounds, strict=True):
            images = _images(dataset, batch, answers)
            for pairs in images:
                metrics.update(*pairs)
        for i, (index, pairs) in enumerate(zip(indices, images, strict=False)):
            at = Place(i, index)
            if self.boxes is not None:
                self.boxes.update(batch, at, pairs, answers)
            if suite is not None:
                needs = suite.needs
                suite.update(image_result(dataset, batch, at, pairs, answers, needs, promptless))
            self.items.append(_item(index, batch.names[i], pairs))

    def compute(self) -> Evaluation:
        """The numbers over all processes."""
        numbers = [metrics.compute() for metrics in self.by_round]
        return Evaluation(
            metrics=numbers[-1] | ({} if self.suite is None else self.suite.compute()),
            images=len(self.dataset),
            items=_gather(self.items),
            by_click=numbers if len(numbers) > 1 else [],
            guesses={} if self.boxes is None else self.boxes.compute(),
        )


def _images(dataset: SegmentationDataset, batch: Batch, answers: Answers) -> list[MaskPairs]:
    """Each image's masks beside its targets, in the original frame."""
    return [
        pair_masks(
            dataset,
            masks,
            batch.originals[i],
            batch.original_valid[i],
            batch.classes[batch.prompts.image == i],
        )
        for i, masks in enumerate(answers.masks)
    ]


def _promptless(model: FineTuned, batch: Batch, precision: str, multimask: bool, i: int) -> Tensor:
    """The mask ``(h0, w0)`` bool that a model answers without a prompt for image ``i`` alone."""
    alone = replace(
        batch,
        pixels=batch.pixels[i : i + 1],
        sizes=batch.sizes[i : i + 1],
        prompts=Prompts.of(count=1),
        geometries=batch.geometries[i : i + 1],
        images=batch.images[i : i + 1],
    )
    [masks] = predict(model, alone, precision, multimask)
    return masks.any(0)


def _item(index: int, name: str, pairs: MaskPairs) -> dict[str, Any]:
    """An image's row, see :class:`Evaluation`."""
    from samtune.metrics import iou_dice

    means = [
        float(scores.mean()) if len(scores) else math.nan
        for scores in iou_dice(pairs.masks, pairs.targets, pairs.valid)
    ]
    row = {"index": index, "name": name, "objects": len(pairs.masks)}
    return {**row, "iou": means[0], "dice": means[1]}


def predict(
    model: FineTuned,
    batch: Batch,
    precision: str = "fp32",
    multimask: bool = False,
    rounds: int = 1,
) -> list[Tensor]:
    """The masks of each image in its original frame: ``(N_b, h0, w0)`` bool on the CPU.

    A decoder of classes gives one mask per class: ``(K, h0, w0)``. With several rounds the masks
    are those after the last click.
    """
    *_, answers = answers_by_round(model, batch, precision, multimask, rounds)
    return answers.masks


@torch.no_grad()
def answers_by_round(
    model: FineTuned, batch: Batch, precision: str, multimask: bool, rounds: int
) -> Iterator[Answers]:
    """The answers to each image's prompts in each of so many rounds.

    From the second on, a prompt has one more click, in the middle of what is most wrong, and its
    last answer as a mask; one answer is read of it, as SAM's own training does.
    """
    with autocast(model.device, precision):
        images = prompted_batch(model, batch)
        prompts = batch.prompts
        answers = images.answer(prompts, multimask)
    yield answers
    for _ in range(rounds - 1):
        prompts = _with_clicks(prompts, batch, answers.masks, answers.low)
        with autocast(model.device, precision):
            answers = images.answer(prompts)
        yield answers


def _with_clicks(prompts: Prompts, batch: Batch, answers: Sequence[Tensor], low: Tensor) -> Prompts:
    """The prompts with one more click each, where their masks are wrong."""
    xy, labels = prompts.coords.new_zeros(len(prompts), 2), prompts.labels.new_zeros(len(prompts))
    for i, (masks, geometry) in enumerate(zip(answers, batch.geometries, strict=True)):
        rows = prompts.image == i
        at, labels[rows] = central_clicks(masks, batch.originals[i], batch.original_valid[i])
        xy[rows] = geometry.to_model(at)
    return prompts.with_click(xy, labels, low.detach().to(prompts.coords.device))


def _counter(device: torch.device) -> Any:
    """An empty count of masks; over several processes it adds up all of theirs."""
    from samtune.metrics import MaskMetrics

    _, world = place()
    metrics = MaskMetrics(sync_on_compute=world > 1)
    # Collectives need the sums where the model is; alone they stay on the CPU.
    return metrics.to(device) if world > 1 else metrics


def _suite(model: FineTuned, dataset: SegmentationDataset, config: EvalConfig) -> Suite | None:
    """The metrics besides those of every evaluation; ``None`` if there are none."""
    from samtune.metrics import Suite
    from samtune.metrics.contract import ALWAYS

    if not set(config.names) - set(ALWAYS):
        return None
    _, world = place()
    return Suite(
        config,
        maps=dataset.class_maps,
        classes=(dataset.data.classes or 2) if dataset.class_maps else 2,
        device=model.device if world > 1 else "cpu",
        sync=world > 1,
    )


class _Guesses:
    """Measures the masks that boxes alone give, without any model.

    A result below these says nothing.
    """

    def __init__(self, model: FineTuned, dataset: SegmentationDataset, config: EvalConfig) -> None:
        from samtune.metrics import filled_box, inscribed_ellipse
        from samtune.metrics.contract import MEASURES

        self.dataset = dataset
        self.guess = {"filled box": filled_box, "inscribed ellipse": inscribed_ellipse}
        self.metrics = {name: _counter(model.device) for name in self.guess}
        # A guess has a mask, but neither probabilities nor an estimate of its IoU.
        names = tuple(name for name in config.names if set(MEASURES[name].needs) <= {"whole"})
        of_masks = replace(config, metrics=names)
        self.suites = {name: _suite(model, dataset, of_masks) for name in self.guess}

    def update(self, batch: Batch, at: Place, pairs: MaskPairs, answers: Answers) -> None:
        i = at.in_batch
        geometry = batch.geometries[i]
        boxes = batch.prompts.only(batch.prompts.image == i).boxes().reshape(-1, 2, 2)
        # Rounded: the way into the model's frame and back moves an edge by a hair.
        boxes = geometry.to_original(boxes).flatten(1).double().round(decimals=3)
        for name, guess in self.guess.items():
            boxed = pairs._replace(masks=guess(boxes, geometry.original))
            self.metrics[name].update(*boxed)
            suite = self.suites[name]
            if suite is not None:
                needs = suite.needs
                suite.update(image_result(self.dataset, batch, at, boxed, answers, needs))

    def compute(self) -> dict[str, dict[str, Any]]:
        numbers = {name: metrics.compute() for name, metrics in self.metrics.items()}
        for name, suite in self.suites.items():
            numbers[name] |= {} if suite is None else suite.compute()
        return numbers


def _gather(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    from torch import distributed

    _, world = place()
    if world == 1:
        return items
    parts: list[Any] = [None] * world
    distributed.all_gather_object(parts, items)
    return sorted((item for part in parts for item in part), key=lambda item: item["index"])
