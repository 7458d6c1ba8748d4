"""Balanced error rate, for shadows and any other foreground."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from samtune.metrics.image_result import ImageResult, probability_of
from samtune.metrics.saliency import frame_of
from samtune.metrics.streamed import Rows, Streamed


class BalancedError(Streamed):
    """Balanced error rate, pooled and per image, as fractions.

    It is the mean of the fraction of the foreground that is missed and the fraction of the
    background that is predicted as foreground, for the union of an image's masks.

    Args:
        threshold: Probability above which a pixel is foreground, in the model's frame; an image
            without foreground or without background then gives NaN. By default the masks are used
            as they are, and for such an image only the other error counts.
        **kwargs: torchmetrics' own options.
    """

    pixels: Tensor
    """``(4,)``: foreground missed and in all, background predicted as foreground and in all."""
    images: Tensor
    """``(2,)``: number of images, and their summed error."""

    def __init__(self, threshold: float | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.threshold = threshold
        self.add_sums(pixels=(4,), images=(2,))

    def update(self, image: ImageResult) -> None:
        """Adds one image.

        Raises:
            ValueError: A threshold is set, and the probability map or the view of the model's frame
                is missing.
        """
        if self.threshold is not None:
            image = frame_of(image)
        predicted, target = (m.cpu() for m in image.union())
        counted = image.counted().cpu()
        if self.threshold is not None:
            predicted = (probability_of(image).cpu() > self.threshold) & counted
        lit = counted & ~target
        sides = [target & ~predicted, target, lit & predicted, lit]
        pixels = torch.stack([side.sum() for side in sides]).double()
        self.pixels += pixels.to(self.pixels.device)
        if counted.any():
            error = _balanced(pixels, strict=self.threshold is not None)
            self.images += torch.stack([torch.ones_like(error), error]).to(self.images.device)

    def values(self, sums: Mapping[str, Tensor], rows: Rows | None = None) -> dict[str, Tensor]:
        """The metrics from R sums at once, see :meth:`Streamed.values`."""
        pixels, (count, total) = sums["pixels"], sums["images"].unbind(-1)
        return {
            "ber": _balanced(pixels, strict=False),
            "ber_per_image": total / count,
            "shadow_error": pixels[:, 0] / pixels[:, 1],
            "lit_error": pixels[:, 2] / pixels[:, 3],
        }


def _balanced(pixels: Tensor, strict: bool) -> Tensor:
    errors = pixels[..., ::2] / pixels[..., 1::2]
    return errors.mean(-1) if strict else errors.nanmean(-1)
