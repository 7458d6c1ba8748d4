"""Measuring a model on a data set: streamed, at the original resolution, over all processes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from samtune.batch import Batch
from samtune.data import SegmentationDataset, collate
from samtune.distributed import place
from samtune.evaluation.guesses import guesses_for
from samtune.evaluation.image_results import (
    MaskPairs,
    Place,
    by_class,
    image_result,
    pair_masks,
)
from samtune.evaluation.sums import counter_on, draws_of, gather_items, suite_for
from samtune.evaluation.uncertainty import Draws
from samtune.inference.batches import Answers, PromptedBatch, prompted_batch
from samtune.inference.clicks import central_clicks
from samtune.metrics.config import EvalConfig
from samtune.model.finetuned import FineTuned
from samtune.precision import Precision, autocast
from samtune.prompts import Prompts

if TYPE_CHECKING:
    pass

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
    """The metrics of masks that need no model, by the guess's name."""
    draws: Draws | None = None
    """The metrics of draws of the images, for intervals."""
    click_draws: Sequence[Draws] = ()
    """The same after each click."""
    guess_draws: dict[str, Draws] = field(default_factory=dict)
    """The same of each guess."""
    images_per_second: float | None = None
    """How many the model answers, of all processes; reading and measuring do not count."""


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

    Streams: memory grows by a few numbers an image, never by its pixels. In a distributed run each
    process takes its share and all return the result over the whole.

    Args:
        model: Left in evaluation mode.
        dataset: Images with prompts and targets.
        batch_size: Images encoded at once.
        precision: Arithmetic of the forward pass.
        multimask: Take the best of three masks, by the decoder's own estimate.
        workers: Processes that load data.
        progress: Called with images done and images in all.
        guesses: Also measure masks that need no model: those that the prompts' boxes alone give,
            or for other prompts the whole image.
        measuring: Which metrics to compute besides IoU and Dice, of the last answers.

    Raises:
        InputError: A metric that is unknown, has no meaning for the data, or lacks a package.
    """
    [evaluation] = evaluate_prompts(
        model,
        [dataset],
        batch_size=batch_size,
        precision=precision,
        multimask=multimask,
        workers=workers,
        progress=progress,
        guesses=guesses,
        measuring=measuring,
    )
    return evaluation


def evaluate_prompts(
    model: FineTuned,
    datasets: Sequence[SegmentationDataset],
    *,
    batch_size: int = 4,
    precision: Precision = "fp32",
    multimask: bool = False,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
    guesses: bool = False,
    measuring: EvalConfig | None = None,
) -> list[Evaluation]:
    """Measures a model on the same images with several kinds of prompts; encodes each image once.

    Args:
        model: Left in evaluation mode.
        datasets: The same images in the same frame; see ``SegmentationDataset.asked_in``.
        batch_size: As for :func:`evaluate`, and so are all that follow.
        precision: See there.
        multimask: See there.
        workers: See there; so many for each of the data sets.
        progress: See there.
        guesses: See there.
        measuring: See there.

    Returns:
        The numbers of each data set.

    Raises:
        InputError: As :func:`evaluate`.
    """
    model.eval()
    rank, world = place()
    share = list(range(rank, len(datasets[0]), world))
    all_sums = [_Sums(model, each, measuring or EvalConfig(), guesses) for each in datasets]
    parts = [Subset(dataset, share) for dataset in datasets]
    how: dict[str, Any] = {"num_workers": workers, "collate_fn": collate}
    loader, *others = (iter(DataLoader(part, batch_size, **how)) for part in parts)
    for first in loader:  # zip would hold on to a batch
        batches = [first, *map(next, others)]
        _add_batch(model, batches, all_sums, share, precision, multimask)
        if progress is not None:
            progress(len(all_sums[0].items), len(share))
    return [sums.compute() for sums in all_sums]


def _add_batch(
    model: FineTuned,
    batches: Sequence[Batch],
    all_sums: Sequence[_Sums],
    share: Sequence[int],
    precision: str,
    multimask: bool,
) -> None:
    """Encodes a batch of images once, and adds the answers to each of their kinds of prompts."""
    images = cache(lambda: prompted_batch(model, batches[0]))
    for batch, sums in zip(batches, all_sums, strict=True):
        how = (precision, multimask, sums.dataset.rounds)
        rounds = sums.timed(_rounds(model, images, batch, *how))
        promptless = partial(_promptless, model, batch, precision, multimask)
        sums.update(batch, share[len(sums.items) :], rounds, promptless)


class _Sums:
    """All that one evaluation adds up over the images of this process."""

    def __init__(
        self, model: FineTuned, dataset: SegmentationDataset, config: EvalConfig, guesses: bool
    ) -> None:
        self.dataset = dataset
        self.by_round = [counter_on(model.device) for _ in range(dataset.rounds)]
        self.guesses = guesses_for(model, dataset, config) if guesses else {}
        self.suite = suite_for(model, dataset, config)
        self.items: list[dict[str, Any]] = []
        self.seconds = 0.0

    def timed(self, rounds: Iterator[Answers]) -> Iterator[Answers]:
        """The answers, while the time that the model takes for them is added up."""
        start = time.perf_counter()
        for answers in rounds:  # their masks are on the CPU: all is done
            self.seconds += time.perf_counter() - start
            yield answers
            start = time.perf_counter()

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
            for index, pairs in zip(indices, images, strict=False):
                metrics.update(index, *pairs)
        for i, (index, pairs) in enumerate(zip(indices, images, strict=False)):
            at = Place(i, index)
            for guess in self.guesses.values():
                guess.update(batch, at, pairs, answers)
            if suite is not None:
                needs = suite.needs
                suite.update(image_result(dataset, batch, at, pairs, answers, needs, promptless))
            self.items.append(_item(index, batch.names[i], pairs))

    def compute(self) -> Evaluation:
        """The numbers over all processes."""
        numbers = [each.metric.compute() for each in self.by_round]
        others = {} if self.suite is None else self.suite.compute()
        draws = [draws_of(each, None) for each in self.by_round[:-1]]
        last = draws_of(self.by_round[-1], self.suite)
        several = len(numbers) > 1
        guesses = {name: guess.results() for name, guess in self.guesses.items()}
        return Evaluation(
            metrics=numbers[-1] | others,
            images=len(self.dataset),
            items=sorted(gather_items(self.items), key=lambda item: item["index"]),
            by_click=numbers if several else [],
            guesses={name: numbers for name, (numbers, _) in guesses.items()},
            draws=last,
            click_draws=[*draws, last] if several else [],
            guess_draws={name: draws for name, (_, draws) in guesses.items()},
            images_per_second=len(self.dataset) / max(gather_items([self.seconds])),
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
    images = cache(lambda: prompted_batch(model, batch))
    yield from _rounds(model, images, batch, precision, multimask, rounds)


@torch.no_grad()
def _rounds(
    model: FineTuned,
    images: Callable[[], PromptedBatch],
    batch: Batch,
    precision: str,
    multimask: bool,
    rounds: int,
) -> Iterator[Answers]:
    """See :func:`answers_by_round`, of images that are encoded when they are first asked."""
    prompts = batch.prompts
    with autocast(model.device, precision):
        answers = images().answer(prompts, multimask)
    yield answers
    for _ in range(rounds - 1):
        prompts = _with_clicks(prompts, batch, answers.masks, answers.low)
        with autocast(model.device, precision):
            answers = images().answer(prompts)
        yield answers


def _with_clicks(prompts: Prompts, batch: Batch, answers: Sequence[Tensor], low: Tensor) -> Prompts:
    """The prompts with one more click each, where their masks are wrong."""
    xy, labels = prompts.coords.new_zeros(len(prompts), 2), prompts.labels.new_zeros(len(prompts))
    for i, (masks, geometry) in enumerate(zip(answers, batch.geometries, strict=True)):
        rows = prompts.image == i
        at, labels[rows] = central_clicks(masks, batch.originals[i], batch.original_valid[i])
        xy[rows] = geometry.to_model(at)
    return prompts.with_click(xy, labels, low.detach().to(prompts.coords.device))
