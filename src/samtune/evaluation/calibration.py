"""Thresholds and grid of masks of everything, fitted on images whose objects are known.

A model that was tuned expects other IoUs of its masks than SAM does, so SAM's thresholds keep too
much or nothing. Each grid is asked once; thresholds are then searched for one after another among
its answers, several times over, as each depends on the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from samtune.data import SegmentationDataset
from samtune.errors import InputError
from samtune.evaluation.automatic import instance_result
from samtune.inference.everything.config import EverythingConfig
from samtune.inference.everything.generator import MaskGenerator
from samtune.inference.everything.instances import Instances
from samtune.inference.everything.run_lengths import as_coco
from samtune.inference.everything.seams import Part
from samtune.metrics.config import EvalConfig
from samtune.model.finetuned import FineTuned
from samtune.precision import Precision

if TYPE_CHECKING:
    from samtune.metrics.instance_result import InstanceResult

METRICS = ("msa", "ap")
"""Metrics that can be fitted for: those of cell segmentation and of COCO."""
GRIDS = (16, 32)
"""Points on a side that are tried."""
ALIKE = 0.01
"""A finer grid is taken only if it is better by more than this, since it takes longer."""
ROUNDS = 4
"""How often each threshold is searched for, at most; less if all stay as they are."""
QUANTILES = np.linspace(0.05, 0.95, 10)
"""The expected IoUs of all answers at which it is cut."""
VALUES: dict[str, tuple[float, ...]] = {
    "stability_score_thresh": (0.0, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.88, 0.91, 0.95),
    "box_nms_thresh": (0.1, 0.2, 0.3, 0.5, 0.7, 0.9),
    "mask_nms_thresh": (0.1, 0.3, 0.5, 0.7, 1.0),
}
"""The thresholds that are tried besides those of the expected IoU."""

LOOSE: tuple[tuple[str, ...], ...] = (
    ("pred_iou_thresh",),
    ("stability_score_thresh",),
    ("pred_iou_thresh", "stability_score_thresh"),
)
"""Thresholds that the search may begin without."""

Answers = list[list[Part]]
"""For each image the candidates of its windows."""


@dataclass(frozen=True)
class Calibration:
    """Settings that were fitted, and the images on which they were."""

    settings: dict[str, Any]
    """The grid and the thresholds."""
    metric: str
    """The metric for which they are best."""
    value: float
    """Its value with them."""
    default: float
    """Its value with SAM's thresholds and grid."""
    images: int
    objects: int
    """Annotated objects of all images."""
    curves: dict[str, list[tuple[float, float]]]
    """By setting, its values and those of the metric, with the others as they were fitted."""

    def entry(self, **others: Any) -> dict[str, Any]:
        """The entry of a checkpoint's header.

        Args:
            **others: What is said of the images besides their number.
        """
        return {**vars(self), **others}


def calibrate(
    model: FineTuned,
    dataset: SegmentationDataset,
    metric: str = "msa",
    *,
    grids: Sequence[int] = GRIDS,
    precision: Precision = "fp32",
    progress: Callable[[int, int], None] | None = None,
    **fixed: Any,
) -> Calibration:
    """Fits grid and thresholds of :class:`samtune.MaskGenerator` on a data set.

    Args:
        model: It is put into evaluation mode.
        dataset: Images with their objects, in evaluation.
        metric: ``msa`` or ``ap``.
        grids: Points on a side that are tried.
        precision: Arithmetic of the forward pass.
        progress: Called with the number of images that are done, of all grids, and of all.
        **fixed: Settings of the generator that are not fitted.

    Raises:
        InputError: Another metric, no images or objects, or a model that cannot be asked.
    """
    check_metric(metric)
    if not len(dataset):
        raise InputError("everything: there are no images to fit thresholds on; give some")
    search = _Search(model, dataset, metric, precision, fixed)
    total = len(dataset) * len(grids)
    done = iter(range(1, total + 1))

    def one_more() -> None:
        number = next(done)
        if progress is not None:
            progress(number, total)

    results = [search.of_grid(side, one_more) for side in sorted(grids)]
    if not search.objects:
        raise InputError(
            f"everything: no object on {len(dataset)} images, so there is nothing to fit "
            "thresholds on; give images with objects"
        )
    best = max(result.value for result in results)
    chosen = next(result for result in results if result.value >= best - ALIKE)
    curve = [(float(side), r.value) for side, r in zip(sorted(grids), results, strict=True)]
    return replace(
        chosen,
        default=results[-1].default,
        curves={"points_per_side": curve, **chosen.curves},
    )


def check_metric(metric: str) -> None:
    """Refuses a metric that cannot be fitted for.

    Raises:
        InputError: With those that can.
    """
    if metric not in METRICS:
        raise InputError(f"everything.fit={metric}: must be one of {', '.join(METRICS)}")


class _Search:
    """The search for thresholds on one data set."""

    def __init__(
        self,
        model: FineTuned,
        dataset: SegmentationDataset,
        metric: str,
        precision: Precision,
        fixed: dict[str, Any],
    ) -> None:
        self.model, self.dataset, self.metric = model, dataset, metric
        self.precision, self.fixed = precision, fixed
        self.targets = [_targets(dataset, i) for i in range(len(dataset))]
        self.objects = sum(len(image.target) for image in self.targets)

    def of_grid(self, side: int, one_more: Callable[[], None]) -> Calibration:
        """The best thresholds for one grid."""
        loose = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, **self.fixed}
        generator = MaskGenerator(
            self.model, precision=self.precision, **{**loose, "points_per_side": side}
        )
        answers: Answers = []
        for i in range(len(self.dataset)):
            answers.append(generator.candidates(self.dataset.sample(i).image))
            one_more()
        values = {"pred_iou_thresh": _levels(answers), **VALUES}
        values = {name: values[name] for name in values if name not in self.fixed}
        start = replace(EverythingConfig(**self.fixed), points_per_side=side)
        default = best = self.value(generator, answers, start)
        config, curves = start, dict[str, list[tuple[float, float]]]()
        for loose_names in LOOSE:  # SAM's own may leave nothing, whichever one of them is changed
            zeros: dict[str, Any] = {name: 0.0 for name in loose_names if name in values}
            change = replace(start, **zeros)
            if (score := self.value(generator, answers, change)) > best:
                config, best = change, score
        for _ in range(ROUNDS):
            before = config
            for name, levels in values.items():
                tried = sorted({*levels, getattr(config, name)})
                changes = (replace(config, **{name: value}) for value in tried)
                scores = [self.value(generator, answers, change) for change in changes]
                curves[name] = list(zip(tried, scores, strict=True))
                if max(scores) > best:
                    best = max(scores)
                    config = replace(config, **{name: tried[scores.index(best)]})
            if config == before:
                break
        names = ("points_per_side", *values)
        settings = {name: getattr(config, name) for name in names} | self.fixed
        return Calibration(
            settings, self.metric, best, default, len(self.dataset), self.objects, curves
        )

    def value(self, generator: MaskGenerator, answers: Answers, config: EverythingConfig) -> float:
        """The metric of the instances that some settings choose; 0 if it has no value."""
        from samtune.metrics import Suite

        suite = Suite(EvalConfig(metrics=(self.metric,)))
        chosen = generator.with_config(config)
        for parts, image in zip(answers, self.targets, strict=True):
            suite.update(_beside(chosen.choose(parts), image))
        value = float(suite.compute()[self.metric])
        return value if np.isfinite(value) else 0.0


def _levels(answers: Answers) -> tuple[float, ...]:
    """Expected IoUs between which the answers fall, from 0 to below 1."""
    scores = np.concatenate([part.scores for parts in answers for _, part in parts])
    inner = scores[(scores > 0) & (scores < 1)]
    levels = np.quantile(inner, QUANTILES) if len(inner) else np.zeros(0)
    return (0.0, *sorted({round(float(v), 3) for v in levels}))


def _targets(dataset: SegmentationDataset, index: int) -> InstanceResult:
    """The objects of an image, without any mask."""
    sample = dataset.sample(index)
    size = (sample.image.shape[0], sample.image.shape[1])
    return instance_result(dataset, sample, Instances.none(size), index)


def _beside(instances: Instances, image: InstanceResult) -> InstanceResult:
    """Instances beside the objects of their image."""
    masks = [as_coco(counts, instances.size) for counts in instances.counts]
    return replace(image, predicted=masks, scores=instances.scores.astype(np.float64))
