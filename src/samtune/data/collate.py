"""Joins the examples of several images into one flat batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from samtune.batch import Batch, ObjectMap, Question, Unfitted
from samtune.geometry import Geometry
from samtune.prompts import Prompts


@dataclass(frozen=True)
class Example:
    """One image in the model's frame with its ``N`` prompts; ``N`` may be 0."""

    pixels: Tensor
    """``(3, h, w)`` uint8 RGB; without height and width if the image is ``late``."""
    prompts: Prompts
    """Prompts in the model's frame."""
    targets: Tensor
    """``(N, h, w)`` bool."""
    valid: Tensor
    """``(h, w)`` bool: false in the padding and at ignored pixels."""
    classes: Tensor
    """``(N,)`` int64."""
    geometry: Geometry
    name: str
    original: Tensor | None = None
    """``(N, h0, w0)`` targets in the original frame; in evaluation, and in training if needed."""
    original_valid: Tensor | None = None
    """``(h0, w0)`` bool; set together with ``original``."""
    image: Tensor | None = None
    """``(h0, w0, 3)`` uint8 RGB; only in evaluation on tiles or crops, which need the whole image.
    """
    objects: ObjectMap | None = None
    """The objects as a map; then ``targets`` and ``original`` have no rows."""
    rehearsal: Question | None = None
    """Rehearsal prompts for the same image, whose answers the training must not change; only in
    training."""
    dense: Mapping[str, Tensor] = field(default_factory=dict)
    """Targets ``(C, h, w)`` that are computed from all objects, by name; only in training."""
    late: Unfitted | None = None
    """The image, if it comes into the model's frame on the device; only in training."""


def collate(examples: Sequence[Example]) -> Batch:
    """Joins several images into one batch; their prompts become one flat set with image indices.

    Raises:
        ValueError: ``examples`` is empty.
    """
    prompts = Prompts.cat([example.prompts.at(i) for i, example in enumerate(examples)])
    sizes = torch.tensor([example.geometry.resized for example in examples])
    return Batch(
        pixels=torch.stack([example.pixels for example in examples]),
        sizes=sizes,
        prompts=prompts,
        targets=torch.cat([example.targets for example in examples]),
        valid=torch.stack([example.valid for example in examples]),
        classes=torch.cat([example.classes for example in examples]),
        geometries=tuple(example.geometry for example in examples),
        names=tuple(example.name for example in examples),
        originals=tuple(e.original for e in examples if e.original is not None),
        original_valid=tuple(e.original_valid for e in examples if e.original_valid is not None),
        images=tuple(e.image for e in examples if e.image is not None),
        objects=tuple(e.objects for e in examples if e.objects is not None),
        late=tuple(example.late for example in examples if example.late is not None),
        rehearsal=_rehearsal(examples),
        dense={
            name: torch.stack([example.dense[name] for example in examples])
            for name in examples[0].dense
        },
    )


def _rehearsal(examples: Sequence[Example]) -> Question | None:
    """The rehearsal prompts of all images as one, if there are any."""
    parts = [example.rehearsal for example in examples if example.rehearsal is not None]
    if not parts:
        return None
    return Question(
        Prompts.cat([part.prompts.at(i) for i, part in enumerate(parts)]),
        torch.cat([part.targets for part in parts]),
        torch.cat([part.classes for part in parts]),
        tuple(original for part in parts for original in part.originals),
    )
