"""Measuring a model on a data set: streamed, at the original resolution, over all processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial

import torch
from torch import Tensor
from torch.utils.data import Subset

from samtune.batch import Batch
from samtune.data import SegmentationDataset
from samtune.data.loading import Workers, batches
from samtune.data.pace import Pace
from samtune.distributed import place
from samtune.errors import checks_keywords
from samtune.evaluation.arguments import ELSEWHERE, check_measured
from samtune.evaluation.automatic import evaluate_automatic, generators_of
from samtune.evaluation.beside import Beside
from samtune.evaluation.image_results import by_class
from samtune.evaluation.prepare import Images, PromptSettings, test_images
from samtune.evaluation.result import Evaluation
from samtune.evaluation.rounds import PromptSums, ends_in
from samtune.inference.allocator import return_freed_memory, returning_large_arrays
from samtune.inference.batches import Answers, PromptedBatch, prompted_batch
from samtune.inference.clicks import central_clicks
from samtune.inference.prompted import bytes_of_answer
from samtune.interrupts.boundaries import end_together, is_stopping
from samtune.metrics.config import EvalConfig
from samtune.model.finetuned import FineTuned
from samtune.options import speaks_python
from samtune.precision import Precision, autocast
from samtune.prompts import Prompts

__all__ = ["Evaluation", "by_class", "evaluate", "predict"]


@speaks_python()
@checks_keywords(EvalConfig, elsewhere=ELSEWHERE)
def evaluate(
    model: FineTuned,
    dataset: Images,
    *,
    prompts: PromptSettings = None,
    batch_size: int = 4,
    precision: Precision = "auto",
    multimask: bool = False,
    workers: Workers = "auto",
    progress: Callable[[int, int], None] | None = None,
    guesses: bool = False,
    measuring: EvalConfig | None = None,
) -> Evaluation:
    """Measures a model on a split, or on prepared images, at the original resolution.

    The evaluation streams: memory grows by a few numbers per image, not by its pixels, and as many
    of an image's objects are processed at once as ``measuring.memory`` allows. In a distributed run
    each process evaluates some of the images, and all return the result over the whole.

    Args:
        model: The model; it is left in evaluation mode.
        dataset: A split, as ``samtune.open_data("polyps").test``, or what :func:`samtune.prepare`
            made with ``train=False``.
        prompts: A prompt mode, several as in ``"box,point,everything"``, which are measured one
            after another (``everything`` and ``instances`` find all objects without prompts), or a
            :class:`samtune.PromptConfig`. By default those of the model's training, or those for
            which the images were prepared.
        batch_size: Number of images encoded at once.
        precision: Arithmetic of the forward pass; ``auto`` is bf16 on devices that have it.
        multimask: Take the best of three masks, by the decoder's own estimate.
        workers: Number of processes that load data; ``auto`` chooses it by what is measured.
        progress: Called with the number of images done and in all.
        guesses: Also measure masks that need no model: those from the prompts' boxes alone, or for
            other prompts the whole image.
        measuring: The metrics to compute besides IoU and Dice, after the last of several clicks.

    Raises:
        InputError: Files cannot be used, images were prepared for another model or for training, or
            a metric is unknown, undefined for the data, or lacks a package.
    """
    check_measured(model, precision, batch_size, workers, measuring)
    by_mode = test_images(model, dataset, prompts)
    generators = generators_of(model, by_mode, precision)
    prompted = {mode: images for mode, images in by_mode.items() if mode not in generators}
    evaluations = evaluate_prompts(
        model,
        list(prompted.values()),
        batch_size=batch_size,
        precision=precision,
        multimask=multimask,
        workers=workers,
        progress=progress,
        guesses=guesses,
        measuring=measuring,
    )
    measured = dict(zip(prompted, evaluations, strict=True))
    for mode, finds in generators.items():
        measured[mode] = evaluate_automatic(model, by_mode[mode], finds, progress, measuring)
    return first_of({mode: measured[mode] for mode in by_mode})


def first_of(by_mode: dict[str, Evaluation]) -> Evaluation:
    """The first of several evaluations, which has all of them by mode.

    Args:
        by_mode: At least one.
    """
    first = next(iter(by_mode.values()))
    return replace(first, by_prompt=by_mode) if len(by_mode) > 1 else first


def evaluate_prompts(
    model: FineTuned,
    datasets: Sequence[SegmentationDataset],
    *,
    batch_size: int = 4,
    precision: Precision = "auto",
    multimask: bool = False,
    workers: Workers = "auto",
    progress: Callable[[int, int], None] | None = None,
    guesses: bool = False,
    measuring: EvalConfig | None = None,
) -> list[Evaluation]:
    """Measures a model on the same images with several kinds of prompts, encoding each image once.

    Args:
        model: Left in evaluation mode.
        datasets: The same images in the same frame; see ``SegmentationDataset.with_prompts``.
        batch_size: See :func:`evaluate`, also for the arguments that follow.
        precision: See there.
        multimask: See there.
        workers: See there; the number is for each of the data sets.
        progress: See there.
        guesses: See there.
        measuring: See there.

    Returns:
        The results for each data set.

    Raises:
        InputError: See :func:`evaluate`.
    """
    if not datasets:
        return []
    model.eval()
    rank, world = place()
    share = list(range(rank, len(datasets[0]), world))
    datasets = [dataset.with_object_maps() for dataset in datasets]
    all_sums = [PromptSums(model, each, measuring or EvalConfig(), guesses) for each in datasets]
    parts = [Subset(dataset, share) for dataset in datasets]
    done = 0
    with returning_large_arrays(), Beside(model.device) as beside:
        loader, *others = (
            batches(part, workers, Pace(len(parts), beside.wait), batch_size=batch_size)
            for part in parts
        )
        for first in loader:  # zip would keep a batch alive
            if is_stopping():
                break
            whole, indices = [first, *map(next, others)], share[done:]
            _add_batch(model, whole, all_sums, indices, precision, multimask, beside)
            done += len(first.names)
            return_freed_memory()
            if progress is not None:
                progress(done, len(share))
    end_together(model.device)
    return [sums.compute() for sums in all_sums]


def _add_batch(
    model: FineTuned,
    batches: Sequence[Batch],
    all_sums: Sequence[PromptSums],
    indices: Sequence[int],
    precision: str,
    multimask: bool,
    beside: Beside,
) -> None:
    """Encodes a batch of images once, and adds the answers to each kind of prompt."""
    images = cache(lambda: prompted_batch(model, batches[0]))
    for batch, sums in zip(batches, all_sums, strict=True):
        how = (precision, multimask, sums.dataset.rounds)
        promptless = partial(_promptless, model, batch, precision, multimask)
        # half, as the answers before are held while they are measured
        for rows in parts_of(model, batch, sums.memory // 2):
            part = batch.part(rows)
            rounds = sums.timed(_rounds(model, images, part, *how))
            sums.update(part, indices, ends_in(batch, rows), rounds, promptless, beside)


def parts_of(model: FineTuned, batch: Batch, memory: int) -> Iterator[slice]:
    """Ranges of a batch's prompts that are answered together; one range if there are no prompts.

    Args:
        model: The model that answers.
        batch: Images with prompts.
        memory: Bytes for all that is made of a range. Its answers get a quarter, for their targets,
            packed masks and metrics need as much again; a single prompt may need more.
    """
    sizes = [geometry.original for geometry in batch.geometries]
    most = max(bytes_of_answer(model, size, bool(batch.images)) for size in sizes)
    step, count = max(1, memory // 4 // most), len(batch.prompts)
    for start in range(0, max(1, count), step):
        yield slice(start, min(start + step, count))


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


def predict(
    model: FineTuned,
    batch: Batch,
    precision: str = "auto",
    multimask: bool = False,
    rounds: int = 1,
) -> list[Tensor]:
    """Predicts each image's masks in its original frame: ``(N_b, h0, w0)`` bool on the CPU.

    A decoder of classes gives one mask per class: ``(K, h0, w0)``. With several rounds the masks
    are those after the last click.
    """
    *_, answers = answers_by_round(model, batch, precision, multimask, rounds)
    return answers.masks


def predict_in_parts(
    model: FineTuned,
    batch: Batch,
    precision: str = "auto",
    multimask: bool = False,
    rounds: int = 1,
    memory: int = EvalConfig.memory,
) -> Iterator[list[Tensor]]:
    """Predicts as :func:`predict` does, with as many prompts at a time as ``memory`` bytes hold."""
    images = cache(lambda: prompted_batch(model, batch))
    for rows in parts_of(model, batch, memory):
        *_, answers = _rounds(model, images, batch.part(rows), precision, multimask, rounds)
        yield answers.masks


@torch.no_grad()
def answers_by_round(
    model: FineTuned, batch: Batch, precision: str, multimask: bool, rounds: int
) -> Iterator[Answers]:
    """The answers to each image's prompts in each of several rounds.

    From the second round on, a prompt gets one more click, in the middle of the largest error, and
    its last answer as a mask; one answer is read, as in SAM's own training.
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
    """See :func:`answers_by_round`; images are encoded when they are first needed."""
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
    """The prompts with one more click each, at an error of their masks."""
    xy, labels = prompts.coords.new_zeros(len(prompts), 2), prompts.labels.new_zeros(len(prompts))
    for i, (masks, geometry) in enumerate(zip(answers, batch.geometries, strict=True)):
        rows = prompts.image == i
        at, labels[rows] = central_clicks(masks, batch.originals[i], batch.original_valid[i])
        xy[rows] = geometry.to_model(at)
    return prompts.with_click(xy, labels, low.detach().to(prompts.coords.device))
