"""Measuring automatic modes: the instances of a model beside those of the data set."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from samtune.data import SegmentationDataset
from samtune.data.labels import Sample
from samtune.data.shapes import large_enough
from samtune.distributed import place
from samtune.errors import InputError
from samtune.evaluation.result import Evaluation, image_row
from samtune.evaluation.sums import counter_on, draws_of, gather_items
from samtune.inference.allocator import return_freed_memory, returning_large_arrays
from samtune.inference.everything.instances import InstanceGenerator, Instances
from samtune.inference.everything.run_lengths import as_coco
from samtune.inference.predictor import PromptMismatch
from samtune.interrupts.boundaries import end_together, is_stopping
from samtune.metrics.config import EvalConfig
from samtune.metrics.contract import GROUPS
from samtune.model.finetuned import FineTuned
from samtune.precision import Precision
from samtune.prompts import AUTOMATIC, EVERYTHING

if TYPE_CHECKING:
    from samtune.metrics.instance_result import InstanceResult, Overlaps

OF_IMAGE = "msa"
"""The metric of instances that the table of images has."""
NEED_MORE = ("aji_plus",)
"""Metrics of instances that need scipy: they are measured if ``eval.metrics`` names them."""


def generator_of(
    model: FineTuned,
    mode: str,
    precision: Precision = "fp32",
    changes: Mapping[str, Mapping[str, Any]] | None = None,
) -> InstanceGenerator:
    """The function that finds the instances of an image in an automatic mode.

    Args:
        model: It is put into evaluation mode.
        mode: ``everything`` or ``instances``.
        precision: Arithmetic of the forward pass.
        changes: By section, ``everything`` and ``watershed``, the settings that are changed, by
            name; others are as they were fitted for the model.

    Raises:
        InputError: The model cannot do it.
    """
    changes = changes or {}
    if mode == EVERYTHING:
        from samtune.inference.everything.generator import MaskGenerator

        return MaskGenerator(model, precision=precision, **changes.get(EVERYTHING, {}))
    from samtune.inference.everything.watershed import WatershedConfig, WatershedGenerator

    of_watershed = changes.get(WatershedConfig.section, {})
    return WatershedGenerator(model, precision=precision, **of_watershed)


def generators_of(
    model: FineTuned,
    modes: Iterable[str],
    precision: Precision = "fp32",
    changes: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, InstanceGenerator]:
    """The functions of the automatic modes among several modes, see :func:`generator_of`.

    Args:
        model: See there.
        modes: With and without prompts.
        precision: See there.
        changes: See there.

    Raises:
        InputError: See there.
    """
    automatic = [mode for mode in modes if mode in AUTOMATIC]
    return {mode: generator_of(model, mode, precision, changes) for mode in automatic}


def inability(model: FineTuned, mode: str) -> str | None:
    """The reason for which a model cannot do a mode of evaluation; ``None`` if it can."""
    if mode not in AUTOMATIC:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PromptMismatch)  # it can, if not well
            generator_of(model, mode)
    except InputError as error:
        return str(error)
    return None


def automatic_metrics(config: EvalConfig) -> tuple[str, ...]:
    """The metrics of automatic modes: all of instances, but for some that must be asked for."""
    return tuple(
        name for name in GROUPS["instances"] if name not in NEED_MORE or name in config.names
    )


def evaluate_automatic(
    model: FineTuned,
    dataset: SegmentationDataset,
    generator: InstanceGenerator,
    progress: Callable[[int, int], None] | None = None,
    measuring: EvalConfig | None = None,
    *,
    watch: Callable[[int, Sample, Instances], None] | None = None,
) -> Evaluation:
    """Measures what is found without prompts on a data set, at the original resolution.

    IoU and Dice are those of each target with the mask that matches it: one mask for one target,
    the closest pairs first; a target without a mask scores 0. Beside them are the metrics of
    instances. Each image adds a few numbers for each of its masks and targets.

    Args:
        model: The model, for the device of the sums.
        dataset: The images, in evaluation.
        generator: Finds the instances.
        progress: Called with the number of images done and in all.
        measuring: For metrics that must be asked for.
        watch: Called with the index, the image and the instances of each image of this process.
    """
    rank, world = place()
    share = range(rank, len(dataset), world)
    sums = _Sums(model, dataset, measuring or EvalConfig())
    with returning_large_arrays():
        for done, index in enumerate(share, 1):
            if is_stopping():
                break
            sample, start = dataset.sample(index), time.perf_counter()
            instances = generator(sample.image)
            sums.add(index, sample, instances, time.perf_counter() - start)
            return_freed_memory()
            if watch is not None:
                watch(index, sample, instances)
            if progress is not None:
                progress(done, len(share))
    end_together(model.device)
    return sums.compute()


class _Sums:
    """The sums of one evaluation over the images of this process."""

    def __init__(self, model: FineTuned, dataset: SegmentationDataset, config: EvalConfig) -> None:
        from samtune.metrics import Suite

        self.dataset, (_, world) = dataset, place()
        self.masks = counter_on(model.device)
        self.suite = Suite(
            EvalConfig(metrics=automatic_metrics(config)),
            device=model.device if world > 1 else "cpu",
            sync=world > 1,
        )
        self.items: list[dict[str, Any]] = []
        self.seconds = 0.0

    def add(self, index: int, sample: Sample, instances: Instances, seconds: float) -> None:
        """Adds an image."""
        from samtune.metrics import MaskMetrics, Suite

        self.seconds += seconds
        result = instance_result(self.dataset, sample, instances, index)
        self.suite.update(result)
        overlaps = result.overlaps.that_count()
        areas, matches = _closest(overlaps)
        classes = None if result.target_classes is None else torch.tensor(result.target_classes)
        counts = self.masks.metric
        assert isinstance(counts, MaskMetrics)
        self.masks.note(index, partial(counts.add, areas, classes))
        alone = Suite(EvalConfig(metrics=(OF_IMAGE,)))
        alone.update(result)
        found = {"masks": len(overlaps.predicted), "matches": matches, **alone.compute()}
        self.items.append(image_row(index, sample.name, areas) | found)

    def compute(self) -> Evaluation:
        """The results over all processes."""
        numbers = self.masks.metric.compute()
        return Evaluation(
            metrics=numbers | self.suite.compute(),
            images=len(self.dataset),
            items=sorted(gather_items(self.items), key=lambda item: item["index"]),
            draws=draws_of(self.masks, self.suite),
            images_per_second=len(self.dataset) / max(1e-9, *gather_items([self.seconds])),
        )


def instance_result(
    dataset: SegmentationDataset, sample: Sample, instances: Instances, index: int = 0
) -> InstanceResult:
    """An image's instances in the form that metrics take.

    Objects that an evaluation leaves out (``data.min_area_fraction``) are ignored, as pixels are.

    Args:
        dataset: Says which objects are left out.
        sample: The image with its objects.
        instances: The instances that the model found.
        index: The image's index in the data set.
    """
    from samtune.metrics.instance_result import InstanceResult, run_lengths_of_map

    labels = sample.labels
    there = large_enough(labels.map, len(labels), dataset.data)
    numbers = np.concatenate([[0], np.where(there, there.cumsum(), 0)])
    targets = numbers[labels.map]
    ignored = (labels.map > 0) & (targets == 0)
    if labels.valid is not None:
        ignored |= ~labels.valid
    crowd = run_lengths_of_map(ignored.astype(np.uint8), 1)[0] if ignored.any() else None
    return InstanceResult(
        [as_coco(counts, instances.size) for counts in instances.counts],
        run_lengths_of_map(targets, int(there.sum())),
        scores=instances.scores.astype(np.float64),
        predicted_classes=instances.classes,
        target_classes=labels.classes[there],
        ignored=crowd,
        index=index,
    )


def _closest(overlaps: Overlaps) -> tuple[Tensor, int]:
    """Pixels of overlap, mask and target ``(G, 3)`` of each target, and how many match well.

    A target without a mask has no overlap and no mask; a good match has an IoU of a half.
    """
    from samtune.metrics.matching import closest_pairs

    pairs = closest_pairs(overlaps)
    rows, columns = overlaps.row[pairs], overlaps.column[pairs]
    areas = np.zeros((len(overlaps.target), 3), np.int64)
    areas[:, 2] = overlaps.target
    areas[columns, 0], areas[columns, 1] = overlaps.pixels[pairs], overlaps.predicted[rows]
    return torch.from_numpy(areas), int((overlaps.iou[pairs] >= 0.5).sum())
