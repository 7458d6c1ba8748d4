"""IoU and Dice averaged in other ways: over images, over classes, by the size of the target."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from samtune.metrics.image_result import ImageResult
from samtune.metrics.masks import areas_of, scores_of

AREAS = (32**2, 96**2)
"""Pixels from which a target is medium and large, as COCO has them."""
SHARES = (0.01, 0.1)
"""Parts of the image from which a target is medium and large."""


class Streamed(Metric):
    """A metric over images, of which any process may see none."""

    full_state_update: bool = False
    is_differentiable: bool = False

    @property
    def update_called(self) -> bool:
        """Always true: a process whose share of the data is empty is no reason to warn."""
        return True

    def add_sums(self, **shapes: tuple[int, ...]) -> None:
        """Adds float64 states that are summed over processes."""
        for name, shape in shapes.items():
            zeros = torch.zeros(shape, dtype=torch.float64)
            self.add_state(name, zeros, dist_reduce_fx="sum")


class RowMetric(Streamed):
    """A metric that keeps rows of a few numbers instead of sums.

    Args:
        **kwargs: torchmetrics' own options.
    """

    rows: Any
    """List of flattened rows, float64."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("rows", [], dist_reduce_fx="cat")

    def keep(self, row: Tensor) -> None:
        """Adds a row ``(fields,)``."""
        self.rows.append(row.to(self.device, torch.float64))

    def table(self, fields: int) -> Tensor:
        """All rows so far, ``(n, fields)`` float64 on the CPU."""
        rows = dim_zero_cat(self.rows) if len(self.rows) else torch.zeros(0)
        return rows.cpu().double().reshape(-1, fields)

    def _sync_dist(
        self, dist_sync_fn: Callable[..., Any] | None = None, process_group: Any = None
    ) -> None:
        # Gathering needs one dtype of all, and what is empty would come as float32.
        if not self.rows:
            self.rows = [torch.zeros(0, dtype=torch.float64, device=self.device)]
        given = {} if dist_sync_fn is None else {"dist_sync_fn": dist_sync_fn}
        super()._sync_dist(process_group=process_group, **given)


class RegionMetrics(Streamed):
    """IoU and Dice per image, per class and by size, and mIoU with and without background.

    What is averaged over what stands in :mod:`samtune.metrics.contract`.

    Args:
        max_classes: One more than the highest class index.
        **kwargs: torchmetrics' own options.
    """

    images: Tensor
    """``(3,)``: how many images, and their summed IoU and Dice."""
    classes: Tensor
    """``(max_classes, 3)``: masks of each class, and their summed IoU and Dice."""
    pixels: Tensor
    """``(max_classes + 1, 3)``: overlap, prediction and target of each class; the last row is the
    background where no class is."""
    background: Tensor
    """``(max_classes,)``: not 0 for the class that is the background."""
    sizes: Tensor
    """``(2, 3, 2)``: by area and by share, small to large: masks and summed IoU."""

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
        areas = areas_of(image.predicted, image.target, image.valid)
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
                self.background[image.background] = 1
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
            # a target on a bound is of the larger kind
            edges = torch.tensor(bounds, dtype=torch.float64)
            bins = torch.bucketize(size[there], edges, right=True).to(self.sizes.device)
            self.sizes[kind].index_add_(0, bins, values)

    def compute(self) -> dict[str, float]:
        """The numbers so far, over all processes; NaN where there was nothing to average."""
        count, *sums = self.images.cpu().tolist()
        scores = {
            f"{key}_per_image": total / count if count else math.nan
            for key, total in zip(("iou", "dice"), sums, strict=True)
        }
        classes = self.classes.cpu()
        means = classes[classes[:, 0] > 0]
        means = (means[:, 1:] / means[:, :1]).mean(0)
        scores |= {"iou_by_class": float(means[0]), "dice_by_class": float(means[1])}
        pixels = self.pixels.cpu()
        met = pixels[:, 1:].sum(1) > 0
        iou = scores_of(pixels)[0]
        foreground = met.clone()
        foreground[-1] = False
        foreground[:-1] &= self.background.cpu() == 0
        scores |= {"miou": float(iou[met].mean()), "miou_foreground": float(iou[foreground].mean())}
        names = [f"iou_{kind}{size}" for kind in ("", "share_") for size in _SIZES]
        for name, (n, total) in zip(names, self.sizes.cpu().reshape(-1, 2).tolist(), strict=True):
            scores[name] = total / n if n else math.nan
        return scores


_SIZES = ("small", "medium", "large")
