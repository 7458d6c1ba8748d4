"""Losses of dense maps, which a decoder answers for a whole image beside its masks.

Every dense loss is a pure function ``(logits, target, valid) -> (B,)`` with ``logits``
``(B, K, h, w)`` float, a ``target`` ``(B, C, h, w)`` and ``valid`` ``(B, h, w)`` bool. It computes
in at least fp32. Invalid pixels change neither value nor gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from samtune.batch import Batch, Masks
from samtune.errors import InputError
from samtune.losses.masks import bce, full_precision
from samtune.prompts import NONE, PromptModes

_PIXELS = (-2, -1)
SMOOTH = 1.0
"""Pixels that are added to both sides of a Dice fraction, so that an empty target has one."""


@dataclass(frozen=True)
class DenseLoss:
    """A loss of one kind of dense map."""

    reads: str
    """The name of the answer in ``Masks.dense`` and of the target in ``Batch.dense``."""
    function: Callable[[Tensor, Tensor, Tensor], Tensor]
    """Gives the loss of each image, ``(B,)``."""


DENSE_LOSSES: dict[str, DenseLoss] = {}
"""The dense losses, by their names in expressions."""


def register(
    name: str, reads: str
) -> Callable[[Callable[[Tensor, Tensor, Tensor], Tensor]], Callable[..., Tensor]]:
    """Adds a loss to :data:`DENSE_LOSSES`.

    Args:
        name: Its name in an expression.
        reads: See :class:`DenseLoss`.

    Raises:
        ValueError: The name is taken.
    """

    def add(function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
        if name in DENSE_LOSSES:
            raise ValueError(f"the loss name {name!r} is taken: choose another")
        DENSE_LOSSES[name] = DenseLoss(reads, function)
        return function

    return add


@register("distances", reads="distances")
def distances(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    r"""Dice losses of foreground and of both distances, added up (Archit et al. 2025).

    With probabilities :math:`p` and targets :math:`g` it is, for each of the three maps,
    :math:`1 - (2 \sum p g + s) / (\sum p^2 + \sum g^2 + s)`: the squares give a target between 0
    and 1 its least loss at :math:`p = g`. The distances count inside of objects only, where the
    watershed reads them.

    Args:
        logits: ``(B, 3, h, w)``: foreground, distance to the centre, inverted distance to the edge.
        target: ``(B, 3, h, w)`` in 0 to 1, see :func:`samtune.data.dense_targets.distances`.
        valid: ``(B, h, w)``.
    """
    target = full_precision(target)
    inside = valid & (target[:, 0] > 0)
    counts = torch.stack([valid, inside, inside], 1)
    z = torch.where(counts, full_precision(logits), 0)  # before: no NaN comes from elsewhere
    p = torch.where(counts, z.sigmoid(), 0)
    g = torch.where(counts, target, 0)
    overlap, total = (p * g).sum(_PIXELS), (p * p + g * g).sum(_PIXELS)
    return (1 - (2 * overlap + SMOOTH) / (total + SMOOTH)).sum(1)


@register("foreground", reads="distances")
def foreground(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Binary cross-entropy of the foreground, the first of the maps of :func:`distances`.

    Dice alone hardly moves the background, of which a few pixels around each object remain.
    """
    return bce(logits[:, 0], target[:, 0], valid)


@register("object_ce", reads="object_classes")
def object_ce(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Cross-entropy over the classes of objects: the mean over the pixels inside of objects.

    Args:
        logits: ``(B, K, h, w)``.
        target: ``(B, 1, h, w)`` int64: the class, negative where no object is.
        valid: ``(B, h, w)``.
    """
    inside = valid & (target[:, 0] >= 0)
    z = torch.where(inside[:, None], full_precision(logits), 0)
    each = F.cross_entropy(z, torch.where(inside, target[:, 0], 0), reduction="none")
    return torch.where(inside, each, 0).sum(_PIXELS) / inside.sum(_PIXELS).clamp(min=1)


def check_dense(loss: Any, targets: Sequence[str], prompted: bool, modes: PromptModes) -> None:
    """Refuses a training that leaves what a decoder answers untrained, or reads what it does not.

    Args:
        loss: The loss of the training, a :class:`samtune.losses.Loss` or a user's function.
        targets: The maps that the decoder predicts besides masks, its ``dense_targets``.
        prompted: Whether it answers prompts too.
        modes: The prompts of the training.

    Raises:
        InputError: With the setting to change.
    """
    weights: Mapping[str, float] = getattr(loss, "dense", {})
    read = {DENSE_LOSSES[name].reads: name for name in weights}
    for target, name in read.items():
        if target not in targets:
            raise InputError(
                f"train.loss={loss}: {name} is of a decoder that answers with {target}; leave it "
                "out, or choose such a decoder"
            )
    by_target = {each.reads: name for name, each in reversed(DENSE_LOSSES.items())}
    for target in targets:
        if target not in read:
            raise InputError(
                f"train.loss={loss}: leaves the decoder's {target} untrained; add "
                f"{by_target.get(target, target)} to it"
            )
    if targets and loss.at != "frame":
        raise InputError(
            f"train.loss_at={loss.at}: {targets[0]} are compared in the model's frame; set "
            "train.loss_at=frame"
        )
    if targets and not prompted and set(modes) != {NONE}:
        raise InputError(
            f"prompts.train={','.join(modes)}: the decoder answers no prompts; set "
            "prompts.train=none, or decoder.prompts=tuned"
        )


def dense_loss(terms: Mapping[str, float], masks: Masks, batch: Batch) -> Tensor:
    """The weighted dense losses of a batch in the model's frame: the mean over all images.

    Args:
        terms: Weights by the names of :data:`DENSE_LOSSES`; at least one.
        masks: The masks whose dense maps are enlarged bilinearly to the frame of the targets.
        batch: With dense targets.

    Raises:
        InputError: The decoder has no such answer, or the batch no such target.
    """
    values = []
    for name, weight in terms.items():
        loss = DENSE_LOSSES[name]
        for what, has in (("the decoder answers", masks.dense), ("the batch has", batch.dense)):
            if loss.reads not in has:
                raise InputError(
                    f"loss {name}: {what} no {loss.reads}; train a decoder that reads them, on "
                    "images that samtune.fit or samtune.prepare(split, model, train=True) made"
                )
        target = batch.dense[loss.reads]
        logits = F.interpolate(
            full_precision(masks.dense[loss.reads]), target.shape[-2:], mode="bilinear"
        )
        classes = logits.shape[1]
        if not target.is_floating_point() and (most := int(target.max())) >= classes:
            raise InputError(
                f"decoder.object_classes={classes}: an object has the class {most}, counted from "
                f"0; set decoder.object_classes={most + 1} or more"
            )
        values.append(weight * loss.function(logits, target, batch.valid))
    return torch.stack(values).sum(0).mean()
