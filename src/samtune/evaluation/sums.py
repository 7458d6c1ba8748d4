"""The sums of one evaluation: kept image by image, and gather_items from all processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from samtune.data import SegmentationDataset
from samtune.distributed import place
from samtune.evaluation.uncertainty import Draws
from samtune.metrics.config import EvalConfig
from samtune.model.finetuned import FineTuned

if TYPE_CHECKING:
    from samtune.metrics import Suite
    from samtune.metrics.per_image import PerImage, Resampling


def counter_on(device: torch.device) -> PerImage:
    """An empty count of masks; over several processes it adds up all of theirs."""
    from samtune.metrics import MaskMetrics
    from samtune.metrics.per_image import PerImage

    _, world = place()
    metrics = MaskMetrics(sync_on_compute=world > 1)
    # Collectives need the sums where the model is; alone they stay on the CPU.
    return PerImage(metrics.to(device) if world > 1 else metrics)


def suite_for(model: FineTuned, dataset: SegmentationDataset, config: EvalConfig) -> Suite | None:
    """The metrics besides those of every evaluation; ``None`` if there are none."""
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
    """What is needed for draws of the images of all processes.

    Args:
        masks: IoU and Dice.
        suite: The other metrics.
        complete: This process has the images of all of them.
    """
    from samtune.metrics.per_image import Resampling

    def of(each: PerImage) -> Resampling:
        additions = each.additions if complete else gather_items(each.additions)
        return Resampling(each.metric, sorted(additions, key=lambda a: a.place))

    families = {} if suite is None else {name: of(each) for name, each in suite.per_image.items()}
    return Draws(of(masks), families, () if suite is None else suite.names)


def gather_items(items: list[Any]) -> list[Any]:
    """Those of all processes."""
    from torch import distributed

    _, world = place()
    if world == 1:
        return items
    parts: list[Any] = [None] * world
    distributed.all_gather_object(parts, items)
    return [item for part in parts for item in part]
