"""The comparison of masks and targets in a batch, and the mean of its values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from samtune.batch import Batch, Masks
from samtune.errors import InputError
from samtune.geometry import Geometry
from samtune.losses.masks import full_precision

LossAt = Literal["frame", "image"]
"""The size at which a loss is computed: that of the model's frame, or each image's own."""


@dataclass(frozen=True)
class Comparison:
    """The answers to ``N`` prompts beside their targets, at one size ``h w``."""

    masks: Masks
    """The masks at the token grid's size, see ``geometry``."""
    targets: Tensor
    """``(N, h, w)`` bool masks, or int64 maps of classes."""
    valid: Tensor
    """``(N, h, w)`` bool."""
    geometry: Geometry
    """Brings logits to the targets' size."""
    rows: Tensor
    """``(N,)`` int64: which prompts of the batch these are."""


def comparisons(masks: Masks, batch: Batch, at: LossAt) -> Iterator[Comparison]:
    """The pairs to compare: the whole batch in the model's frame, or each image at its own size."""
    image, device = batch.prompts.image, masks.logits.device
    if at == "frame":
        rows = torch.arange(len(image), device=device)
        yield Comparison(masks, batch.targets, batch.valid[image], batch.frame, rows)
        return
    for i, geometry in enumerate(batch.geometries):
        rows = (image == i).nonzero()[:, 0]
        of_image = replace(masks, logits=masks.logits[rows], iou=masks.iou[rows])
        target = batch.originals[i].to(device, non_blocking=True)
        valid = batch.original_valid[i] & geometry.has_logits()
        valid = valid.to(device, non_blocking=True).expand(target.shape)
        yield Comparison(of_image, target, valid, geometry, rows)


def mean_over_images(
    each: Callable[[Comparison], Tensor], masks: Masks, batch: Batch, at: LossAt
) -> Tensor:
    """The mean over the prompts of each image, then over all images, a scalar.

    An image without prompts counts 0. What the adapter adds, ``masks.auxiliary``, counts by the
    fraction of images with prompts.

    Args:
        each: Gives the loss of each prompt, ``(N,)``.
        masks: The model's answers.
        batch: The images.
        at: The size at which the loss is taken.
    """
    image, size = batch.prompts.image, batch.pixels.shape[0]
    values, rows = [], []
    for part in comparisons(masks, batch, at):  # one at a time: each has its targets' memory
        values.append(each(part))
        rows.append(part.rows)
    value = values[0]
    if at == "image":
        value = torch.cat(values)[torch.cat(rows).argsort()]
    prompts = value.new_zeros(size).index_add(0, image, torch.ones_like(value))
    value = (value / prompts[image]).sum() / size
    return with_auxiliary(value, masks, (prompts > 0).to(value.dtype).mean())


def with_auxiliary(value: Tensor, masks: Masks, fraction: Tensor | float) -> Tensor:
    """A loss with what the adapter adds to it, which counts by a fraction."""
    return value if masks.auxiliary is None else value + masks.auxiliary * fraction


def at_size_of(logits: Tensor, geometry: Geometry) -> Tensor:
    """Logits ``(N, 4H, 4W)`` at the size that is compared: ``(N, h, w)``."""
    return geometry.masks_to_original(full_precision(logits)[:, None])[:, 0]


def of_least_loss(logits: Tensor, loss_of: Callable[[Tensor], Tensor]) -> Tensor:
    """The mask of the smallest loss for each prompt, by SAM's rule: ``(N, 4H, 4W)``.

    Args:
        logits: ``(N, K, 4H, 4W)``.
        loss_of: Maps the logits of one mask per prompt, ``(N, 4H, 4W)``, to losses ``(N,)``.
    """
    if logits.shape[1] == 1:
        return logits[:, 0]
    # Choosing without a graph gives the gradient of the minimum with the memory of one mask.
    with torch.no_grad():
        losses = torch.stack([loss_of(each) for each in logits.unbind(1)], 1)
    return logits[torch.arange(len(logits), device=logits.device), losses.argmin(1)]


def check_alike(masks: Masks, target: Tensor) -> bool:
    """Whether answers and targets are maps of classes.

    Raises:
        InputError: One of them is, and the other is single masks.
    """
    mapped = target.dtype == torch.int64
    if mapped != masks.exclusive:
        has, gives = ("maps of classes", "single masks") if mapped else ("single masks", "classes")
        raise InputError(
            f"the data has {has}, but the decoder gives {gives}; class maps go with "
            "decoder.name=semantic decoder.classes=K data.masks=classes and prompts none"
        )
    return mapped
