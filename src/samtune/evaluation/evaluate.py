"""Measuring a model on a data set: streamed, at the original resolution, over all processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from samtune.batch import Batch, inside
from samtune.data import SegmentationDataset, collate
from samtune.distributed import place
from samtune.errors import InputError
from samtune.evaluation.answers import Answers, Compared, by_class, compare, seen, whole_frame
from samtune.geometry import Geometry
from samtune.inference.clicks import central_clicks, chosen
from samtune.inference.prompted import PromptedImage
from samtune.metrics.config import EvalConfig
from samtune.model.finetuned import FineTuned
from samtune.precision import Precision, autocast
from samtune.prompts import Prompts

if TYPE_CHECKING:
    from samtune.metrics import Suite

__all__ = ["Evaluation", "by_class", "chosen", "evaluate", "predict"]

Ask = Callable[[Prompts, bool], Answers]
"""Prompts in the model's frame, and whether to choose among three answers, to answers."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found."""

    metrics: dict[str, Any]
    """See :meth:`samtune.metrics.MaskMetrics.compute`; and the other metrics asked for, by name."""
    images: int
    items: list[dict[str, Any]] = field(default_factory=list)
    """One row an image: ``index``, ``name``, ``objects``, mean ``iou`` and ``dice``."""
    by_click: list[dict[str, Any]] = field(default_factory=list)
    """The metrics after each click, where there are several; ``metrics`` are those after the last.
    """
    guesses: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The metrics of what a box alone gives, without any model, by name; if asked for."""


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
        multimask: Read the best of three masks, by the decoder's own estimate.
        workers: Processes that load data.
        progress: Called with images done and images in all.
        guesses: Also measure what the prompts' boxes alone give.
        measuring: Which metrics to compute besides IoU and Dice, of the last answers.

    Raises:
        InputError: A metric that is unknown, has no meaning for the data, or lacks a package.
    """
    model.eval()
    rank, world = place()
    share = list(range(rank, len(dataset), world))
    after = [_counter(model.device) for _ in range(dataset.rounds)]
    measuring = measuring or EvalConfig()
    guessed = _Guesses(model, dataset, measuring) if guesses else None
    suite = _suite(model, dataset, measuring)
    items: list[dict[str, Any]] = []
    loader = DataLoader(Subset(dataset, share), batch_size, num_workers=workers, collate_fn=collate)
    for batch in loader:
        answered = asked(model, batch, precision, multimask, dataset.rounds)
        for metrics, answers in zip(after, answered, strict=True):
            compared = _compared(dataset, batch, answers)
            for each in compared:
                metrics.update(*each)
        for i, each in enumerate(compared):  # of the last answers
            index = share[len(items)]
            if guessed is not None:
                guessed.update(batch, i, index, each, answers)
            if suite is not None:
                suite.update(seen(dataset, batch, i, index, each, answers, suite.needs))
            items.append(_item(index, batch.names[i], each))
        if progress is not None:
            progress(len(items), len(share))
    computed = [metrics.compute() for metrics in after]
    last = computed[-1] | ({} if suite is None else suite.compute())
    by_click = computed if len(computed) > 1 else []
    found = {} if guessed is None else guessed.compute()
    return Evaluation(last, len(dataset), _gathered(items), by_click, found)


def _compared(dataset: SegmentationDataset, batch: Batch, answers: Answers) -> list[Compared]:
    """Each image's masks beside its targets, in the original frame."""
    return [
        compare(
            dataset,
            masks,
            batch.originals[i],
            batch.original_valid[i],
            batch.classes[batch.prompts.image == i],
        )
        for i, masks in enumerate(answers.masks)
    ]


def _unasked(model: FineTuned, batch: Batch, precision: str, multimask: bool, i: int) -> Tensor:
    """What a model says of an image of a batch when asked once without a prompt: ``(h0, w0)``."""
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


def _item(index: int, name: str, compared: Compared) -> dict[str, Any]:
    """An image's row, see :class:`Evaluation`."""
    from samtune.metrics import iou_dice

    means = [
        float(scores.mean()) if len(scores) else math.nan
        for scores in iou_dice(compared.masks, compared.target, compared.valid)
    ]
    row = {"index": index, "name": name, "objects": len(compared.masks)}
    return {**row, "iou": means[0], "dice": means[1]}


def predict(
    model: FineTuned,
    batch: Batch,
    precision: str = "fp32",
    multimask: bool = False,
    rounds: int = 1,
) -> list[Tensor]:
    """The masks of each image in its original frame: ``(N_b, h0, w0)`` bool on the CPU.

    Of a decoder that gives classes, one mask for each of them: ``(K, h0, w0)``. With several
    rounds, those after the last click.
    """
    *_, answers = asked(model, batch, precision, multimask, rounds)
    return answers.masks


@torch.no_grad()
def asked(
    model: FineTuned, batch: Batch, precision: str, multimask: bool, rounds: int
) -> Iterator[Answers]:
    """The answers to each image's prompts after each of so many rounds.

    From the second on, a prompt has one more click, in the middle of what is most wrong, and its
    last answer as a mask; one answer is read of it, as SAM's own training does.
    """
    with autocast(model.device, precision):
        ask = (_views if batch.images else _whole)(model, batch)
        prompts = batch.prompts
        answers = ask(prompts, multimask)
    answers = replace(answers, unasked=partial(_unasked, model, batch, precision, multimask))
    yield answers
    for _ in range(rounds - 1):
        prompts = _clicked(prompts, batch, answers.masks, answers.low)
        with autocast(model.device, precision):
            answers = replace(ask(prompts, False), unasked=answers.unasked)
        yield answers


def _whole(model: FineTuned, batch: Batch) -> Ask:
    """Asks about images that are fitted whole; each is encoded once."""
    pixels, sizes = batch.pixels.to(model.device), batch.sizes.to(model.device)
    features = model.encode(model.preprocess(pixels, sizes))

    def ask(prompts: Prompts, multimask: bool) -> Answers:
        prompts = prompts.to(model.device)
        masks = model.decoder(model.sam, features, prompts, multimask)
        logits = (masks.logits if masks.exclusive else chosen(masks)).float()

        def of_image(i: int, framed: bool) -> Tensor:
            geometry = batch.geometries[i]
            geometry = whole_frame(geometry) if framed else geometry
            return geometry.masks_to_original(logits[prompts.image == i])

        found = [
            inside(of_image(i, False), masks.exclusive).flatten(0, 1).cpu()
            for i in range(len(batch.geometries))
        ]
        scores = masks.iou.float().amax(1).cpu()
        return Answers(found, logits, scores, of_image)

    return ask


def _views(model: FineTuned, batch: Batch) -> Ask:
    """Asks about images that are cut into tiles or crops."""
    images = [PromptedImage(model, image.numpy()) for image in batch.images]
    kind = model.device.type  # what is asked later is asked in the same arithmetic
    asked_in: dict[str, Any] = {
        "enabled": torch.is_autocast_enabled(kind), "dtype": torch.get_autocast_dtype(kind)
    }  # fmt: skip

    def ask(prompts: Prompts, multimask: bool) -> Answers:
        found, lows, scores = [], [], []
        for i, (image, geometry) in enumerate(zip(images, batch.geometries, strict=True)):
            mine = prompts.only(prompts.image == i).at(0)
            placed = replace(mine, coords=geometry.to_original(mine.coords))
            masks, iou, low = image.masks(placed, multimask)
            if multimask:  # one of three; what does not choose has one, or classes
                best = torch.arange(len(iou), device=iou.device), iou.argmax(1)
                masks, low = masks[best][:, None], low[best][:, None]
            found.append(masks.flatten(0, 1).cpu())
            lows.append(low)
            scores.append(iou.float().amax(1).cpu())

        def of_image(i: int, framed: bool) -> Tensor:
            if framed:
                raise InputError(
                    "eval.metrics: some are measured in the model's frame, which an image that is "
                    "cut has not; set input.tiles=whole or leave them out, see docs/metrics.md"
                )
            mine = prompts.only(prompts.image == i).at(0)
            placed = replace(mine, coords=batch.geometries[i].to_original(mine.coords))
            with torch.autocast(kind, **asked_in):
                return _highest(images[i], placed, multimask)

        return Answers(found, torch.cat(lows), torch.cat(scores), of_image)

    return ask


def _highest(image: PromptedImage, prompts: Prompts, multimask: bool) -> Tensor:
    """The highest of all prompts' logits ``(1, 1, h, w)``, asked one by one to save memory."""
    highest = torch.full((1, 1, *image.size), -math.inf)
    for row in range(len(prompts)):
        masks, _ = image.answer(prompts.only(torch.tensor([row])), multimask)
        highest = torch.maximum(highest, chosen(masks).float().cpu())
    return highest


def _clicked(prompts: Prompts, batch: Batch, found: list[Tensor], low: Tensor) -> Prompts:
    """The prompts with a click more each, where their masks are wrong."""
    xy, labels = prompts.coords.new_zeros(len(prompts), 2), prompts.labels.new_zeros(len(prompts))
    for i, (masks, geometry) in enumerate(zip(found, batch.geometries, strict=True)):
        mine = prompts.image == i
        at, labels[mine] = central_clicks(masks, batch.originals[i], batch.original_valid[i])
        xy[mine] = geometry.to_model(at)
    return prompts.clicked(xy, labels, low.detach().to(prompts.coords.device))


def _counter(device: torch.device) -> Any:
    """An empty count of masks; over several processes it adds up all of theirs."""
    from samtune.metrics import MaskMetrics

    _, world = place()
    metrics = MaskMetrics(sync_on_compute=world > 1)
    # Collectives need the sums where the model is; alone they stay on the CPU.
    return metrics.to(device) if world > 1 else metrics


def _suite(model: FineTuned, dataset: SegmentationDataset, config: EvalConfig) -> Suite | None:
    """The other metrics asked for, empty; ``None`` where there are none."""
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
    """What boxes alone give, without any model: a result below these says nothing."""

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

    def update(
        self, batch: Batch, i: int, index: int, compared: Compared, answers: Answers
    ) -> None:
        geometry: Geometry = batch.geometries[i]
        boxes = batch.prompts.only(batch.prompts.image == i).boxes().reshape(-1, 2, 2)
        # Rounded: the way into the model's frame and back moves an edge by a hair.
        boxes = geometry.to_original(boxes).flatten(1).double().round(decimals=3)
        for name, guess in self.guess.items():
            mine = compared._replace(masks=guess(boxes, geometry.original))
            self.metrics[name].update(*mine)
            suite = self.suites[name]
            if suite is not None:
                silent = replace(answers, unasked=None)
                suite.update(seen(self.dataset, batch, i, index, mine, silent, suite.needs))

    def compute(self) -> dict[str, dict[str, Any]]:
        found = {name: metrics.compute() for name, metrics in self.metrics.items()}
        for name, suite in self.suites.items():
            found[name] |= {} if suite is None else suite.compute()
        return found


def _gathered(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    from torch import distributed

    _, world = place()
    if world == 1:
        return items
    parts: list[Any] = [None] * world
    distributed.all_gather_object(parts, items)
    return sorted((item for part in parts for item in part), key=lambda item: item["index"])
