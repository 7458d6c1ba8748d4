"""Metrics, streamed: sums over any number of images, exact over processes, of any batch size.

Models and files do not belong here. :mod:`~samtune.metrics.contract` defines what each metric
means, :class:`~samtune.metrics.suite.Suite` computes a list of them. Modules that need torchmetrics
load on first use, which takes seconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from samtune.metrics.contract import GROUPS, MEASURES, METRIC_CONTRACT, contract, expand

if TYPE_CHECKING:
    from samtune.metrics.guesses import filled_box, inscribed_ellipse, whole_image
    from samtune.metrics.image_metric import ImageMetric
    from samtune.metrics.image_result import ImageResult, Seen
    from samtune.metrics.masks import MaskMetrics, iou_dice
    from samtune.metrics.suite import Suite

_HOMES = {
    "ImageMetric": "image_metric",
    "MaskMetrics": "masks",
    "Seen": "image_result",
    "ImageResult": "image_result",
    "Suite": "suite",
    "filled_box": "guesses",
    "inscribed_ellipse": "guesses",
    "whole_image": "guesses",
    "iou_dice": "masks",
}

__all__ = [
    "GROUPS",
    "MEASURES",
    "METRIC_CONTRACT",
    "ImageMetric",
    "ImageResult",
    "MaskMetrics",
    "Seen",
    "Suite",
    "contract",
    "expand",
    "filled_box",
    "inscribed_ellipse",
    "iou_dice",
    "whole_image",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'samtune.metrics' has no attribute {name!r}")
    return getattr(import_module(f"samtune.metrics.{_HOMES[name]}"), name)
