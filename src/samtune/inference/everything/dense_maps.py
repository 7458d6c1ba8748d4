"""The dense maps of an image: foreground and distances, at the size of the image.

A decoder of distances predicts all of them. Of another model that was trained without prompts, its
answer is the foreground, and no distances are known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samtune.inference.frames import EncodedFrames
from samtune.model.finetuned import FineTuned
from samtune.ops.tiling import Window, extent, starts, weights
from samtune.prompts import Prompts

ANSWER = "answer"
"""The name of a model's answer without a prompt among its maps."""


@dataclass(frozen=True)
class DenseMaps:
    """The maps of an image of ``h w`` pixels."""

    foreground: NDArray[np.float32]
    """``(h, w)``: the probability of an object."""
    centre: NDArray[np.float32] | None = None
    """``(h, w)``: the distance to the object's centre, 0 there and 1 where it is largest; ``None``
    if the model predicts no distances."""
    boundary: NDArray[np.float32] | None = None
    """``(h, w)``: the inverted distance to the object's boundary, near 1 there and 0 where it is
    largest; ``None`` like ``centre``."""
    classes: NDArray[np.int64] | None = None
    """``(h, w)``: the most likely class of an object at each pixel, if the decoder knows any."""

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        model: FineTuned,
        image: NDArray[np.uint8],
        progress: Callable[[int, int], None] | None = None,
    ) -> DenseMaps:
        """The maps of an image ``(h, w, 3)`` RGB.

        An image that the model's input policy cuts into tiles gets the weighted mean of the logits
        of its tiles, as the answers to prompts do.

        Args:
            model: In evaluation mode, with a decoder of distances, or trained without prompts.
            image: The image.
            progress: Called with the number of tiles that are done, and of all.
        """
        logits = dense_logits(model, image, progress)
        if ANSWER in logits:
            return cls(logits[ANSWER][0].sigmoid().cpu().numpy())
        foreground, centre, boundary = logits["distances"].sigmoid().cpu().numpy()
        of_classes = logits.get("object_classes")
        classes = None if of_classes is None else of_classes.argmax(0).cpu().numpy()
        return cls(foreground, centre, boundary, classes)


def dense_logits(
    model: FineTuned,
    image: NDArray[np.uint8],
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Tensor]:
    """The logits ``(C, h, w)`` of each dense map of a model, at the size of an image.

    A decoder without dense maps has one, :data:`ANSWER`.

    Args:
        model: In evaluation mode.
        image: ``(h, w, 3)`` RGB.
        progress: Called with the number of tiles that are done, and of all.
    """
    size = (image.shape[0], image.shape[1])
    policy = model.input
    if policy.tiles != "tiled":  # crops lie around prompts, of which there are none
        whole_image = _in_window(model, image, (0, 0, *size))
        if progress is not None:
            progress(1, 1)
        return whole_image
    tile = extent(policy.size, policy.scale, size)
    begins = [starts(n, t, policy.overlap) for n, t in zip(size, tile, strict=True)]
    down, across = (weights(n, t, b) for n, t, b in zip(size, tile, begins, strict=True))
    sums: dict[str, Tensor] = {}
    for i, y in enumerate(begins[0]):
        for j, x in enumerate(begins[1]):
            window = (y, x, y + tile[0], x + tile[1])
            for name, logits in _in_window(model, image, window).items():
                whole = sums.setdefault(name, logits.new_zeros(len(logits), *size))
                weight = down[i, y : window[2], None] * across[j, None, x : window[3]]
                whole[:, y : window[2], x : window[3]] += weight.to(logits) * logits
            if progress is not None:
                progress(i * len(begins[1]) + j + 1, len(begins[0]) * len(begins[1]))
    return sums


def _in_window(model: FineTuned, image: NDArray[np.uint8], window: Window) -> dict[str, Tensor]:
    """The logits ``(C, h, w)`` of each dense map in a window of an image."""
    frames = EncodedFrames.of_windows(model, image, [window])
    decoder = model.acting.decoder
    if decoder.dense_targets:
        maps = decoder.dense(frames.features)
    else:
        maps = {ANSWER: frames.decode(Prompts.of(count=1)).logits}
    return {name: frames.to_original(0, logits)[0] for name, logits in maps.items()}
