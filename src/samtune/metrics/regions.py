"""IoU and Dice with other averages: over images, over classes, by the size of the target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from samtune.metrics.areas import areas_of, scores_of
from samtune.metrics.image_result import ImageResult
from samtune.metrics.streamed import Rows, Streamed

AREAS = (32**2, 96**2)
"""Pixels from which a target is medium and large, as in COCO."""
SHARES = (0.01, 0.1)
"""Fractions of the image from which a target is medium and large."""


class RegionMetrics(Streamed):
    """IoU and Dice per image, per class and by size, and mIoU with and without background.

    :mod:`samtune.metrics.contract` defines the averages.

    Args:
        max_classes: Number of class indices: one more than the highest.
        **kwargs: torchmetrics' own options.
    """

    class_states = ("classes", "pixels", "background")

    images: Tensor
    """``(3,)``: number of images, and their summed IoU and Dice."""
    classes: Tensor
    """``(max_classes, 3)``: masks of each class, and their summed IoU and Dice."""
    pixels: Tensor
    """``(max_classes + 1, 3)``: overlap, prediction and target of each class; the last row is the
    background if no class is."""
    background: Tensor
    """``(max_classes,)``: number of images whose background is this class."""
    sizes: Tensor
    """``(2, 3, 2)``: by area and by fraction of the image, small to large: masks and summed IoU."""

    def __init__(self, max_classes: int = 1024, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_classes = max_classes
        self.add_sums(
            images=(3,),
            classes=(max_classes, 3),
            pixels=(max_classes + 1, 3),
            sizes=(2, 3, 2),
            background=(max_classes,),
        )

    def update(self, image: ImageResult) -> None:
        """Adds one image.

        Raises:
            ValueError: A class out of range.
        """
        areas = image.areas()
        scores = torch.stack(scores_of(areas), 1)
        rows = torch.zeros(len(areas), dtype=torch.long)
        rows = rows if image.classes is None else image.classes.long()
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < self.max_classes:
            raise ValueError(f"classes {rows.tolist()} must lie in 0 to {self.max_classes - 1}")
        where = self.images.device
        if len(areas):
            self.images += torch.cat([torch.ones(1), scores.mean(0)]).to(where)
        ones = torch.ones(len(areas), 1)
        self.classes.index_add_(0, rows.to(where), torch.cat([ones, scores], 1).to(where))
        self.pixels.index_add_(0, rows.to(where), areas.double().to(where))
        if image.mapped:
            if image.background is not None:
                self.background[image.background] += 1
        else:
            outside = torch.stack([~mask for mask in image.union()])[:, None]
            self.pixels[-1] += areas_of(outside[0], outside[1], image.valid)[0].to(where)
        self._add_sizes(areas[:, 2], scores[:, 0], int(image.counted().sum()))

    def _add_sizes(self, target: Tensor, iou: Tensor, pixels: int) -> None:
        there = target > 0
        values = torch.stack([torch.ones_like(iou), iou], 1)[there].to(self.sizes.device)
        for kind, (size, bounds) in enumerate(
            ((target.double(), AREAS), (target.double() / max(pixels, 1), SHARES))
        ):
            # a target exactly on a bound belongs to the larger size
            edges = torch.tensor(bounds, dtype=torch.float64)
            bins = torch.bucketize(size[there], edges, right=True).to(self.sizes.device)
            self.sizes[kind].index_add_(0, bins, values)

    def values(self, sums: Mapping[str, Tensor], rows: Rows | None = None) -> dict[str, Tensor]:
        """The metrics from R sums at once, ``(R,)`` float64 each; NaN for an empty average.

        Args:
            sums: By state ``(R, ...)`` on the CPU, over any images.
            rows: Unused, because the metric keeps no rows.
        """
        images, classes, pixels = sums["images"], sums["classes"], sums["pixels"]
        scores = {f"{key}_per_image": images[:, k] / images[:, 0] for k, key in KEYS}
        of_classes = classes[..., 1:] / classes[..., :1]  # 0 of 0 is NaN, and left out
        scores |= {f"{key}_by_class": of_classes[..., k - 1].nanmean(-1) for k, key in KEYS}
        iou = scores_of(pixels)[0]
        iou = torch.where(pixels[..., 1:].sum(-1) > 0, iou, torch.nan)
        foreground = torch.where(sums["background"] == 0, iou[:, :-1], torch.nan)
        scores |= {"miou": iou.nanmean(-1), "miou_foreground": foreground.nanmean(-1)}
        names = [f"iou_{kind}{size}" for kind in ("", "share_") for size in _SIZES]
        sizes = sums["sizes"].flatten(1, 2)  # R 6 2
        return scores | {name: sizes[:, k, 1] / sizes[:, k, 0] for k, name in enumerate(names)}


KEYS = ((1, "iou"), (2, "dice"))
"""Columns of summed scores, and their names."""
_SIZES = ("small", "medium", "large")
