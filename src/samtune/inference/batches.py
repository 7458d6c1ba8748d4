"""Several images that answer prompts together: fitted whole, or each cut into tiles or crops."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from samtune.batch import Batch, inside
from samtune.errors import InputError
from samtune.geometry import Geometry
from samtune.inference.frames import EncodedFrames
from samtune.inference.prompted import PromptedImage
from samtune.model.finetuned import FineTuned
from samtune.prompts import Prompts


@dataclass(frozen=True)
class Answers:
    """A model's answers to the ``N`` prompts of a batch: the best mask of each.

    For a decoder of classes all masks count, because each pixel has one of the classes.
    """

    masks: list[Tensor]
    """Masks of each image, ``(n, h0, w0)`` bool on the CPU, in the original frame; one per class if
    the decoder gives classes."""
    low: Tensor
    """``(N, K, 4H, 4W)`` logits in the model's frame; with K = 1 they are fit for mask prompts."""
    scores: Tensor
    """``(N,)`` on the CPU: the decoder's own estimate of the IoU of each prompt's mask."""
    highest: Callable[[int], Tensor]
    """A function that returns, for image ``i``, the highest of all its prompts' logits
    ``(h0, w0)``, in the original frame; minus infinity without prompts. It computes them when
    called."""
    in_frame: Callable[[int], Tensor]
    """A function that returns, for image ``i``, the logits ``(n, K, h1, w1)`` in the model's frame
    without its padding. It computes them when called; for an image that is cut it raises
    ``InputError``."""


class PromptedBatch(Protocol):
    """Images that answer prompts."""

    def answer(self, prompts: Prompts, multimask: bool = False) -> Answers:
        """Answers prompts in the model's frame; with ``multimask``, the best of three masks."""
        ...


def prompted_batch(model: FineTuned, batch: Batch) -> PromptedBatch:
    """Encodes a batch's images by the model's input policy.

    Args:
        model: The model, in evaluation mode.
        batch: A batch in the model's frame; with
            ``images`` if they have to be cut.
    """
    return CutImages(model, batch) if batch.images else WholeImages(model, batch)


class WholeImages:
    """Images that are fitted whole into the model's frame, encoded and decoded together."""

    def __init__(self, model: FineTuned, batch: Batch) -> None:
        self.frames = EncodedFrames(model, batch.pixels, batch.geometries)

    @torch.no_grad()
    def answer(self, prompts: Prompts, multimask: bool = False) -> Answers:
        """Answers all prompts at once, see :class:`PromptedBatch`."""
        masks = self.frames.decode(prompts, multimask).best()
        low, geometries = masks.logits.float(), self.frames.geometries
        image = prompts.image.to(low.device)

        def in_original(i: int) -> Tensor:
            return self.frames.to_original(i, low[image == i])

        def in_frame(i: int) -> Tensor:
            return whole_frame(geometries[i]).masks_to_original(low[image == i])

        return Answers(
            [
                inside(in_original(i), masks.exclusive).flatten(0, 1).cpu()
                for i in range(len(geometries))
            ],
            low,
            masks.iou.float().amax(1).cpu(),
            lambda i: highest(in_original(i)),
            in_frame,
        )


class CutImages:
    """Images that are cut into tiles or crops, one after another."""

    def __init__(self, model: FineTuned, batch: Batch) -> None:
        self.images = [PromptedImage(model, image.numpy()) for image in batch.images]
        self.geometries = batch.geometries
        kind = model.device.type  # logits that are computed later have the same arithmetic
        self._arithmetic: dict[str, Any] = {
            "device_type": kind,
            "enabled": torch.is_autocast_enabled(kind),
            "dtype": torch.get_autocast_dtype(kind),
        }

    def answer(self, prompts: Prompts, multimask: bool = False) -> Answers:
        """Answers the prompts image by image, see :class:`PromptedBatch`."""
        asked = prompts.image.unique().tolist() or range(len(self.images))
        parts = {
            i: self.images[i].masks(self._in_original(prompts, i), multimask, best=True)
            for i in asked
        }
        nothing = [torch.zeros(0, *image.size, dtype=torch.bool) for image in self.images]

        def highest_of(i: int) -> Tensor:
            with torch.autocast(**self._arithmetic):
                return self._highest(i, self._in_original(prompts, i), multimask)

        return Answers(
            [parts[i][0].flatten(0, 1).cpu() if i in parts else m for i, m in enumerate(nothing)],
            torch.cat([low for _, _, low in parts.values()]),
            torch.cat([iou.float().amax(1).cpu() for _, iou, _ in parts.values()]),
            highest_of,
            _no_frame,
        )

    def _in_original(self, prompts: Prompts, i: int) -> Prompts:
        """The prompts of image ``i``, in its pixels."""
        of_image = prompts.only(prompts.image == i).at(0)
        return replace(of_image, coords=self.geometries[i].to_original(of_image.coords))

    def _highest(self, i: int, prompts: Prompts, multimask: bool) -> Tensor:
        """See :class:`Answers`; the prompts are answered one by one to save memory."""
        image = self.images[i]
        result = torch.full(image.size, -math.inf)
        for row in range(len(prompts)):
            masks, _ = image.answer(prompts.only(torch.tensor([row])), multimask)
            result = torch.maximum(result, highest(masks.best().logits.float()).cpu())
        return result


def highest(logits: Tensor) -> Tensor:
    """The highest of logits ``(n, K, h, w)`` at each pixel ``(h, w)``; minus infinity if n is 0."""
    if not len(logits):
        return torch.full(logits.shape[-2:], -math.inf)
    return logits.flatten(0, 1).amax(0)


def whole_frame(geometry: Geometry) -> Geometry:
    """The geometry of an image with the size of its content in the model's frame."""
    return replace(geometry, original=geometry.resized)


def _no_frame(i: int) -> Tensor:
    raise InputError(
        "eval.metrics: some are measured in the model's frame, which an image that is cut does not "
        "have; set input.tiles=whole or leave them out"
    )
