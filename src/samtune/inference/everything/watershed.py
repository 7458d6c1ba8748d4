"""Instances from the maps of a decoder of distances: by a watershed, or by prompts at its seeds.

Archit et al. 2025 (Segment Anything for Microscopy, Nature Methods 22): the seeds are the connected
regions where both distances, to the centre and the inverted one to the boundary, are small; they
grow over the foreground, in the order of the inverted distance to the boundary. Archit and Pape
2026 (arXiv:2603.17845, automatic prompt generation) ask the decoder for prompts about one point in
each seed instead, and leave out masks that others repeat.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from samtune.errors import InputError, check_packages
from samtune.inference.everything.dense_maps import DenseMaps
from samtune.inference.everything.instances import Instances
from samtune.inference.everything.run_lengths import packed
from samtune.inference.everything.suppression import suppressed_masks
from samtune.inference.prompted import PromptedImage
from samtune.model.finetuned import FineTuned
from samtune.options import CountOrZero, Fraction, NotNegative, Settings, setting
from samtune.precision import Precision, autocast, check_precision
from samtune.prompts import POSITIVE, Prompts

AT_ONCE = 64
"""Seeds that are asked about together."""


@dataclass(frozen=True)
class WatershedConfig(Settings):
    """How instances are made from the maps of a decoder that predicts distances."""

    section = "watershed"

    answer: Literal["watershed", "prompts", "grid"] = setting("watershed", level="expert")
    """The source of the masks. watershed: the predicted maps, split into objects; prompts: the
    decoder's answers to one point in each seed; grid: its answers to SAM's grid of points, with the
    settings of everything."""
    foreground: Fraction = setting(0.5, level="expert")
    """Pixels whose predicted probability is above it are foreground."""
    centre: Fraction = setting(0.5, level="expert")
    """A pixel of foreground can be part of a seed, from which an object grows, if its predicted
    distance to the object's centre is below this fraction of the largest in the object, and
    watershed.boundary holds."""
    boundary: Fraction = setting(0.5, level="expert")
    """A pixel can be part of a seed if its predicted inverted distance to the object's boundary is
    below this; it is 1 at the boundary and 0 in the middle of the object."""
    smoothing: NotNegative = setting(1.0, level="expert")
    """Standard deviation, in pixels of the image, of the Gaussian that smooths both distances."""
    min_area: CountOrZero = setting(0, level="expert")
    """Instances with fewer pixels are left out."""
    overlap: Fraction = setting(0.7, level="expert")
    """With watershed.answer=prompts, a mask is left out if its IoU with a better one is above it.
    """


class WatershedGenerator:
    """Finds the instances of an image with a model whose decoder predicts distances.

    It is an :class:`samtune.inference.everything.instances.InstanceGenerator`. An image that the
    model's input policy cuts into tiles has its maps blended first, so that no instance ends at a
    seam.

    Args:
        model: Put into evaluation mode.
        config: How instances are made.
        precision: Arithmetic of the forward pass.

    Raises:
        InputError: The model predicts no distances, cannot answer prompts though they are to give
            the masks, or scikit-image is missing.
    """

    def __init__(
        self,
        model: FineTuned,
        config: WatershedConfig | None = None,
        precision: Precision = "auto",
    ) -> None:
        self.config = config or WatershedConfig()
        check_generator(model, self.config)
        check_precision(precision, model.device)
        self.model, self.precision = model.eval(), precision

    @torch.no_grad()
    def __call__(self, image: NDArray[np.uint8], /) -> Instances:
        """The instances of an image ``(h, w, 3)`` RGB, by falling score."""
        with autocast(self.model.device, self.precision):
            maps = DenseMaps.of(self.model, image)
        if self.config.answer == "prompts":
            return self._prompted(image, maps).by_score()
        return instances_of(maps, self.config).by_score()

    def _prompted(self, image: NDArray[np.uint8], maps: DenseMaps) -> Instances:
        """The answers to one point in each seed, without those that repeat a better one."""
        points = points_of(maps, self.config)
        size = (image.shape[0], image.shape[1])
        if not len(points):
            return Instances.none(size)
        prompted = PromptedImage(self.model, image)
        counts: list[str] = []
        scores: list[float] = []
        for part in torch.from_numpy(points).split(AT_ONCE):
            labels = torch.full((len(part), 1), POSITIVE)
            with autocast(self.model.device, self.precision):
                masks, iou, _ = prompted.masks(Prompts.of(points=part[:, None], labels=labels))
            counts += [packed(mask) for mask in masks[:, 0].cpu().numpy()]
            scores += iou[:, 0].float().clamp(0, 1).tolist()
        every = Instances.of_counts(counts, size, scores, points=points)
        every = every.only(every.areas >= self.config.min_area)
        alone = every.only(suppressed_masks(every, self.config.overlap))
        return alone if maps.classes is None else _with_classes(alone, maps)


def check_generator(model: FineTuned, config: WatershedConfig) -> None:
    """Refuses a model without what is needed, before any image is read.

    Raises:
        InputError: See :class:`WatershedGenerator`.
    """
    decoder = model.acting.decoder
    if "distances" not in decoder.dense_targets:
        raise InputError(
            f"decoder.name={decoder.name}: predicts no distances for a watershed; train one that "
            "does, as with decoder.name=instances, or ask in points: samtune.MaskGenerator"
        )
    if config.answer == "grid":
        raise InputError(
            "watershed.answer=grid: asks in a grid of points as samtune.MaskGenerator does, which "
            "is measured by prompts.eval=everything; set watershed or prompts"
        )
    if config.answer == "prompts" and not decoder.prompted:
        raise InputError(
            "watershed.answer=prompts: the decoder answers no prompts; train it with "
            "decoder.prompts=tuned, or set watershed.answer=watershed"
        )
    check_packages("watershed", ["skimage"], "instances")


def instances_of(maps: DenseMaps, config: WatershedConfig) -> Instances:
    """The instances of maps by the seeded watershed.

    The score of an instance is the mean probability of foreground of its pixels; its class is the
    one that most of its pixels have.
    """
    labels = watershed(maps.foreground, maps.centre, maps.boundary, config)
    count = int(labels.max(initial=0))
    if not count:
        return Instances.none((labels.shape[0], labels.shape[1]))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    sums = np.bincount(labels.ravel(), maps.foreground.ravel(), count + 1)[1:]
    classes = None
    if maps.classes is not None:
        kinds = int(maps.classes.max()) + 1
        votes = np.bincount(
            labels.ravel().astype(np.int64) * kinds + maps.classes.ravel(),
            minlength=(count + 1) * kinds,
        ).reshape(count + 1, kinds)
        classes = votes[1:].argmax(1)
    return Instances.of_label_map(labels, sums / sizes, classes=classes)


def watershed(
    foreground: NDArray[np.floating],
    centre: NDArray[np.floating],
    boundary: NDArray[np.floating],
    config: WatershedConfig,
) -> NDArray[np.int32]:
    """A map ``(h, w)`` of instances: from 1, without gaps; 0 for none.

    A region of foreground without a seed is no instance.

    Args:
        foreground: ``(h, w)`` probabilities.
        centre: ``(h, w)`` distances to the centre, 0 there and up to 1.
        boundary: ``(h, w)`` inverted distances to the boundary, 1 there and 0 in the middle.
        config: Thresholds and smoothing.
    """
    from skimage.segmentation import watershed as grow

    seeds, height = _seeds(foreground, centre, boundary, config)
    labels = grow(height, seeds, mask=foreground > config.foreground).astype(np.int32)
    sizes = np.bincount(labels.ravel())
    large = sizes >= max(1, config.min_area)
    large[0] = False
    numbers = np.zeros(len(sizes), np.int32)
    numbers[large] = np.arange(1, int(large.sum()) + 1)
    return numbers[labels]


def points_of(maps: DenseMaps, config: WatershedConfig) -> NDArray[np.float32]:
    """One point ``(N, 2)`` xy in pixels for each seed: its pixel that is nearest to the centre."""
    seeds, _ = _seeds(maps.foreground, maps.centre, maps.boundary, config)
    distance = _smooth(maps.centre, config.smoothing)
    flat = np.flatnonzero(seeds)
    order = flat[np.lexsort((distance.ravel()[flat], seeds.ravel()[flat]))]
    _, first = np.unique(seeds.ravel()[order], return_index=True)
    y, x = np.divmod(order[first], seeds.shape[1])
    return np.stack([x, y], 1).astype(np.float32)


def _seeds(
    foreground: NDArray[np.floating],
    centre: NDArray[np.floating],
    boundary: NDArray[np.floating],
    config: WatershedConfig,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The numbered seeds ``(h, w)``, and the smoothed inverted distance to the boundary."""
    import cv2

    height = _smooth(boundary, config.smoothing)
    inside = (foreground > config.foreground) & (height < config.boundary)
    inside &= _smooth(centre, config.smoothing) < config.centre
    _, seeds = cv2.connectedComponents(inside.astype(np.uint8), connectivity=8)
    return seeds.astype(np.int32), height


def _smooth(values: NDArray[np.floating], deviation: float) -> NDArray[np.float32]:
    """A Gaussian mean of a map; pixels beyond its edge are mirrored."""
    import cv2

    values = np.ascontiguousarray(values, np.float32)
    if not deviation:
        return values
    smooth = cv2.GaussianBlur(values, (0, 0), deviation, borderType=cv2.BORDER_REFLECT)
    return smooth.astype(np.float32)


def _with_classes(instances: Instances, maps: DenseMaps) -> Instances:
    """The instances with the class that most of the pixels of each have."""
    assert maps.classes is not None
    classes = [np.bincount(maps.classes[mask]).argmax() for mask in instances.masks()]
    return Instances.of_counts(
        instances.counts, instances.size, instances.scores,
        points=instances.points, classes=np.asarray(classes, np.int64),
    )  # fmt: skip
