"""A loss that a user gives as a function, in the place of an expression."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from samtune.batch import Batch, Masks
from samtune.errors import InputError
from samtune.losses.comparison import (
    Comparison,
    LossAt,
    at_size_of,
    check_alike,
    mean_over_images,
    of_least_loss,
    with_auxiliary,
)
from samtune.losses.masks import full_precision
from samtune.options import further_inputs, name_of

LossFunction = Callable[..., Tensor]
"""A loss as a user writes it, see :class:`FunctionLoss`."""
INPUTS, BY_NAME = ("logits", "targets", "valid"), ("iou", "classes")
NO_CLASS = -100
"""The target of pixels that are not valid in a map of classes: torch's own ``ignore_index``."""
KINDS = "must return a tensor of one value, or of one per mask"


class FunctionLoss:
    """A user's ``function(logits, targets, valid)`` as the loss of a batch.

    It is called once for each batch of each process, or with ``train.loss_at=image`` once for each
    image at its own size, with ``N`` masks; not at all if there are none. It gets

    - ``logits``: ``(N, h, w)`` float32, above 0 inside, in the model's frame;
    - ``targets``: ``(N, h, w)`` float32, 0 or 1;
    - ``valid``: ``(N, h, w)`` bool: false in the padding and where the label is to be ignored;

    and by name, if it has such a parameter,

    - ``iou``: ``(N, K)`` float32, the decoder's estimate of each mask's IoU;
    - ``classes``: ``(N,)`` int64, the class of each mask's object.

    A decoder of K classes gives ``logits`` ``(N, K, h, w)``; ``targets`` are then ``(N, h, w)``
    int64 maps, -100 where they are not valid. With ``train.multimask`` logits are those of the
    answer whose loss is least, as in SAM's training; only a loss of one value per mask can say so.

    It returns a scalar, which is the loss as it stands, or ``(N,)`` values, of which the mean is
    taken over the prompts of each image and then over the images. It runs in float32, outside of
    autocast.

    Args:
        function: Such a function, or a module of torch without parameters to train.
        at: The size at which the loss is taken.

    Raises:
        InputError: It cannot be called with these inputs, or has parameters to train.
    """

    def __init__(self, function: LossFunction, at: LossAt = "frame") -> None:
        self.by_name = further_inputs(function, "loss", INPUTS, BY_NAME)
        if isinstance(function, nn.Module) and any(p.requires_grad for p in function.parameters()):
            raise InputError(
                f"loss: {name_of(function)} has parameters to train, but only the model's are "
                "trained and saved; call its requires_grad_(False)"
            )
        self.function, self.at = function, at
        self._called_before = False

    def __str__(self) -> str:
        return name_of(self.function)

    def __call__(self, masks: Masks, batch: Batch) -> Tensor:
        """The loss of a batch, a scalar.

        Raises:
            InputError: The function returned something else than a loss, or at the first call one
                that is not finite; answers and targets are of different kinds.
        """
        check_alike(masks, batch.targets)
        if not len(batch.prompts):  # a mean over nothing would be NaN
            return with_auxiliary(masks.logits.sum() * 0.0, masks, 0.0)
        scalars: list[Tensor] = []

        def each(part: Comparison) -> Tensor:
            if not len(part.rows):
                return full_precision(part.masks.logits).new_zeros(0)
            value = self._value(part, batch)
            if value.dim():
                return value
            scalars.append(value)
            return value.expand(len(part.rows))

        loss = mean_over_images(each, masks, batch, self.at)
        if scalars and self.at == "frame":  # as it stands, whatever images have no prompts
            prompted = loss.new_zeros(len(batch.pixels)).index_fill(0, batch.prompts.image, 1.0)
            loss = with_auxiliary(scalars[0], masks, prompted.mean())
        if not self._called_before and not bool(loss.isfinite()):
            raise InputError(
                f"loss: {self} is {float(loss.detach()):g} at the first step; guard its "
                "logarithms and divisions"
            )
        self._called_before = True
        return loss

    def _value(self, part: Comparison, batch: Batch) -> Tensor:
        """The value of the function for some masks: a scalar or ``(N,)``."""
        masks, targets, valid = part.masks, part.targets, part.valid
        given_by_name = {"iou": full_precision(masks.iou), "classes": batch.classes[part.rows]}
        further = {name: given_by_name[name] for name in self.by_name}
        if masks.exclusive:
            logits = part.geometry.masks_to_original(full_precision(masks.logits))
            targets = torch.where(valid, targets, NO_CLASS)
            return self._checked_value(self.function(logits, targets, valid, **further), logits)
        targets = targets.to(torch.float32)
        best = of_least_loss(
            masks.logits, lambda each: self._loss_of_each(each, part, targets, further)
        )
        logits = at_size_of(best, part.geometry)
        return self._checked_value(self.function(logits, targets, valid, **further), logits)

    def _loss_of_each(
        self, answer: Tensor, part: Comparison, targets: Tensor, further: dict[str, Any]
    ) -> Tensor:
        """The loss ``(N,)`` of one of several masks per prompt, ``(N, 4H, 4W)``.

        Raises:
            InputError: The function returns one value for all masks.
        """
        logits = at_size_of(answer, part.geometry)
        value = self.function(logits, targets, part.valid, **further)
        if not isinstance(value, Tensor) or value.shape != logits.shape[:1]:
            raise InputError(
                f"train.multimask=true: needs the loss of each mask, to train the best of "
                f"three, but {self} does not return {len(logits)} values for "
                f"{len(logits)} masks; return one per mask, or leave train.multimask out"
            )
        return value

    def _checked_value(self, value: Any, logits: Tensor) -> Tensor:
        """The function's value, if it has the right form.

        Raises:
            InputError: It is no loss of these logits.
        """
        if not isinstance(value, Tensor):
            raise InputError(f"loss: {self} returned {_kind(value)}; it {KINDS}")
        if value.shape not in ((), logits.shape[:1]):
            raise InputError(
                f"loss: {self} returned shape {tuple(value.shape)} for {len(logits)} masks; it "
                f"{KINDS}: take its mean or sum over the pixels"
            )
        if logits.requires_grad and not value.requires_grad:
            raise InputError(
                f"loss: what {self} returned has no gradient; compute it from logits, without "
                "detach, no_grad, NumPy or a threshold"
            )
        return full_precision(value)


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
