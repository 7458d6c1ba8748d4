"""One image's masks as metrics get them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ImageResult:
    """One image's masks, predicted and true, all of one resolution.

    Raises:
        ValueError: Masks that are not bool or differ in shape.
    """

    predicted: Tensor
    """``(N, h, w)`` bool; N may be 0."""
    target: Tensor
    """``(N, h, w)`` bool."""
    valid: Tensor | None = None
    """``(h, w)`` bool, false where the label is to be ignored."""
    classes: Tensor | None = None
    """``(N,)`` int64 class of each mask, from 0."""
    mapped: bool = False
    """Whether the masks are the classes of one map, those met only."""
    background: int | None = None
    """Of a map the class that is no object."""
    scores: Tensor | None = None
    """``(N,)`` the decoder's own estimate of each mask's IoU."""
    probability: Tensor | None = None
    """``(h, w)`` in 0..1: of the foreground, the highest over the prompts."""
    shares: Tensor | None = None
    """``(K, h, w)`` in 0..1: of a map the probability of each class, of one mask for all its own.
    """
    whole: Tensor | None = None
    """``(h, w)`` bool: all of the foreground, asked for or not."""
    unasked: Tensor | None = None
    """``(h, w)`` bool: what a model says without a prompt, of an image that has none."""
    frame: ImageResult | None = None
    """The same image in the model's frame, without its padding."""
    index: int = 0
    """Place in the data set."""
    total: int = 1
    """Images in the data set."""

    def __post_init__(self) -> None:
        if self.predicted.dtype != torch.bool or self.target.dtype != torch.bool:
            kinds = f"{self.predicted.dtype} and {self.target.dtype}"
            raise ValueError(f"masks of {kinds}: threshold them to bool")
        if self.predicted.shape != self.target.shape or self.predicted.ndim != 3:
            shapes = f"{tuple(self.predicted.shape)} and {tuple(self.target.shape)}"
            raise ValueError(f"masks of shapes {shapes}: bring both to (N, h, w)")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        h, w = self.predicted.shape[1:]
        return h, w

    def counted(self) -> Tensor:
        """``(h, w)`` bool: the pixels that count."""
        return torch.ones(self.size, dtype=torch.bool) if self.valid is None else self.valid

    def union(self) -> tuple[Tensor, Tensor]:
        """What any mask predicts and what any target has, where it counts: ``(h, w)`` bool each."""
        predicted, target = self.without_ignored()
        return predicted.any(0), target.any(0)

    def without_ignored(self) -> tuple[Tensor, Tensor]:
        """``(N, h, w)`` bool each: predicted and true masks without the ignored pixels."""
        counted = self.counted()
        return self.predicted & counted, self.target & counted


Seen = ImageResult
"""Its name in version 0.1.0."""


def probability_of(image: ImageResult) -> Tensor:
    """The probability map ``(h, w)`` of an image.

    Raises:
        ValueError: There is none.
    """
    if image.probability is None:
        raise ValueError(
            "no probability: give ImageResult(probability=...), the sigmoid of the logits"
        )
    return image.probability
