"""The settings of evaluation; each docstring is the help text."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated

from samtune.metrics.contract import MEASURES, expand
from samtune.options import PositiveFraction, Range, Settings, setting


@dataclass(frozen=True)
class EvalConfig(Settings):
    """The metrics of an evaluation besides IoU and Dice, which are always measured."""

    section = "eval"
    elsewhere = MappingProxyType(
        {
            name: f"is an argument of evaluate itself, as in samtune.evaluate(..., {name}=...)"
            for name in ("prompts", "batch_size", "precision", "workers", "multimask")
        }
    )

    metrics: tuple[str, ...] = ("iou", "dice")
    """Metrics, or groups of them: regions, boundaries, saliency, shadow, instances, published;
    samtune metrics lists them all."""
    boundary_ratio: PositiveFraction = setting(0.02, level="expert")
    """Width of boundary IoU's bands as a fraction of the image's diagonal."""
    nsd_tolerance: Annotated[float, Range(at_least=0, note=" pixels")] = setting(
        2.0, level="expert"
    )
    """Greatest distance, in pixels, at which surfaces agree in the surface Dice."""

    memory: Annotated[int, Range(at_least=1, note=" bytes")] = setting(2**30, level="expert")
    """Bytes that the answers to an image's prompts may take at once; more objects are processed in
    several passes. It does not change results."""

    def take_parts(self) -> None:
        """Accepts classes among the metrics, and their places, see :class:`Settings`."""
        metrics = (self.metrics,) if isinstance(self.metrics, type) else self.metrics
        if isinstance(metrics, list | tuple):
            metrics = tuple(MEASURES.outside.typed(each) for each in metrics)
        elif isinstance(metrics, str):
            metrics = MEASURES.outside.typed(metrics)
        object.__setattr__(self, "metrics", metrics)

    def check_together(self) -> None:
        """Refuses names of metrics that do not exist."""
        expand(self.metrics)

    @property
    def names(self) -> tuple[str, ...]:
        """The single metrics, with groups resolved."""
        return expand(self.metrics)
