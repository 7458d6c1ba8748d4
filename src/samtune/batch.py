"""A model's input and output: batches and masks.

Shape letters: ``B`` images, ``N`` prompts, ``K`` masks per prompt, ``H W`` token grid, ``h w``
pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from samtune.geometry import Geometry
from samtune.prompts import Prompts


@dataclass(frozen=True)
class Masks:
    """A decoder's answer to ``N`` prompts."""

    logits: Tensor
    """``(N, K, 4H, 4W)``: four times the token grid, over the model frame; above 0 is inside."""
    iou: Tensor
    """``(N, K)``: the decoder's own estimate of each mask's IoU."""
    exclusive: bool = False
    """Whether the K masks are classes, of which each pixel has the one of the highest logit,
    instead of K answers to choose from."""
    auxiliary: Tensor | None = None
    """A scalar that the encoder's adapter adds to the loss; only in training."""

    def best(self) -> Masks:
        """The answer of highest estimated IoU to each prompt, so that K is 1.

        Classes are no answers to choose from: all of them stay.
        """
        if self.exclusive:
            return self
        rows = torch.arange(len(self.iou), device=self.iou.device)
        columns = self.iou.argmax(1)
        logits, iou = self.logits[rows, columns], self.iou[rows, columns]
        return replace(self, logits=logits[:, None], iou=iou[:, None])


def inside(logits: Tensor, exclusive: bool, threshold: float = 0.0) -> Tensor:
    """Masks ``(N, K, h, w)`` bool of logits of any resolution, see :class:`Masks`."""
    if not exclusive:
        return logits > threshold
    return torch.zeros_like(logits, dtype=torch.bool).scatter_(1, logits.argmax(1, True), True)


@dataclass(frozen=True)
class Question:
    """Further prompts about the images of a batch, and what each should give."""

    prompts: Prompts
    """In the model frame."""
    targets: Tensor
    """``(N, h, w)`` bool in the model frame."""
    classes: Tensor
    """``(N,)`` int64."""
    originals: tuple[Tensor, ...] = ()
    """As those of the batch."""

    def to(self, device: torch.device | str) -> Question:
        """The same with its model-frame tensors on another device."""
        return replace(
            self,
            prompts=self.prompts.to(device),
            targets=self.targets.to(device, non_blocking=True),
            classes=self.classes.to(device, non_blocking=True),
        )


@dataclass(frozen=True)
class ObjectMap:
    """The ``N`` objects of one image, as one map in place of a mask for each."""

    original: Tensor
    """``(h0, w0)`` int32: 0 for no object, else the number of an object, in the original frame."""
    fitted: Tensor
    """``(h, w)`` int32: the same in the model's frame."""
    numbers: Tensor
    """``(N,)`` int32: the number of each object that is asked for."""

    def originals(self, rows: slice) -> Tensor:
        """Masks ``(n, h0, w0)`` bool of some of the objects in the original frame."""
        return self.original == self.numbers[rows, None, None]

    def targets(self, rows: slice) -> Tensor:
        """Masks ``(n, h, w)`` bool of some of the objects in the model's frame."""
        return self.fitted == self.numbers[rows, None, None]

    def any(self) -> Tensor:
        """``(h0, w0)`` bool: any of the objects."""
        return torch.isin(self.original, self.numbers)


@dataclass(frozen=True)
class Batch:
    """``B`` images in the model's frame with their ``N`` prompts and what each should give."""

    pixels: Tensor
    """``(B, 3, h, w)`` RGB in 0..255, zero where padded: uint8, or float32 without
    antialiasing and of splines."""
    sizes: Tensor
    """``(B, 2)`` int64 height and width of the content; the rest is padding."""
    prompts: Prompts
    """In the model frame."""
    targets: Tensor
    """``(N, h, w)`` in the model frame: bool masks, or int64 maps of classes."""
    valid: Tensor
    """``(B, h, w)`` bool: false in the padding and where the label is to be ignored."""
    classes: Tensor
    """``(N,)`` int64 class of each prompt's object, from 0."""
    geometries: tuple[Geometry, ...]
    names: tuple[str, ...]
    originals: tuple[Tensor, ...] = field(default=())
    """Per image ``(N_b, h0, w0)`` targets in the original frame; only kept for evaluation and for
    a loss at the image's own size."""
    original_valid: tuple[Tensor, ...] = field(default=())
    """Per image ``(h0, w0)`` bool, the original frame's twin of ``valid``."""
    images: tuple[Tensor, ...] = field(default=())
    """Per image ``(h0, w0, 3)`` uint8; only kept for evaluation on tiles or crops."""
    objects: tuple[ObjectMap, ...] = field(default=())
    """Of each image its objects as a map, in place of ``targets`` and ``originals``, which then
    have no rows; only in an evaluation, see :meth:`part`."""
    rehearsal: Question | None = None
    """What must not be forgotten: prompts that the model is not trained for; only in training."""

    @property
    def frame(self) -> Geometry:
        """The geometry that brings logits to the size of ``targets``: the frame as an image."""
        size = (self.targets.shape[-2], self.targets.shape[-1])
        return Geometry(size, size, size)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its model-frame tensors on another device; the originals stay."""
        return replace(
            self,
            pixels=self.pixels.to(device, non_blocking=True),
            sizes=self.sizes.to(device, non_blocking=True),
            prompts=self.prompts.to(device),
            targets=self.targets.to(device, non_blocking=True),
            valid=self.valid.to(device, non_blocking=True),
            classes=self.classes.to(device, non_blocking=True),
            rehearsal=None if self.rehearsal is None else self.rehearsal.to(device),
        )

    def spans(self, rows: slice) -> list[slice]:
        """For each image which of its own prompts are among ``rows`` of all prompts."""
        counts = self.prompts.image.bincount(minlength=len(self.names))
        ends = counts.cumsum(0).tolist()
        firsts = [end - count for end, count in zip(ends, counts.tolist(), strict=True)]
        return [
            slice(min(max(rows.start, first), end) - first, max(min(rows.stop, end), first) - first)
            for first, end in zip(firsts, ends, strict=True)
        ]

    def part(self, rows: slice) -> Batch:
        """The same images with some of their prompts, whose targets are masks.

        Args:
            rows: A range of the prompts, which lie in the order of their images.
        """
        spans, alike = self.spans(rows), self.prompts.only(torch.arange(rows.start, rows.stop))
        part = replace(self, prompts=alike, classes=self.classes[rows], objects=())
        if not self.objects:
            originals = tuple(o[span] for o, span in zip(self.originals, spans, strict=True))
            return replace(part, targets=self.targets[rows], originals=originals)
        pairs = list(zip(self.objects, spans, strict=True))
        return replace(
            part,
            targets=torch.cat([each.targets(span) for each, span in pairs]),
            originals=tuple(each.originals(span) for each, span in pairs),
        )

    def asked_instead(self, question: Question) -> Batch:
        """The same images with other prompts."""
        return replace(self, **vars(question), rehearsal=None)
