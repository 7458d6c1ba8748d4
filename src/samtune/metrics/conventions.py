"""IoU and Dice by the conventions of published systems, as their code computes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from samtune.metrics.areas import areas_of
from samtune.metrics.image_result import ImageResult, probability_of
from samtune.metrics.saliency import frame_of
from samtune.metrics.streamed import RowMetric, Rows, Streamed


class PooledForeground(Streamed):
    """CAT-SAM's "mIoU": the foreground's IoU over the pixels of all images.

    Args:
        **kwargs: torchmetrics' own options.
    """

    pixels: Tensor
    """``(3,)``: overlap, prediction and target."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_sums(pixels=(3,))

    def update(self, image: ImageResult) -> None:
        """Adds one image; its target is :attr:`ImageResult.whole` if that is set.

        For an image without prompts the prediction is :attr:`ImageResult.unasked`, if set.
        """
        predicted, target = image.union()
        if image.unasked is not None:
            predicted = image.unasked & image.counted()
        if image.whole is not None:
            target = image.whole & image.counted()
        self.pixels += areas_of(predicted[None], target[None], None)[0].to(self.pixels)

    def values(self, sums: Mapping[str, Tensor], rows: Rows | None = None) -> dict[str, Tensor]:
        """The metrics from R sums at once, see :meth:`Streamed.values`."""
        overlap, predicted, target = sums["pixels"].unbind(-1)
        return {"iou_cat_sam": overlap / (predicted + target - overlap + 1e-10)}


class SmoothedPerImage(Streamed):
    """IoU and Dice per image with 1e-3 above and below, as in Kyyle2114's code.

    Args:
        **kwargs: torchmetrics' own options.
    """

    sums: Tensor
    """``(3,)``: number of images, and their summed IoU and Dice."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_sums(sums=(3,))

    def update(self, image: ImageResult) -> None:
        """Adds one image."""
        predicted, target = image.union()
        overlap, p, t = areas_of(predicted[None], target[None], None)[0].double().unbind()
        iou = (overlap + 1e-3) / (p + t - overlap + 1e-3)
        dice = (2 * overlap + 1e-3) / (p + t + 1e-3)
        self.sums += torch.stack([torch.ones_like(iou), iou, dice]).to(self.sums.device)

    def values(self, sums: Mapping[str, Tensor], rows: Rows | None = None) -> dict[str, Tensor]:
        """The metrics from R sums at once, see :meth:`Streamed.values`."""
        count, iou, dice = sums["sums"].unbind(-1)
        return {"iou": iou / count, "dice": dice / count}


class AbsentClassIoU(Streamed):
    """Generalized SAM's mIoU, in the model's frame, in which an absent class scores nearly -1.

    Args:
        classes: Number of classes, including the background; 2 for single masks.
        **kwargs: torchmetrics' own options.
    """

    BATCH = 4
    """Images per batch of the published evaluation, which drops an incomplete last batch."""

    pixels: Tensor
    """``(2, classes, 3)``: overlap, prediction and target; for all images, and for full batches."""

    def __init__(self, classes: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_sums(pixels=(2, classes, 3))

    def update(self, image: ImageResult) -> None:
        """Adds one image.

        Raises:
            ValueError: No view of the model's frame, or no probability map of single masks.
        """
        view = frame_of(image)
        if view.mapped:
            assert view.classes is not None
            rows, areas = view.classes, view.areas()
        else:
            target = view.union()[1]
            both = torch.stack([probability_of(view).to(target.device) >= 0.5, target])
            rows = torch.arange(2)
            sides = torch.stack([~both, both])
            areas = areas_of(sides[:, 0], sides[:, 1], view.valid)
        kinds = [0] if image.index >= image.total - image.total % self.BATCH else [0, 1]
        for kind in kinds:
            self.pixels[kind].index_add_(0, rows.to(self.pixels.device), areas.to(self.pixels))

    def values(self, sums: Mapping[str, Tensor], rows: Rows | None = None) -> dict[str, Tensor]:
        """The metrics from R sums at once, see :meth:`Streamed.values`."""
        overlap, predicted, target = sums["pixels"].unbind(-1)  # R 2 classes
        hits = overlap + 1e-7
        means = (hits / (predicted + target - hits)).mean(-1)
        means = torch.where(sums["pixels"].sum((2, 3)) > 0, means, torch.nan)
        return dict(zip(("miou_gsam", "miou_gsam_dropped"), means.unbind(-1), strict=True))


class SoftClassIoU(RowMetric):
    """Generalized SAM's other mIoU: from probabilities instead of masks, batch by batch.

    Args:
        classes: Number of classes, including the background; 2 for single masks.
        **kwargs: torchmetrics' own options.
    """

    SMOOTH = 1e-7
    drawn_together = AbsentClassIoU.BATCH

    rows: Any
    """The batch of each image, and the sums of product and squares of each class, see
    :meth:`update`."""

    def __init__(self, classes: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.classes = classes
        self.fields = 1 + 3 * classes

    def update(self, image: ImageResult) -> None:
        """Adds one image, unless it belongs to an incomplete last batch.

        Raises:
            ValueError: No view of the model's frame, or no probabilities.
        """
        view = frame_of(image)
        if image.index >= image.total - image.total % AbsentClassIoU.BATCH:
            return
        shares, target = self._both(view)
        counted = view.counted().cpu()
        shares, target = shares.double() * counted, target & counted
        sums = [(shares * target).sum((1, 2)), (shares**2).sum((1, 2)), target.sum((1, 2))]
        batch = torch.tensor([image.index // AbsentClassIoU.BATCH])
        self.keep(torch.cat([batch, *sums]))

    def values(self, sums: Mapping[str, Tensor], rows: Rows | None = None) -> dict[str, Tensor]:
        """The metrics from R sums at once, see :meth:`Streamed.values`."""
        assert rows is not None
        _, which = rows.table[:, 0].unique(return_inverse=True)
        batches = int(which.max()) + 1 if len(which) else 0
        by_batch = torch.zeros(batches, 3 * self.classes).double()
        by_batch.index_add_(0, which, rows.table[:, 1:])
        overlap, predicted, target = by_batch.reshape(-1, 3, self.classes).unbind(1)
        means = (overlap + self.SMOOTH) / (predicted + target - overlap + self.SMOOTH)
        times = rows.times.new_zeros(len(rows.times), batches)
        times[:, which] = rows.times  # a batch is drawn as a whole
        return {"miou_gsam_soft": times @ means.mean(1) / times.sum(1)}

    def _both(self, view: ImageResult) -> tuple[Tensor, Tensor]:
        """Probability and target of each class: ``(classes, h, w)`` each."""
        if not view.mapped:
            inside, target = probability_of(view).cpu(), view.union()[1].cpu()
            return torch.stack([1 - inside, inside]), torch.stack([~target, target])
        if view.class_probabilities is None or view.classes is None:
            raise ValueError(
                "no class probabilities: give ImageResult(class_probabilities=...), the softmax of "
                "the logits"
            )
        target = torch.zeros(self.classes, *view.size, dtype=torch.bool)
        target[view.classes.cpu()] = view.target[:].cpu()
        return view.class_probabilities.cpu().expand(self.classes, -1, -1), target
