"""What evaluation shows to metrics: a model's answers to one image beside its targets."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from samtune.batch import Batch, inside
from samtune.data import SegmentationDataset
from samtune.errors import InputError
from samtune.geometry import Geometry

if TYPE_CHECKING:
    from samtune.metrics import Seen


@dataclass(frozen=True)
class Answers:
    """What a model says to the prompts of a batch."""

    masks: list[Tensor]
    """Of each image ``(N_b, h0, w0)`` bool on the CPU, in the original frame; one mask a class
    where they are exclusive."""
    low: Tensor
    """``(N, 1, 4H, 4W)`` logits, fit for mask prompts."""
    scores: Tensor
    """``(N,)`` on the CPU: the decoder's own estimate of the IoU of each prompt's mask."""
    logits: Callable[[int, bool], Tensor]
    """Of an image its ``(n, K, h, w)`` logits, in the original frame, or, where asked, in the
    model's without its padding; computed when called."""
    unasked: Callable[[int], Tensor] | None = None
    """Of an image ``(h0, w0)`` bool, what the model says without a prompt; computed when called."""


class Compared(NamedTuple):
    """An image's masks beside its targets."""

    masks: Tensor
    """``(n, h0, w0)`` bool."""
    target: Tensor
    """``(n, h0, w0)`` bool."""
    valid: Tensor
    """``(h0, w0)`` bool: which pixels count."""
    classes: Tensor
    """``(n,)`` int64."""


def seen(
    dataset: SegmentationDataset,
    batch: Batch,
    i: int,
    index: int,
    compared: Compared,
    answers: Answers,
    needs: Collection[str],
) -> Seen:
    """An image as metrics look at it, with no more than they need.

    Args:
        dataset: Of the image.
        batch: Of the image.
        i: The image's place in the batch.
        index: Its place in the data set.
        compared: Its masks.
        answers: Of the whole batch.
        needs: See :class:`samtune.metrics.contract.Measure`.

    Raises:
        InputError: The model's frame is needed, and the image is cut into tiles or crops.
    """
    from samtune.metrics import Seen

    mapped, mine = dataset.class_maps, batch.prompts.image == i
    masks, target, valid, classes = compared
    made = Seen(
        masks,
        target,
        valid,
        classes,
        mapped=mapped,
        background=dataset.data.background,
        scores=None if mapped else answers.scores[mine],
        index=index,
        total=len(dataset),
    )
    if "probability" in needs and not mapped:
        made = replace(made, probability=_highest(answers.logits(i, False)))
    if "whole" in needs:
        made = replace(made, whole=torch.from_numpy(dataset.sample(index).labels.foreground))
        if not len(masks) and answers.unasked is not None:  # CAT-SAM's rule for what is empty
            made = replace(made, unasked=answers.unasked(i))
    if "frame" not in needs:
        return made
    logits = answers.logits(i, True)
    h, w = batch.geometries[i].resized
    # of a map the classes exclude each other, unless one mask answers for all
    found = inside(logits, mapped and logits.shape[1] > 1).flatten(0, 1).cpu()
    framed = compare(
        dataset, found, batch.targets[mine][:, :h, :w], batch.valid[i, :h, :w], classes
    )
    probability = None if mapped else _highest(logits)
    shares = _shares(logits) if mapped and "shares" in needs else None
    view = Seen(
        *framed, mapped=mapped, background=made.background, probability=probability, shares=shares
    )
    return replace(made, frame=view)


def compare(
    dataset: SegmentationDataset, masks: Tensor, target: Tensor, valid: Tensor, classes: Tensor
) -> Compared:
    """Masks beside targets, a map of classes split into a mask a class.

    Args:
        dataset: Of the image.
        masks: ``(N, h, w)`` bool.
        target: ``(N, h, w)`` bool, or ``(1, h, w)`` int64 of classes.
        valid: ``(h, w)`` bool.
        classes: ``(N,)`` int64; of a map they are found.

    Raises:
        InputError: A decoder of another number of classes.
    """
    if not dataset.class_maps:
        return Compared(masks, target, valid, classes)
    masks, target, classes = by_class(masks, target, valid, dataset.data.classes or 0)
    return Compared(masks, target, valid, classes)


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


def whole_frame(geometry: Geometry) -> Geometry:
    """The geometry of an image that is as large as its content in the model's frame."""
    return replace(geometry, original=geometry.resized)


def _highest(logits: Tensor) -> Tensor:
    """Of ``(n, K, h, w)`` logits the highest probability ``(h, w)``; 0 where there are none."""
    if not len(logits):
        return torch.zeros(logits.shape[-2:])
    return logits.flatten(0, 1).amax(0).float().sigmoid().cpu()


def _shares(logits: Tensor) -> Tensor:
    """Of a map's ``(1, K, h, w)`` logits the probability of each class ``(K, h, w)``."""
    of_class = logits.flatten(0, 1).float()
    return (of_class.softmax(0) if len(of_class) > 1 else of_class.sigmoid()).cpu()
