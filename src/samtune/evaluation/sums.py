"""The sums of one evaluation, kept image by image and gathered from all processes."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from samtune.data import SegmentationDataset
from samtune.distributed import place
from samtune.evaluation.uncertainty import Draws
from samtune.metrics.config import EvalConfig
from samtune.model.finetuned import FineTuned

if TYPE_CHECKING:
    from samtune.evaluation.image_results import MaskPairs
    from samtune.metrics import ImageResult, Suite
    from samtune.metrics.image_result import ResultInParts
    from samtune.metrics.per_image import PerImage, Resampling


class ImageSums:
    """Adds up the metrics of images, whose masks may come in several parts.

    Args:
        masks: IoU and Dice.
        suite: The other metrics.
    """

    def __init__(self, masks: PerImage, suite: Suite | None = None) -> None:
        self.masks, self.suite = masks, suite
        self._areas: dict[int, list[tuple[Tensor, Tensor]]] = {}
        """The areas of masks and their classes, of images that are not complete."""
        self._parts: dict[int, ResultInParts] = {}
        """The results of these images that the suite will receive."""

    def addition(
        self,
        place: int,
        pairs: MaskPairs,
        result: Callable[[Collection[str]], ImageResult],
        first: bool = True,
        complete: bool = True,
    ) -> Callable[[], Tensor | None]:
        """Prepares the addition of some or all masks of an image.

        All that reads files or asks the model is done at once; the function that is returned adds
        up, and may be called later, in order, in another thread.

        Args:
            place: The image's index in the data set; its masks come in order.
            pairs: The masks.
            result: Returns the same masks in the form that the suite takes, with its other inputs.
            first: Whether these are the first masks.
            complete: Whether these are the last masks.

        Returns:
            A function whose result are the pixels of overlap, prediction and target of all of the
            image's masks ``(N, 3)``, once it is complete.
        """
        image = None
        if self.suite is not None:
            # all of the foreground is read once
            image = result(self.suite.needs - (set() if first else {"whole"}))
        return partial(self._add, place, pairs, image, complete)

    def _add(
        self, place: int, pairs: MaskPairs, image: ImageResult | None, complete: bool
    ) -> Tensor | None:
        """The additions of :meth:`addition`."""
        from samtune.metrics import MaskMetrics
        from samtune.metrics.areas import areas_of
        from samtune.metrics.image_result import ResultInParts

        areas = areas_of(pairs.masks, pairs.targets, pairs.valid)
        parts = [*self._areas.pop(place, ()), (areas, pairs.classes)]
        if self.suite is not None and image is not None:
            earlier = self._parts.pop(place, None)
            if earlier is not None or not complete:
                earlier = earlier or ResultInParts()
                earlier.add(image)
            if complete:
                self.suite.update(earlier.whole_image() if earlier else image)
            elif earlier:
                self._parts[place] = earlier
        if not complete:
            self._areas[place] = parts
            return None
        areas, classes = (torch.cat(each) for each in zip(*parts, strict=True))
        counts = self.masks.metric
        assert isinstance(counts, MaskMetrics)
        self.masks.note(place, partial(counts.add, areas, classes))
        return areas


def counter_on(device: torch.device) -> PerImage:
    """An empty mask counter; over several processes it adds up their counts."""
    from samtune.metrics import MaskMetrics
    from samtune.metrics.per_image import PerImage

    _, world = place()
    metrics = MaskMetrics(sync_on_compute=world > 1)
    # Collectives need the sums on the model's device; a single process keeps them on the CPU.
    return PerImage(metrics.to(device) if world > 1 else metrics)


def suite_for(model: FineTuned, dataset: SegmentationDataset, config: EvalConfig) -> Suite | None:
    """The metrics besides IoU and Dice; ``None`` if there are none."""
    from samtune.metrics import Suite
    from samtune.metrics.contract import ALWAYS

    if not set(config.names) - set(ALWAYS):
        return None
    _, world = place()
    return Suite(
        config,
        maps=dataset.class_maps,
        classes=(dataset.data.classes or 2) if dataset.class_maps else 2,
        device=model.device if world > 1 else "cpu",
        sync=world > 1,
    )


def draws_of(masks: PerImage, suite: Suite | None, complete: bool = False) -> Draws:
    """The values needed for draws of the images of all processes.

    Args:
        masks: IoU and Dice.
        suite: The other metrics.
        complete: Whether this process has all images.
    """
    from samtune.metrics.per_image import Resampling

    def of(each: PerImage) -> Resampling:
        additions = each.additions if complete else gather_items(each.additions)
        return Resampling(each.metric, sorted(additions, key=lambda a: a.place))

    families = {} if suite is None else {name: of(each) for name, each in suite.per_image.items()}
    return Draws(of(masks), families, () if suite is None else suite.names)


def gather_items(items: list[Any]) -> list[Any]:
    """Gathers the items of all processes."""
    from torch import distributed

    _, world = place()
    if world == 1:
        return items
    parts: list[Any] = [None] * world
    distributed.all_gather_object(parts, items)
    return [item for part in parts for item in part]
