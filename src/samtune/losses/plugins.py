"""Losses that other packages bring, as terms of an expression."""

from __future__ import annotations

from collections import ChainMap
from typing import Any

import torch
from torch import Tensor

from samtune.errors import InputError
from samtune.losses.dense import DENSE_LOSSES
from samtune.losses.functions import NO_CLASS
from samtune.losses.masks import CLASS_LOSSES, HEADS, LOSSES, full_precision
from samtune.registry import Members


class PluginLoss:
    """A loss of another package: ``function(logits, targets, valid) -> (N,)``.

    It gets ``logits`` ``(N, h, w)`` and ``targets`` ``(N, h, w)`` of 0 and 1, both float32, and
    ``valid`` ``(N, h, w)`` bool. One that says ``classes = True`` is for maps of classes: its
    ``logits`` are ``(N, K, h, w)``, and ``targets`` int64, -100 where they are not valid.

    Args:
        function: Such a function, or a class whose instance without arguments is one.
        name: In an expression.

    Raises:
        TypeError: It cannot be called.
    """

    def __init__(self, function: Any, name: str) -> None:
        if isinstance(function, type):
            try:
                function = function()
            except Exception as error:
                raise TypeError(f"cannot be made without arguments ({error})") from error
        if not callable(function):
            raise TypeError("is no function (logits, targets, valid)")
        self.function, self.name = function, name
        self.of_classes = bool(getattr(function, "classes", False))
        """Whether it judges maps of classes."""

    def __call__(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """The loss of each mask: ``(N,)``.

        Raises:
            InputError: The function gives something else.
        """
        if self.of_classes:
            target = torch.where(valid, target, NO_CLASS)
        else:
            target = target.to(torch.float32)
        value = self.function(full_precision(logits), target, valid)
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        if shape != (len(logits),):
            raise InputError(
                f"train.loss={self.name}: gives {shape} for {len(logits)} masks, but must give one "
                "number for each; take means and sums over the pixels, as in .mean((-2, -1))"
            )
        return full_precision(value)


_BUILT_IN: Any = ChainMap[str, Any](
    DENSE_LOSSES, CLASS_LOSSES, HEADS, LOSSES
)  # the last comes first
TERMS: Members[Any] = Members("loss", PluginLoss, _BUILT_IN)
"""All losses that an expression can name, samtune's own and those of other packages."""


def is_of_classes(name: str) -> bool:
    """Whether the loss of that name judges maps of classes.

    Raises:
        InputError: It is of another package, and cannot be had.
    """
    return name in CLASS_LOSSES or getattr(TERMS[name], "of_classes", False)
