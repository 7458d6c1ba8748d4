"""One image's masks beside its targets, in the form that metrics take."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from samtune.batch import Batch, inside
from samtune.data import SegmentationDataset
from samtune.errors import InputError
from samtune.inference.batches import Answers, highest

if TYPE_CHECKING:
    from samtune.metrics import ImageResult


class MaskPairs(NamedTuple):
    """An image's masks, each beside its target."""

    masks: Tensor
    """``(n, h, w)`` bool."""
    targets: Tensor
    """``(n, h, w)`` bool."""
    valid: Tensor
    """``(h, w)`` bool: which pixels count."""
    classes: Tensor
    """``(n,)`` int64."""


class Place(NamedTuple):
    """The index of an image, from 0."""

    in_batch: int
    in_dataset: int


class Ends(NamedTuple):
    """The place of some of an image's masks among them."""

    first: bool
    """Whether the first is among them."""
    last: bool
    """Whether the last is among them; both, if an image has none."""


def image_result(
    dataset: SegmentationDataset,
    batch: Batch,
    place: Place,
    pairs: MaskPairs,
    answers: Answers,
    needs: Collection[str],
    promptless: Callable[[int], Tensor] | None = None,
) -> ImageResult:
    """An image's result with exactly the inputs that the metrics need.

    Args:
        dataset: The data set of the image.
        batch: The batch of the image.
        place: Position of the image in it.
        pairs: Its masks in the original frame.
        answers: The model's answers to the whole batch.
        needs: The needed inputs, see :class:`samtune.metrics.contract.Measure`.
        promptless: Returns for image ``i`` of the batch the mask ``(h0, w0)`` bool that the model
            predicts without a prompt; called for images without objects.

    Raises:
        InputError: A metric needs the model's frame, but the image is cut into tiles or crops.
    """
    from samtune.metrics import ImageResult

    i, index = place
    mapped, rows = dataset.class_maps, batch.prompts.image == i
    result = ImageResult(
        *pairs,
        mapped=mapped,
        background=dataset.data.background,
        scores=None if mapped else answers.scores[rows],
        index=index,
        total=len(dataset),
    )
    if "probability" in needs and not mapped:
        result = replace(result, probability=_probability(answers.highest(i)))
    if "whole" in needs:
        result = replace(result, whole=torch.from_numpy(dataset.labels(index).foreground))
        if not len(pairs.masks) and promptless is not None:  # the rule for empty masks
            result = replace(result, unasked=promptless(i))
    if "frame" not in needs:
        return result
    frame = _in_frame(
        dataset, batch, i, pairs.classes, answers.in_frame(i), "class_probabilities" in needs
    )
    return replace(result, frame=frame)


def _in_frame(
    dataset: SegmentationDataset,
    batch: Batch,
    i: int,
    classes: Tensor,
    logits: Tensor,
    with_probabilities: bool,
) -> ImageResult:
    """The result of image ``i`` in the model's frame, from its logits ``(n, K, h1, w1)`` there."""
    from samtune.metrics import ImageResult

    mapped, rows = dataset.class_maps, batch.prompts.image == i
    h, w = batch.geometries[i].resized
    # the classes of a map are exclusive, unless one mask answers for all
    masks = inside(logits, mapped and logits.shape[1] > 1).flatten(0, 1).cpu()
    targets, valid = batch.targets[rows][:, :h, :w], batch.valid[i, :h, :w]
    return ImageResult(
        *pair_masks(dataset, masks, targets, valid, classes),
        mapped=mapped,
        background=dataset.data.background,
        probability=None if mapped else _probability(highest(logits)),
        class_probabilities=_class_probabilities(logits) if mapped and with_probabilities else None,
    )


def pair_masks(
    dataset: SegmentationDataset, masks: Tensor, targets: Tensor, valid: Tensor, classes: Tensor
) -> MaskPairs:
    """Masks beside targets; a map of classes is split into one mask per class.

    Args:
        dataset: The data set of the image.
        masks: ``(N, h, w)`` bool.
        targets: ``(N, h, w)`` bool, or ``(1, h, w)`` int64 of classes.
        valid: ``(h, w)`` bool.
        classes: ``(N,)`` int64; for a map the classes follow from it.

    Raises:
        InputError: The decoder has another number of classes.
    """
    if not dataset.class_maps:
        return MaskPairs(masks, targets, valid, classes)
    masks, targets, classes = by_class(masks, targets, valid, dataset.data.classes or 0)
    return MaskPairs(masks, targets, valid, classes)


def by_class(
    masks: Tensor, target: Tensor, valid: Tensor, classes: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Splits a map of classes into one mask per class, to compare with as many predicted ones.

    Classes that are neither in the image nor predicted in it are left out, so the pooled IoU of a
    class over all images equals that of their confusion matrix. A single predicted mask, as plain
    SAM gives, answers for every class.

    Args:
        masks: ``(classes, h0, w0)`` or ``(1, h0, w0)`` bool.
        target: ``(1, h0, w0)`` int64.
        valid: ``(h0, w0)`` bool.
        classes: Number of classes in the data.

    Returns:
        Masks and targets ``(n, h0, w0)`` bool, and the class of each.

    Raises:
        InputError: The decoder has another number of classes.
    """
    if len(masks) not in (1, classes):
        raise InputError(
            f"decoder.classes={len(masks)}: the data has {classes} classes; make both the same"
        )
    targets = target == torch.arange(classes)[:, None, None]
    masks = masks.expand_as(targets)
    present = ((masks | targets) & valid).flatten(1).any(1)
    return masks[present], targets[present], present.nonzero()[:, 0]


def _probability(highest_logits: Tensor) -> Tensor:
    """The probability map ``(h, w)`` from logits ``(h, w)``, on the CPU."""
    return highest_logits.float().sigmoid().cpu()


def _class_probabilities(logits: Tensor) -> Tensor:
    """The probability of each class ``(K, h, w)``, from a map's logits ``(1, K, h, w)``."""
    per_class = logits.flatten(0, 1).float()
    return (per_class.softmax(0) if len(per_class) > 1 else per_class.sigmoid()).cpu()
