"""The sums of an evaluation: the masks of every round, and all else of the last one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from samtune.batch import Batch
from samtune.data import SegmentationDataset
from samtune.evaluation.beside import Beside
from samtune.evaluation.guesses import guesses_for
from samtune.evaluation.image_results import Ends, MaskPairs, Place, image_result, pair_masks
from samtune.evaluation.result import Evaluation, image_row
from samtune.evaluation.sums import ImageSums, counter_on, draws_of, gather_items, suite_for
from samtune.inference.batches import Answers
from samtune.metrics.config import EvalConfig
from samtune.model.finetuned import FineTuned


class PromptSums:
    """All sums of one evaluation over the images of this process.

    Args:
        model: The model, for the device of the sums.
        dataset: The images with their prompts.
        config: The metrics.
        guesses: Also measure masks that need no model.
    """

    def __init__(
        self, model: FineTuned, dataset: SegmentationDataset, config: EvalConfig, guesses: bool
    ) -> None:
        self.dataset, self.memory = dataset, config.memory
        self.suite = suite_for(model, dataset, config)
        last = dataset.rounds - 1
        self.by_round = [
            ImageSums(counter_on(model.device), self.suite if k == last else None)
            for k in range(dataset.rounds)
        ]
        self.guesses = guesses_for(model, dataset, config) if guesses else {}
        self.items: list[dict[str, Any]] = []
        self.seconds = 0.0

    def timed(self, rounds: Iterator[Answers]) -> Iterator[Answers]:
        """Yields the answers, and adds up the time that the model takes for them."""
        start = time.perf_counter()
        for answers in rounds:  # their masks are on the CPU, so the computation is finished
            self.seconds += time.perf_counter() - start
            yield answers
            start = time.perf_counter()

    def update(
        self,
        batch: Batch,
        indices: Sequence[int],
        ends: Mapping[int, Ends],
        rounds: Iterator[Answers],
        promptless: Callable[[int], Tensor],
        beside: Beside,
    ) -> None:
        """Adds a batch, or some of its prompts: the masks of every round, all else of the last one.

        Args:
            batch: Images with their targets.
            indices: Their indices in the data set; there may be more indices than images.
            ends: See :func:`ends_in`.
            rounds: The answers, see :func:`answers_by_round`.
            promptless: See :func:`samtune.evaluation.image_results.image_result`.
            beside: Adds up the answers to one round while the model gives those to the next.
        """
        for sums, answers in zip(self.by_round, rounds, strict=True):
            last, additions = sums is self.by_round[-1], []
            for i, of_image in ends.items():
                at, pairs = Place(i, indices[i]), _pairs(self.dataset, batch, i, answers)
                result = partial(
                    image_result, self.dataset, batch, at, pairs, answers, promptless=promptless
                )
                add = sums.addition(at.in_dataset, pairs, result, *of_image)
                how = batch, at, pairs, answers, of_image
                guesses = [each.addition(*how) for each in self.guesses.values() if last]
                row = partial(image_row, at.in_dataset, batch.names[i])
                additions.append(partial(self._add, add, guesses, row if last else None))
            beside.do(partial(_do_all, additions))

    def _add(
        self,
        add: Callable[[], Tensor | None],
        guesses: Sequence[Callable[[], object]],
        row: Callable[[Tensor], dict[str, Any]] | None,
    ) -> None:
        """Adds one image, what is guessed for it and, at the last round, its row."""
        areas = add()
        for guess in guesses:
            guess()
        if row is not None and areas is not None:
            self.items.append(row(areas))

    def compute(self) -> Evaluation:
        """The results over all processes."""
        masks = [each.masks for each in self.by_round]
        numbers = [each.metric.compute() for each in masks]
        others = {} if self.suite is None else self.suite.compute()
        draws = [draws_of(each, None) for each in masks[:-1]]
        last = draws_of(masks[-1], self.suite)
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


def _do_all(works: Sequence[Callable[[], None]]) -> None:
    for work in works:
        work()


def ends_in(batch: Batch, rows: slice) -> dict[int, Ends]:
    """The images with prompts in a range, and whether the first and the last are among them.

    An image without prompts belongs to the first range.
    """
    counts = batch.prompts.image.bincount(minlength=len(batch.names)).tolist()
    return {
        i: Ends(span.start == 0, span.stop == count)
        for i, (span, count) in enumerate(zip(batch.spans(rows), counts, strict=True))
        if span.start < span.stop or (count == 0 and rows.start == 0)
    }


def _pairs(dataset: SegmentationDataset, batch: Batch, i: int, answers: Answers) -> MaskPairs:
    """The masks of image ``i`` beside its targets, in the original frame."""
    classes = batch.classes[batch.prompts.image == i]
    targets, valid = batch.originals[i], batch.original_valid[i]
    return pair_masks(dataset, answers.masks[i], targets, valid, classes)
