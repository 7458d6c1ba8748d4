"""One image's masks, in the form that metrics take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import overload

import numpy as np
import torch
from torch import Tensor

from samtune.metrics.areas import areas_of
from samtune.metrics.instance_result import InstanceResult, RunLengths
from samtune.metrics.packed import PackedMasks

AT_ONCE = 2**24
"""Bytes of masks that metrics process at once; a single mask may need more."""
COUNTED = 100
"""Prompted masks per image and class that average precision looks at, as in COCO."""


@dataclass(frozen=True)
class ImageResult:
    """One image's masks, predicted and true, all of one resolution.

    Very many masks are kept packed, and metrics process some at a time (:meth:`parts`).

    Raises:
        ValueError: Masks that are not bool or differ in shape.
    """

    predicted: Tensor | PackedMasks
    """``(N, h, w)`` bool; N may be 0."""
    target: Tensor | PackedMasks
    """``(N, h, w)`` bool."""
    valid: Tensor | None = None
    """``(h, w)`` bool, false where the label is ignored."""
    classes: Tensor | None = None
    """``(N,)`` int64 class of each mask, from 0."""
    mapped: bool = False
    """Whether the masks are the classes of one map, only those that occur."""
    background: int | None = None
    """The class of a map that is no object."""
    scores: Tensor | None = None
    """``(N,)`` the decoder's own estimate of each mask's IoU."""
    probability: Tensor | None = None
    """``(h, w)`` in 0..1: probability of the foreground, the highest over the prompts."""
    class_probabilities: Tensor | None = None
    """``(K, h, w)`` in 0..1: for a map the probability of each class, for one mask its own classes.
    """
    whole: Tensor | None = None
    """``(h, w)`` bool: all of the foreground, prompted or not."""
    unasked: Tensor | None = None
    """``(h, w)`` bool: the prediction without a prompt, for an image that has none."""
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
        if self.predicted.shape != self.target.shape or len(self.predicted.shape) != 3:
            shapes = f"{tuple(self.predicted.shape)} and {tuple(self.target.shape)}"
            raise ValueError(f"masks of shapes {shapes}: bring both to (N, h, w)")

    @property
    def shares(self) -> Tensor | None:
        """The name of :attr:`class_probabilities` in version 0.1.0."""
        return self.class_probabilities

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        h, w = self.predicted.shape[1:]
        return h, w

    @property
    def at_once(self) -> int:
        """How many of its masks metrics look at together."""
        return max(1, AT_ONCE // max(1, self.size[0] * self.size[1]))

    def counted(self) -> Tensor:
        """``(h, w)`` bool: the pixels that are not ignored."""
        return torch.ones(self.size, dtype=torch.bool) if self.valid is None else self.valid

    def parts(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Predicted and true masks ``(n, h, w)`` bool without the ignored pixels, some at a time.

        They come in order, as many at a time as :data:`AT_ONCE` allows; an image without masks
        gives ``n`` = 0 once.
        """
        counted = self.counted()
        for start in range(0, max(1, len(self.predicted)), self.at_once):
            rows = slice(start, start + self.at_once)
            yield self.predicted[rows] & counted, self.target[rows] & counted

    def areas(self) -> Tensor:
        """Pixels of overlap, prediction and target that are not ignored: ``(N, 3)`` int64."""
        return torch.cat([areas_of(*masks, None) for masks in self.parts()])

    def union(self) -> tuple[Tensor, Tensor]:
        """The unions of predicted and of true masks, ignored pixels left out: ``(h, w)`` bool."""
        parts = self.parts()
        predicted, target = (masks.any(0) for masks in next(parts))
        for more in parts:
            predicted, target = predicted | more[0].any(0), target | more[1].any(0)
        return predicted, target

    @cached_property
    def instances(self) -> InstanceResult:
        """Each mask and each target as an instance, without the ignored pixels.

        A mask has the class of the target for which it was prompted.
        """
        predicted, target = (
            _RunsOf(masks, self.counted(), self.at_once) for masks in (self.predicted, self.target)
        )
        classes = None if self.classes is None else self.classes.cpu().numpy()
        return InstanceResult(
            predicted,
            target[:],
            scores=None if self.scores is None else self.scores.double().cpu().numpy(),
            predicted_classes=classes,
            target_classes=classes,
            limit=COUNTED,
            index=self.index,
        )


class _RunsOf(Sequence[RunLengths]):
    """The run lengths of masks without ignored pixels, encoded whenever they are read.

    Those of thousands of ragged masks would take more memory than the masks that are read at once.
    """

    def __init__(self, masks: Tensor | PackedMasks, counted: Tensor, at_once: int) -> None:
        self._masks, self._counted, self._at_once = masks, counted, at_once

    def __len__(self) -> int:
        return len(self._masks)

    @overload
    def __getitem__(self, rows: int) -> RunLengths: ...

    @overload
    def __getitem__(self, rows: slice) -> list[RunLengths]: ...

    def __getitem__(self, rows: int | slice) -> RunLengths | list[RunLengths]:
        if isinstance(rows, int):
            at = range(len(self))[rows]
            return self[at : at + 1][0]
        runs: list[RunLengths] = []
        start, stop, _ = rows.indices(len(self))
        for first in range(start, stop, self._at_once):
            part = self._masks[first : min(first + self._at_once, stop)]
            runs += _run_lengths(part & self._counted)
        return runs


def _run_lengths(masks: Tensor) -> list[RunLengths]:
    from pycocotools import mask as coco

    if not len(masks):
        return []
    return coco.encode(np.asfortranarray(masks.cpu().numpy().transpose(1, 2, 0).view(np.uint8)))


class ResultInParts:
    """The result of one image whose masks arrive in several steps and are kept packed."""

    def __init__(self) -> None:
        self._parts: list[ImageResult] = []
        """Each without masks, but for the shape of them."""
        self._masks: tuple[PackedMasks, PackedMasks] | None = None
        self._probability: Tensor | None = None
        self._frame: ResultInParts | None = None

    def add(self, part: ImageResult) -> None:
        """Adds the next masks of the image, with all other known values."""
        if self._masks is None:
            self._masks = PackedMasks(part.size), PackedMasks(part.size)
        for all_masks, masks in zip(self._masks, (part.predicted, part.target), strict=True):
            all_masks.extend(masks[:])
        if part.probability is not None:
            earlier = part.probability if self._probability is None else self._probability
            self._probability = torch.maximum(earlier, part.probability)
        if part.frame is not None:
            self._frame = self._frame or ResultInParts()
            self._frame.add(part.frame)
        none = part.predicted[:0].clone()  # a view would keep all of them in memory
        self._parts.append(replace(part, predicted=none, target=none, probability=None, frame=None))

    def whole_image(self) -> ImageResult:
        """The result with all masks that were added; there must be at least one part."""
        assert self._masks is not None
        first, every = self._parts[0], self._parts
        predicted, target = self._masks
        scores = [each.scores for each in every if each.scores is not None]
        classes = [each.classes for each in every if each.classes is not None]
        return replace(
            first,
            predicted=predicted,
            target=target,
            classes=torch.cat(classes) if classes else None,
            scores=torch.cat(scores) if scores else None,
            probability=self._probability,
            frame=self._frame.whole_image() if self._frame else None,
        )


Seen = ImageResult
"""The name of :class:`ImageResult` in version 0.1.0."""


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
