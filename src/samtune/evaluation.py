"""Measuring a model on a data set: streamed, at the original resolution, over all processes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from samtune.data import SegmentationDataset, collate
from samtune.errors import InputError
from samtune.finetuned import FineTuned
from samtune.processes import place
from samtune.schedule import Precision
from samtune.types import Batch, Masks, inside


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found."""

    metrics: dict[str, Any]
    """See :meth:`samtune.metrics.MaskMetrics.compute`."""
    images: int
    items: list[dict[str, Any]] = field(default_factory=list)
    """One row an image: ``index``, ``name``, ``objects``, mean ``iou`` and ``dice``."""


def evaluate(
    model: FineTuned,
    dataset: SegmentationDataset,
    *,
    batch_size: int = 4,
    precision: Precision = "fp32",
    multimask: bool = False,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
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
    """
    from samtune.metrics import MaskMetrics, iou_dice

    model.eval()
    rank, world = place()
    share = list(range(rank, len(dataset), world))
    metrics = MaskMetrics(sync_on_compute=world > 1)
    if world > 1:  # collectives need the sums where the model is; alone they stay on the CPU
        metrics = metrics.to(model.device)
    items: list[dict[str, Any]] = []
    loader = DataLoader(Subset(dataset, share), batch_size, num_workers=workers, collate_fn=collate)
    for batch in loader:
        for i, masks in enumerate(predict(model, batch, precision, multimask)):
            target, valid = batch.originals[i], batch.original_valid[i]
            classes = batch.classes[batch.prompts.image == i]
            if dataset.class_maps:
                total = dataset.data.classes or 0
                masks, target, classes = by_class(masks, target, valid, total)  # noqa: PLW2901
            metrics.update(masks, target, valid, classes)
            iou, dice = iou_dice(masks, target, valid)
            items.append(
                {
                    "index": share[len(items)],
                    "name": batch.names[i],
                    "objects": len(iou),
                    "iou": float(iou.mean()) if len(iou) else math.nan,
                    "dice": float(dice.mean()) if len(iou) else math.nan,
                }
            )
        if progress is not None:
            progress(len(items), len(share))
    return Evaluation(metrics.compute(), len(dataset), _gathered(items))


@torch.no_grad()
def predict(
    model: FineTuned, batch: Batch, precision: str = "fp32", multimask: bool = False
) -> list[Tensor]:
    """The masks of each image in its original frame: ``(N_b, h0, w0)`` bool on the CPU.

    Of a decoder that gives classes, one mask for each of them: ``(K, h0, w0)``.
    """
    on_device = batch.to(model.device)
    with _autocast(model.device, precision):
        masks = model(on_device.pixels, on_device.prompts, on_device.sizes, multimask)
    logits = (masks.logits if masks.exclusive else chosen(masks)).float()
    found = []
    for i, geometry in enumerate(batch.geometries):
        mine = geometry.masks_to_original(logits[on_device.prompts.image == i])
        found.append(inside(mine, masks.exclusive).flatten(0, 1).cpu())
    return found


def by_class(
    masks: Tensor, target: Tensor, valid: Tensor, classes: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Splits a map of classes into a mask a class, to compare with as many predicted ones.

    Classes that are neither in the image nor predicted there are left out, so that the pooled IoU
    of a class over all images is that of their confusion matrix. A single predicted mask, as plain
    SAM gives, answers for every class.

    Args:
        masks: ``(classes, h0, w0)`` or ``(1, h0, w0)`` bool.
        target: ``(1, h0, w0)`` int64.
        valid: ``(h0, w0)`` bool.
        classes: How many the data has.

    Returns:
        Masks and targets ``(n, h0, w0)`` bool, and the class of each.

    Raises:
        InputError: A decoder of another number of classes.
    """
    if len(masks) not in (1, classes):
        raise InputError(
            f"decoder.classes={len(masks)}: the data has {classes} classes; make both the same"
        )
    of_class = target == torch.arange(classes)[:, None, None]
    masks = masks.expand_as(of_class)
    met = ((masks | of_class) & valid).flatten(1).any(1)
    return masks[met], of_class[met], met.nonzero()[:, 0]


def chosen(masks: Masks) -> Tensor:
    """Of ``(N, K, h, w)`` logits the mask of highest estimated IoU: ``(N, 1, h, w)``."""
    best = masks.iou.argmax(1)
    return masks.logits[torch.arange(len(best), device=best.device), best][:, None]


def _gathered(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    from torch import distributed

    _, world = place()
    if world == 1:
        return items
    parts: list[Any] = [None] * world
    distributed.all_gather_object(parts, items)
    return sorted((item for part in parts for item in part), key=lambda item: item["index"])


def _autocast(device: torch.device, precision: str) -> torch.autocast:
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32")
