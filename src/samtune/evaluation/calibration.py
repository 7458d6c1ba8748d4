"""Settings of automatic modes, fitted on images whose objects are known.

A model that was tuned expects other IoUs of its masks than SAM does, so SAM's thresholds keep too
much or nothing; and the foreground of a short training is wider, or narrower, than its objects.
Each image is asked once, and with a grid of points once for each grid; thresholds are then searched
for one after another among the answers, several times over, as each depends on the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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
from samtune.inference.everything.watershed import (
    WatershedConfig,
    WatershedGenerator,
    has_distances,
)
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

OF_WATERSHED: dict[str, tuple[float, ...]] = {
    "foreground": (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    "centre": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0),
    "boundary": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    "neck": (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0),
    "smoothing": (0.0, 0.5, 1.0, 1.5, 2.0, 3.0),
    "min_area": (0, 10, 20, 40, 80, 160),
    "overlap": (0.1, 0.3, 0.5, 0.7, 0.9),
}
"""The settings of the watershed that are tried, as far as they have an effect."""
IMAGES = 50
"""Images on which the watershed is fitted, at most, evenly spread: it is repeated for every value
that is tried, and their maps are held in memory."""
GRID_IMAGES = 20
"""The same for a grid of points, which takes seconds for each image."""


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
    """Its value with the usual settings: SAM's thresholds and grid, or those of the watershed."""
    images: int
    """Number of images on which they were fitted."""
    objects: int
    """Annotated objects of these images."""
    curves: dict[str, list[tuple[float, float]]]
    """Values of each setting and of the metric, with the other settings as they were fitted."""

    def entry(self, **others: Any) -> dict[str, Any]:
        """The entry of a checkpoint's header.

        Args:
            **others: Entries about the images besides their number.
        """
        return {**vars(self), **others}


def calibrate(
    model: FineTuned,
    dataset: SegmentationDataset,
    metric: str = "msa",
    *,
    grids: Sequence[int] = GRIDS,
    images: int = GRID_IMAGES,
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
        images: Number of images, at most; of more so many are taken, evenly spread.
        precision: Arithmetic of the forward pass.
        progress: Called with the number of images that are done, of all grids, and of all.
        **fixed: Settings of the generator that are not fitted.

    Raises:
        InputError: Another metric, no images or objects, or a model that cannot answer.
    """
    check_metric(metric)
    rows = rows_to_fit_on(len(dataset), images)
    search = _Search(model, dataset, rows, metric, precision, fixed)
    total = len(rows) * len(grids)
    done = iter(range(1, total + 1))

    def one_more() -> None:
        number = next(done)
        if progress is not None:
            progress(number, total)

    results = [search.of_grid(side, one_more) for side in sorted(grids)]
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


def calibrate_watershed(
    model: FineTuned,
    dataset: SegmentationDataset,
    metric: str = "msa",
    *,
    images: int = IMAGES,
    precision: Precision = "fp32",
    progress: Callable[[int, int], None] | None = None,
    **fixed: Any,
) -> Calibration:
    """Fits the settings of :class:`samtune.WatershedGenerator` on a data set.

    Args:
        model: It is put into evaluation mode.
        dataset: Images with their objects, in evaluation.
        metric: ``msa`` or ``ap``.
        images: Number of images, at most; of more so many are taken, evenly spread.
        precision: Arithmetic of the forward pass.
        progress: Called with the number of images that are done, and of all.
        **fixed: Settings of the generator that are not fitted.

    Raises:
        InputError: See :func:`calibrate`.
    """
    check_metric(metric)
    start = WatershedConfig(**fixed)
    generator = WatershedGenerator(model, precision=precision, **fixed).with_config(start)
    rows = rows_to_fit_on(len(dataset), images)
    measure = _Measure(dataset, rows, metric)
    answers = []
    for done, index in enumerate(rows, 1):
        answers.append(generator.candidates(dataset.sample(index).image))
        if progress is not None:
            progress(done, len(rows))
    unused = {"neck"} if has_distances(model) else {"centre", "boundary"}
    unused |= {"overlap"} if start.answer != "prompts" else set()
    values = {name: v for name, v in OF_WATERSHED.items() if name not in {*unused, *fixed}}

    def value_of(config: Any) -> float:
        chosen = generator.with_config(config)
        return measure.value(chosen.choose(answer) for answer in answers)

    default = value_of(start)
    config, best, curves = _searched(start, default, values, value_of)
    settings = {name: getattr(config, name) for name in values} | fixed
    return Calibration(settings, metric, best, default, len(rows), measure.objects, curves)


class _Measure:
    """The metric of instances on some images of a data set.

    Raises:
        InputError: There are no images, or no objects on them.
    """

    def __init__(self, dataset: SegmentationDataset, rows: Sequence[int], metric: str) -> None:
        if not len(rows):
            raise InputError("everything: there are no images to fit thresholds on; give some")
        self.metric = metric
        self.targets = [_targets(dataset, i) for i in rows]
        self.objects = sum(len(image.target) for image in self.targets)
        if not self.objects:
            raise InputError(
                f"everything: no object on {len(rows)} images, so there is nothing to fit "
                "thresholds on; give images with objects"
            )

    def value(self, instances: Iterable[Instances]) -> float:
        """The metric, of the instances of each image; 0 if it has no value."""
        from samtune.metrics import Suite

        suite = Suite(EvalConfig(metrics=(self.metric,)))
        for each, image in zip(instances, self.targets, strict=True):
            suite.update(_beside(each, image))
        value = float(suite.compute()[self.metric])
        return value if np.isfinite(value) else 0.0


class _Search:
    """The search for thresholds of a grid of points on one data set."""

    def __init__(
        self,
        model: FineTuned,
        dataset: SegmentationDataset,
        rows: Sequence[int],
        metric: str,
        precision: Precision,
        fixed: dict[str, Any],
    ) -> None:
        self.model, self.dataset, self.rows, self.metric = model, dataset, rows, metric
        self.precision, self.fixed = precision, fixed
        self.measure = _Measure(dataset, rows, metric)

    def of_grid(self, side: int, one_more: Callable[[], None]) -> Calibration:
        """The best thresholds for one grid."""
        loose = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, **self.fixed}
        generator = MaskGenerator(
            self.model, precision=self.precision, **{**loose, "points_per_side": side}
        )
        answers: list[list[Part]] = []
        for i in self.rows:
            answers.append(generator.candidates(self.dataset.sample(i).image))
            one_more()

        def value_of(config: Any) -> float:
            chosen = generator.with_config(config)
            return self.measure.value(chosen.choose(parts) for parts in answers)

        values = {"pred_iou_thresh": _levels(answers), **VALUES}
        values = {name: values[name] for name in values if name not in self.fixed}
        start = replace(EverythingConfig(**self.fixed), points_per_side=side)
        default = best = value_of(start)
        config = start
        for loose_names in LOOSE:  # SAM's own may leave nothing, whichever one of them is changed
            zeros: dict[str, Any] = {name: 0.0 for name in loose_names if name in values}
            change = replace(start, **zeros)
            if (score := value_of(change)) > best:
                config, best = change, score
        config, best, curves = _searched(config, best, values, value_of)
        names = ("points_per_side", *values)
        settings = {name: getattr(config, name) for name in names} | self.fixed
        images, objects = len(self.rows), self.measure.objects
        return Calibration(settings, self.metric, best, default, images, objects, curves)


def _searched(
    start: Any,
    value: float,
    values: Mapping[str, Sequence[float]],
    value_of: Callable[[Any], float],
) -> tuple[Any, float, dict[str, list[tuple[float, float]]]]:
    """The best settings, one after another, their metric, and the metric by each setting.

    Args:
        start: The settings to begin with.
        value: Their metric.
        values: The values to try for each setting.
        value_of: The metric of settings.
    """
    config, best = start, value
    curves: dict[str, list[tuple[float, float]]] = {}
    since = 0
    """Settings that were tried since one of them changed; another round would repeat them."""
    for name in [*values] * ROUNDS:
        if since == len(values):
            break
        known = {getattr(config, name): best}
        for tried in values[name]:
            if tried not in known:
                known[tried] = value_of(replace(config, **{name: tried}))
        curves[name] = sorted(known.items())
        highest = max(known.values())
        since += 1
        if highest > best:
            chosen = next(tried for tried, score in curves[name] if score == highest)
            config, best, since = replace(config, **{name: chosen}), highest, 1
    return config, best, curves


def rows_to_fit_on(length: int, most: int) -> list[int]:
    """The images of ``length`` on which is fitted: evenly spread, and at most ``most`` of them."""
    count = min(length, most)
    return [i * length // count for i in range(count)]


def _levels(answers: Sequence[Sequence[Part]]) -> tuple[float, ...]:
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
