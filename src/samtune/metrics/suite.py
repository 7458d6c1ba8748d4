"""Computes the requested metrics together, each family of them once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from samtune.metrics.boundaries import BoundaryMetrics
from samtune.metrics.config import EvalConfig
from samtune.metrics.contract import ALWAYS, MEASURES, expand
from samtune.metrics.conventions import (
    AbsentClassIoU,
    PooledForeground,
    SmoothedPerImage,
    SoftClassIoU,
)
from samtune.metrics.image_result import ImageResult
from samtune.metrics.instance_result import InstanceResult
from samtune.metrics.instances import AveragePrecision, InstanceScores
from samtune.metrics.per_image import PerImage
from samtune.metrics.regions import RegionMetrics
from samtune.metrics.saliency import SaliencyMetrics
from samtune.metrics.shadow import BalancedError
from samtune.metrics.streamed import Streamed

Maker = Callable[[list[str], EvalConfig, int, dict[str, Any]], Streamed]

FAMILIES: dict[str, Maker] = {
    "regions": lambda keys, s, classes, kw: RegionMetrics(**kw),
    "boundaries": lambda keys, s, classes, kw: BoundaryMetrics(
        keys, s.boundary_ratio, s.nsd_tolerance, **kw
    ),
    "saliency": lambda keys, s, classes, kw: SaliencyMetrics(keys, **kw),
    "saliency_framed": lambda keys, s, classes, kw: SaliencyMetrics(
        keys, weighted_beta2=0.3, undefined="zero", in_frame=True, **kw
    ),
    "shadow": lambda keys, s, classes, kw: BalancedError(**kw),
    "shadow_framed": lambda keys, s, classes, kw: BalancedError(125 / 255, **kw),
    "precision": lambda keys, s, classes, kw: AveragePrecision(**kw),
    "matches": lambda keys, s, classes, kw: InstanceScores(keys, **kw),
    "pooled": lambda keys, s, classes, kw: PooledForeground(**kw),
    "smoothed": lambda keys, s, classes, kw: SmoothedPerImage(**kw),
    "gsam": lambda keys, s, classes, kw: AbsentClassIoU(classes=classes, **kw),
    "gsam_soft": lambda keys, s, classes, kw: SoftClassIoU(classes=classes, **kw),
}
"""Constructors of the families, from their keys, the settings and the number of classes; IoU and
Dice are :class:`~samtune.metrics.masks.MaskMetrics`, which evaluation always computes."""


def family_metric(
    family: str, keys: list[str], config: EvalConfig, classes: int, options: dict[str, Any]
) -> Streamed:
    """The streaming metric of a family; of another package's it is the one that it brings."""
    if family in FAMILIES:
        return FAMILIES[family](keys, config, classes, options)
    made_by = MEASURES[family].made_by
    assert made_by is not None, family
    return made_by(**options)


class Suite:
    """Several metrics over the same images.

    Args:
        config: The metrics and their settings; those that every evaluation has are left to it.
        maps: Whether the data are maps of classes.
        classes: Number of classes, including the background; 2 for single masks.
        device: Device of the sums.
        sync: Whether ``compute`` adds up over processes.

    Raises:
        InputError: A name is unknown, a metric is undefined for maps of classes, or a package is
            missing.
    """

    def __init__(
        self,
        config: EvalConfig,
        *,
        maps: bool = False,
        classes: int = 2,
        device: torch.device | str = "cpu",
        sync: bool = False,
    ) -> None:
        asked = expand(config.metrics, maps=maps)
        self.names = tuple(name for name in asked if name not in ALWAYS)
        self.needs = frozenset(need for name in self.names for need in MEASURES[name].needs)
        """The fields that :class:`ImageResult` must have besides masks."""
        keys: dict[str, list[str]] = {}
        for name in self.names:
            keys.setdefault(MEASURES[name].family, []).append(MEASURES[name].key)
        options: dict[str, Any] = {"sync_on_compute": sync}
        self.families = {
            family: family_metric(family, names, config, classes, options).to(device)
            for family, names in keys.items()
        }
        self.per_image = {family: PerImage(metric) for family, metric in self.families.items()}
        """The additions of each image to each family."""

    def update(self, image: ImageResult | InstanceResult) -> None:
        """Adds one image; of instances alone, if all metrics are of instances."""
        for family in self.per_image.values():
            family.update(image.index, image)

    def compute(self) -> dict[str, float]:
        """The metrics so far, over all processes, by name."""
        found = {family: metric.compute() for family, metric in self.families.items()}
        return {name: found[MEASURES[name].family][MEASURES[name].key] for name in self.names}
