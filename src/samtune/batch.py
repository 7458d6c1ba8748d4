"""A model's input and output: batches and masks.

Shape letters: ``B`` images, ``N`` prompts, ``K`` masks per prompt, ``H W`` token grid, ``h w``
pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

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
    """Whether the K masks are mutually exclusive classes, each pixel belonging to the one of the
    highest logit, instead of K candidates to choose from."""
    auxiliary: Tensor | None = None
    """A scalar that the encoder's adapter adds to the loss; only in training."""
    dense: Mapping[str, Tensor] = field(default_factory=dict)
    """A decoder's dense maps beside its masks, by the names of their targets: logits
    ``(B, C, ., .)`` over the model frame, for each image once."""

    def best(self) -> Masks:
        """The mask of highest estimated IoU for each prompt, so that K is 1.

        Classes are not candidates, so all of them are kept.
        """
        if self.exclusive:
            return self
        # not len(), which would fix the number in a traced program
        rows = torch.arange(self.iou.shape[0], device=self.iou.device)
        columns = self.iou.argmax(1)
        logits, iou = self.logits[rows, columns], self.iou[rows, columns]
        return replace(self, logits=logits[:, None], iou=iou[:, None])

    @classmethod
    def union(cls, parts: Sequence[tuple[Tensor, Masks]]) -> Masks:
        """The answers to all prompts, from those to some of them.

        Args:
            parts: For some of the ``N`` prompts their rows ``(n,)`` and the answer; each prompt is
                in one of them. If they differ in their number of masks, the best of each is taken.
        """
        if len({masks.iou.shape[1] for _, masks in parts}) > 1:
            parts = [(rows, masks.best()) for rows, masks in parts]
        order = torch.cat([rows for rows, _ in parts]).argsort()
        logits, iou = (
            torch.cat([getattr(masks, name).float() for _, masks in parts])
            for name in ("logits", "iou")
        )
        order = order.to(iou.device)
        return replace(parts[0][1], logits=logits[order], iou=iou[order])


@dataclass(frozen=True)
class Candidates:
    """``M`` masks of ``N`` prompts: those whose estimated IoU is high enough, in order."""

    logits: Tensor
    """``(M, 4H, 4W)``, as those of :class:`Masks`."""
    iou: Tensor
    """``(M,)``: the estimated IoU."""
    prompt: Tensor
    """``(M,)`` int64, rising: the prompt that each answers."""

    @classmethod
    def of(cls, masks: Masks, least: float) -> Candidates:
        """The masks of an answer whose estimated IoU is above ``least``."""
        prompt, column = (masks.iou > least).nonzero(as_tuple=True)
        return cls(masks.logits[prompt, column], masks.iou[prompt, column], prompt)


def inside(logits: Tensor, exclusive: bool, threshold: float = 0.0) -> Tensor:
    """Masks ``(N, K, h, w)`` bool from logits of any resolution, see :class:`Masks`."""
    if not exclusive:
        return logits > threshold
    return torch.zeros_like(logits, dtype=torch.bool).scatter_(1, logits.argmax(1, True), True)


Move = Callable[[Tensor], Tensor]
"""Puts a tensor elsewhere."""


def _to(device: torch.device | str) -> Move:
    """Copies to a device; from pinned memory without waiting for it."""
    return lambda tensor: tensor.to(device, non_blocking=True)


@dataclass(frozen=True)
class Question:
    """Additional prompts for the images of a batch, with their targets."""

    prompts: Prompts
    """Prompts in the model's frame."""
    targets: Tensor
    """``(N, h, w)`` bool in the model frame."""
    classes: Tensor
    """``(N,)`` int64."""
    originals: tuple[Tensor, ...] = ()
    """Targets in the original frame, as in the batch."""

    def to(self, device: torch.device | str) -> Question:
        """A copy with its model-frame tensors on another device."""
        return self.with_tensors(_to(device), self.prompts.to(device))

    def with_tensors(self, move: Move, prompts: Prompts) -> Question:
        """A copy with its model-frame tensors elsewhere, and the prompts that are there already."""
        return replace(
            self, prompts=prompts, targets=move(self.targets), classes=move(self.classes)
        )

    def of_images(self, images: range) -> Question:
        """The prompts of some of the images, which are counted anew; see :class:`Batch`."""
        prompts, rows = _prompts_of(self.prompts, images)
        part = slice(images.start, images.stop)
        originals = self.originals[part]
        return Question(prompts, self.targets[rows], self.classes[rows], originals)


@dataclass(frozen=True)
class ObjectMap:
    """The ``N`` objects of one image, as one map instead of one mask per object."""

    original: Tensor
    """``(h0, w0)`` int32: 0 for no object, otherwise the number of an object, in the original
    frame."""
    fitted: Tensor
    """``(h, w)`` int32: the same in the model's frame."""
    numbers: Tensor
    """``(N,)`` int32: the number of each prompted object."""
    late: Callable[[ObjectMap, slice], Tensor] | None = None
    """Computes the mask prompts ``(n, 1, 4H, 4W)`` of some of the objects; ``None`` if there are
    none."""

    def originals(self, rows: slice) -> Tensor:
        """Masks ``(n, h0, w0)`` bool of some of the objects in the original frame."""
        return self.original == self.numbers[rows, None, None]

    def targets(self, rows: slice) -> Tensor:
        """Masks ``(n, h, w)`` bool of some of the objects in the model's frame."""
        return self.fitted == self.numbers[rows, None, None]

    def mask_prompts(self, rows: slice) -> Tensor | None:
        """Mask prompts ``(n, 1, 4H, 4W)`` of some of the objects, if they have any."""
        return None if self.late is None else self.late(self, rows)

    def places(self) -> Tensor:
        """``(h0, w0)`` int64: the place of each pixel's object among the ``N``, from 1, or 0."""
        in_order, places = self.numbers.sort()
        at = torch.searchsorted(in_order, self.original).clamp(max=max(0, len(in_order) - 1))
        if not len(in_order):
            return torch.zeros_like(self.original, dtype=torch.int64)
        return torch.where(in_order[at] == self.original, places[at] + 1, 0)


class Unfitted(Protocol):
    """An image that comes into the model's frame on the device."""

    def fitted(self, device: torch.device | str) -> Tensor:
        """The pixels ``(3, h, w)`` in the model's frame, on a device."""
        ...

    def pin_memory(self) -> Unfitted:
        """A copy in memory that a GPU reads while it computes."""
        ...


@dataclass(frozen=True)
class Batch:
    """``B`` images in the model's frame with their ``N`` prompts and targets."""

    pixels: Tensor
    """``(B, 3, h, w)`` RGB in 0..255, zero in the padding: uint8, or float32 if images are resized
    without antialiasing or by splines; without height and width as long as there are ``late``
    images."""
    sizes: Tensor
    """``(B, 2)`` int64 height and width of the content; the rest is padding."""
    prompts: Prompts
    """Prompts in the model's frame."""
    targets: Tensor
    """``(N, h, w)`` in the model's frame: bool masks, or int64 maps of classes."""
    valid: Tensor
    """``(B, h, w)`` bool: false in the padding and where the label is ignored."""
    classes: Tensor
    """``(N,)`` int64 class of each prompt's object, from 0."""
    geometries: tuple[Geometry, ...]
    names: tuple[str, ...]
    originals: tuple[Tensor, ...] = field(default=())
    """Per image ``(N_b, h0, w0)`` targets in the original frame; only kept for evaluation and for a
    loss at the image's own size."""
    original_valid: tuple[Tensor, ...] = field(default=())
    """Per image ``(h0, w0)`` bool, like ``valid`` in the original frame."""
    images: tuple[Tensor, ...] = field(default=())
    """Per image ``(h0, w0, 3)`` uint8; only kept for evaluation on tiles or crops."""
    objects: tuple[ObjectMap, ...] = field(default=())
    """The objects of each image as a map, instead of ``targets``, ``originals`` and the masks of
    ``prompts``, which :meth:`part` computes; only in an evaluation."""
    rehearsal: Question | None = None
    """Prompts of the rehearsal, whose answers the training must not change; only in training."""
    dense: Mapping[str, Tensor] = field(default_factory=dict)
    """Targets in the model's frame that are computed from all objects of an image, by name, each
    ``(B, C, h, w)``; only in the training of a decoder that reads them."""

    late: tuple[Unfitted, ...] = field(default=())
    """Images that become ``pixels`` on the device; only in training."""

    @property
    def frame(self) -> Geometry:
        """The geometry that resizes logits to the size of ``targets``: the frame as an image."""
        size = (self.targets.shape[-2], self.targets.shape[-1])
        return Geometry(size, size, size)

    def to(self, device: torch.device | str) -> Batch:
        """A copy with its model-frame tensors on another device; the originals stay."""
        rehearsal = None if self.rehearsal is None else self.rehearsal.to(device)
        moved = self._with_tensors(_to(device), self.prompts.to(device), rehearsal)
        if not self.late:
            return moved
        return replace(moved, pixels=torch.stack([e.fitted(device) for e in self.late]), late=())

    def pin_memory(self) -> Batch:
        """A copy whose model-frame tensors lie in memory that a GPU reads while it computes.

        torch's loader calls it, by this name.
        """
        rehearsal, pin = self.rehearsal, Tensor.pin_memory
        if rehearsal is not None:
            rehearsal = rehearsal.with_tensors(pin, rehearsal.prompts.with_tensors(pin))
        pinned = self._with_tensors(pin, self.prompts.with_tensors(pin), rehearsal)
        return replace(pinned, late=tuple(each.pin_memory() for each in self.late))

    def _with_tensors(self, move: Move, prompts: Prompts, rehearsal: Question | None) -> Batch:
        return replace(
            self,
            pixels=move(self.pixels),
            sizes=move(self.sizes),
            prompts=prompts,
            targets=move(self.targets),
            valid=move(self.valid),
            classes=move(self.classes),
            rehearsal=rehearsal,
            dense={name: move(each) for name, each in self.dense.items()},
        )

    def spans(self, rows: slice) -> list[slice]:
        """The range of each image's own prompts that are among ``rows`` of all prompts."""
        counts = self.prompts.image.bincount(minlength=len(self.names))
        ends = counts.cumsum(0).tolist()
        firsts = [end - count for end, count in zip(ends, counts.tolist(), strict=True)]
        return [
            slice(min(max(rows.start, first), end) - first, max(min(rows.stop, end), first) - first)
            for first, end in zip(firsts, ends, strict=True)
        ]

    def part(self, rows: slice) -> Batch:
        """A copy with some of the prompts, whose targets are masks, with their mask prompts.

        Args:
            rows: A range of the prompts, which are ordered by image.
        """
        spans, alike = self.spans(rows), self.prompts.only(torch.arange(rows.start, rows.stop))
        part = replace(self, prompts=alike, classes=self.classes[rows], objects=())
        if not self.objects:
            originals = tuple(o[span] for o, span in zip(self.originals, spans, strict=True))
            return replace(part, targets=self.targets[rows], originals=originals)
        pairs = list(zip(self.objects, spans, strict=True))
        masks = [each.mask_prompts(span) for each, span in pairs]
        if (like := next((each for each in masks if each is not None), None)) is not None:
            counts = [span.stop - span.start for span in spans]
            filled = (
                like.new_zeros(n, *like.shape[1:]) if each is None else each
                for n, each in zip(counts, masks, strict=True)
            )
            part = replace(part, prompts=replace(alike, masks=torch.cat([*filled])))
        return replace(
            part,
            targets=torch.cat([each.targets(span) for each, span in pairs]),
            originals=tuple(each.originals(span) for each, span in pairs),
        )

    def of_images(self, images: range) -> Batch:
        """A copy with some of the images, which are counted anew, and their prompts.

        Args:
            images: Their positions in the batch, one after another.
        """
        part = slice(images.start, images.stop)
        prompts, rows = _prompts_of(self.prompts, images)
        return replace(
            self,
            pixels=self.pixels[part],
            sizes=self.sizes[part],
            prompts=prompts,
            targets=self.targets[rows],
            valid=self.valid[part],
            classes=self.classes[rows],
            geometries=self.geometries[part],
            names=self.names[part],
            originals=self.originals[part],
            original_valid=self.original_valid[part],
            images=self.images[part],
            objects=self.objects[part],
            late=self.late[part],
            rehearsal=None if self.rehearsal is None else self.rehearsal.of_images(images),
            dense={name: t[part] for name, t in self.dense.items()},
        )

    def asked_instead(self, question: Question) -> Batch:
        """A copy with other prompts."""
        return replace(self, **vars(question), rehearsal=None)


def _prompts_of(prompts: Prompts, images: range) -> tuple[Prompts, Tensor]:
    """The prompts of some images, counted from the first of them, and their rows ``(n,)``."""
    rows = ((prompts.image >= images.start) & (prompts.image < images.stop)).nonzero()[:, 0]
    part = prompts.only(rows)
    return replace(part, image=part.image - images.start), rows
