"""Measuring a model on a data set: streamed, at the original resolution, over all processes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from samtune.data import SegmentationDataset, collate
from samtune.finetuned import FineTuned
from samtune.types import Batch, Masks

Precision = Literal["fp32", "bf16", "fp16"]


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
            mine = batch.prompts.image == i
            metrics.update(masks, target, valid, batch.classes[mine])
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
    """The masks of each image in its original frame: ``(N_b, h0, w0)`` bool on the CPU."""
    on_device = batch.to(model.device)
    with _autocast(model.device, precision):
        masks = model(on_device.pixels, on_device.prompts, on_device.sizes, multimask)
    logits = chosen(masks).float()
    found = []
    for i, geometry in enumerate(batch.geometries):
        mine = logits[on_device.prompts.image == i]
        found.append((geometry.masks_to_original(mine)[:, 0] > 0).cpu())
    return found


def chosen(masks: Masks) -> Tensor:
    """Of ``(N, K, h, w)`` logits the mask of highest estimated IoU: ``(N, 1, h, w)``."""
    best = masks.iou.argmax(1)
    return masks.logits[torch.arange(len(best), device=best.device), best][:, None]


def place() -> tuple[int, int]:
    """This process's rank and how many there are."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


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
