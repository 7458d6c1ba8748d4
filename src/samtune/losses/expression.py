"""The expression that sums losses, and its evaluation on a batch."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import get_args

import torch
from torch import Tensor

from samtune.batch import Batch, Masks
from samtune.errors import InputError, nearest
from samtune.geometry import Geometry
from samtune.losses.comparison import (
    Comparison,
    LossAt,
    at_size_of,
    check_alike,
    mean_over_images,
    of_least_loss,
)
from samtune.losses.dense import DENSE_LOSSES, dense_loss
from samtune.losses.masks import (
    CLASS_LOSSES,
    HEADS,
    LOSSES,
    full_precision,
)
from samtune.losses.plugins import TERMS, is_of_classes

DEFAULT_LOSS = "bce + dice"
"""The default loss: binary cross-entropy and Dice, with equal weights."""

# The lookbehind keeps the sign of an exponent, as in 1e+3*dice, within its term.
_PLUS = re.compile(r"(?<![\d.][eE])\+")
_TERM = re.compile(
    r"(?:((?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*\*\s*)?([A-Za-z_][\w.]*(?::[A-Za-z_][\w.]*)?)"
)


@dataclass(frozen=True)
class Loss:
    """A weighted sum of losses, as in ``20*focal + dice + iou_head``; see :meth:`parse`."""

    terms: tuple[tuple[str, float], ...]
    """Names and weights, in the order given."""
    at: LossAt = "frame"
    """The pixels on which masks and targets are compared."""

    @staticmethod
    def parse(expression: str, at: LossAt = "frame") -> Loss:
        """Reads ``[weight *] name + [weight *] name + ...``.

        Raises:
            InputError: The text is not such a sum, a name is unknown or repeated, a weight is not
                positive and finite, losses of masks and of class maps are mixed, or ``at`` is
                unknown.
        """
        if at not in get_args(LossAt):
            known = " or ".join(get_args(LossAt))
            raise InputError(f"loss at {at!r}: no such place; choose {known}")
        terms: dict[str, float] = {}
        for part in _PLUS.split(expression):
            name, weight = _parse_term(part.strip(), expression)
            if name in terms:
                raise InputError(f"loss {expression!r} names {name!r} twice: add up its weights")
            terms[name] = weight
        if 0 < sum(map(is_of_classes, terms)) < len(terms):
            raise InputError(
                f"loss {expression!r} sums losses of single masks and of class maps; combine "
                f"{', '.join(CLASS_LOSSES)} only with each other"
            )
        return Loss(tuple(terms.items()), at)

    @property
    def of_classes(self) -> bool:
        """Whether it is a loss of class maps instead of single masks."""
        return all(is_of_classes(name) for name, _ in self.terms)

    @property
    def dense(self) -> dict[str, float]:
        """The weights of its losses of dense maps, by name."""
        return {name: weight for name, weight in self.terms if name in DENSE_LOSSES}

    @property
    def of_prompts(self) -> Loss:
        """The same without its losses of dense maps, which do not depend on prompts."""
        terms = tuple((name, w) for name, w in self.terms if name not in DENSE_LOSSES)
        return replace(self, terms=terms)

    def __str__(self) -> str:
        return " + ".join(n if w == 1 else f"{w:.15g}*{n}" for n, w in self.terms)

    def __call__(self, masks: Masks, batch: Batch) -> Tensor:
        """The loss of a batch, a scalar in at least fp32.

        Logits are enlarged bilinearly to the frame of the targets, or resized to each image's own
        size as predictions are (:meth:`samtune.geometry.Geometry.masks_to_original`) and compared
        with ``batch.originals`` and ``original_valid``. If a prompt has several masks, the one with
        the smallest sum of mask losses counts (SAM's rule); ``iou_head`` uses all K. The mean is
        taken over the prompts of each image, then over all B images; an image without prompts
        counts as 0. Without any prompt the result is a 0 that still has a graph. The adapter's
        additional loss, ``masks.auxiliary``, is weighted by the fraction of images with prompts.

        Raises:
            InputError: Masks, targets and losses are not all for single masks or all for maps of
                classes.
        """
        self._check_kind(masks, batch.targets)
        dense, of_prompts = self.dense, self.of_prompts
        value = mean_over_images(of_prompts._each, masks, batch, self.at)
        return value + dense_loss(dense, masks, batch) if dense else value

    def _each(self, part: Comparison) -> Tensor:
        """The loss of each prompt at the size that ``geometry`` maps logits to: ``(N,)``."""
        masks, target, valid, geometry = part.masks, part.targets, part.valid, part.geometry
        if masks.exclusive:
            logits = geometry.masks_to_original(full_precision(masks.logits))
            values = [w * TERMS[n](logits, target, valid) for n, w in self.terms]
            return torch.stack(values).sum(0)
        best = of_least_loss(masks.logits, lambda each: self._masks(each, target, valid, geometry))
        value = self._masks(best, target, valid, geometry)
        return value + self._heads(masks, target, valid, geometry)

    def _masks(self, logits: Tensor, target: Tensor, valid: Tensor, geometry: Geometry) -> Tensor:
        """The sum of the mask losses of ``(N, 4H, 4W)`` logits: ``(N,)``."""
        if all(name in HEADS for name, _ in self.terms):
            return full_precision(logits).new_zeros(len(logits))
        logits = at_size_of(logits, geometry)
        terms = [(TERMS[n], w) for n, w in self.terms if n not in HEADS]
        return torch.stack([w * loss(logits, target, valid) for loss, w in terms]).sum(0)

    def _check_kind(self, masks: Masks, target: Tensor) -> None:
        mapped = check_alike(masks, target)
        if mapped != self.of_classes:
            known = CLASS_LOSSES if mapped else LOSSES
            raise InputError(
                f"loss {str(self)!r} is not one of {'class maps' if mapped else 'single masks'}; "
                f"choose from {', '.join(known)}"
            )

    def _heads(
        self, masks: Masks, target: Tensor, valid: Tensor, geometry: Geometry
    ) -> Tensor | float:
        """The losses of the decoder's estimates of its IoU: ``(N,)``; 0 without one."""
        weights = {name: weight for name, weight in self.terms if name in HEADS}
        if not weights:
            return 0.0
        each = []
        for k, mask in enumerate(masks.logits.detach().unbind(1)):
            logits, iou = at_size_of(mask, geometry)[:, None], masks.iou[:, k : k + 1]
            values = [w * HEADS[n](iou, logits, target, valid) for n, w in weights.items()]
            each.append(torch.stack(values).sum(0))
        return torch.stack(each).mean(0)


def _parse_term(term: str, expression: str) -> tuple[str, float]:
    match = _TERM.fullmatch(term)
    if match is None:
        raise InputError(
            f"loss {expression!r} has the term {term!r}; write [weight *] name, joined by +, as in "
            "'20*focal + dice + iou_head'"
        )
    weight, name = float(match[1] or 1), match[2]
    if name not in TERMS:
        names = TERMS.names()
        where = "is unknown" if name == expression else f"names {name!r}"
        raise InputError(
            f"loss {expression!r} {where}; known are {', '.join(names)}{nearest(name, names)}"
        )
    if not 0 < weight < math.inf:
        raise InputError(
            f"loss {expression!r} weighs {name!r} with {match[1]}; weights must be positive and "
            "finite; leave out terms that should not count"
        )
    return name, weight
