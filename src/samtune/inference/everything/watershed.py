"""Instances from maps of a whole image: by a watershed, or by prompts at its seeds.

Archit et al. 2025 (Segment Anything for Microscopy, Nature Methods 22): the seeds are the connected
regions where both distances, to the centre and the inverted one to the boundary, are small; they
grow over the foreground, in the order of the inverted distance to the boundary. Archit and Pape
2026 (arXiv:2603.17845, automatic prompt generation) ask the decoder for prompts about one point in
each seed instead, and leave out masks that others repeat.

A model that predicts no distances, but was trained to answer without a prompt, gives the foreground
alone. Its regions are divided at their necks: seeds are the maxima of the distance to the edge that
rise far enough above the saddle to a higher one (h-maxima; Soille 2003, Morphological Image
Analysis), and they grow in the order of that distance.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from samtune.errors import InputError, check_packages
from samtune.inference.everything.config import with_fitted
from samtune.inference.everything.dense_maps import DenseMaps
from samtune.inference.everything.image_generator import ImageGenerator, Progress
from samtune.inference.everything.instances import Instances, check_output_mode
from samtune.inference.everything.run_lengths import packed
from samtune.inference.everything.suppression import suppressed_masks
from samtune.inference.prompted import PromptedImage
from samtune.model.checks import check_model
from samtune.model.finetuned import FineTuned
from samtune.options import (
    CountOrZero,
    Fraction,
    NotNegative,
    Range,
    Settings,
    setting,
    speaks_python,
)
from samtune.options.arguments import check_made_as
from samtune.precision import Precision, autocast, check_precision
from samtune.prompts import NONE, POSITIVE, Prompts

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
    """Fraction of the largest predicted distance to an object's centre below which a pixel of
    foreground can be part of a seed, from which an object grows, if watershed.boundary holds; for a
    decoder of instances."""
    boundary: Fraction = setting(0.5, level="expert")
    """Predicted inverted distance to an object's boundary below which a pixel can be part of a
    seed, for a decoder of instances; it is 1 at the boundary and 0 in the middle of the object."""
    smoothing: NotNegative = setting(1.0, level="expert")
    """Standard deviation, in pixels of the image, of the Gaussian that smooths distances."""
    neck: Annotated[float, Range(above=0)] = setting(0.5, level="expert")
    """Pixels by which the half width of a region of foreground must fall between two wide places
    for a split there, for a model that predicts no distances."""
    min_area: CountOrZero = setting(0, level="expert")
    """Instances with fewer pixels are left out."""
    overlap: Fraction = setting(0.7, level="expert")
    """IoU with a better mask above which a mask is left out, with watershed.answer=prompts."""


class Evidence(NamedTuple):
    """A model's view of an image, from which settings choose the instances."""

    maps: DenseMaps
    prompted: PromptedImage | None
    """The image for questions about points, if the settings ask them."""


class WatershedGenerator(ImageGenerator[Evidence]):
    """Finds the instances of an image from foreground and distances that a model predicts.

    Of a model that was trained to answer without a prompt, and predicts no distances, the answer is
    the foreground. An image that the model's input policy cuts into tiles has its maps blended
    first, so that no instance ends at a seam. Settings that were fitted for the model (``samtune
    calibrate``) replace the defaults.

    Args:
        model: Put into evaluation mode.
        config: Settings; what differs from the defaults replaces fitted values.
        precision: Arithmetic of the forward pass.
        output_mode: The form of masks in :meth:`records`: ``binary_mask``, ``uncompressed_rle`` or
            ``coco_rle``.
        **settings: Settings that are changed, by name, as ``smoothing=2``; also to the default.

    Raises:
        InputError: The model has neither distances nor an answer without a prompt, cannot answer
            prompts though they are to give the masks, or scikit-image is missing.
    """

    @speaks_python()
    def __init__(
        self,
        model: FineTuned,
        config: WatershedConfig | None = None,
        precision: Precision = "auto",
        *,
        output_mode: str = "binary_mask",
        **settings: Any,
    ) -> None:
        check_model(model)
        check_made_as("config", config, WatershedConfig, "samtune.WatershedConfig(min_area=20)")
        check_output_mode(output_mode)
        usual, config = WatershedConfig(), config or WatershedConfig()
        names = [row.name for row in fields(usual)]
        changes = {n: v for n in names if (v := getattr(config, n)) != getattr(usual, n)}
        changes |= settings
        self.config = with_fitted(WatershedConfig(**changes), model.about or {}, changes)
        """The settings in force."""
        check_generator(model, self.config)
        check_precision(precision, model.device)
        self.model, self.precision = model.eval(), precision
        self.output_mode = output_mode

    @torch.no_grad()
    def candidates(self, image: NDArray[np.uint8], progress: Progress | None = None) -> Evidence:
        """The model's view of an image, before any threshold.

        Args:
            image: ``(h, w, 3)`` RGB.
            progress: Called with the number of tiles that are done, and of all.
        """
        with autocast(self.model.device, self.precision):
            maps = DenseMaps.of(self.model, image, progress)
        asks = self.config.answer == "prompts"
        return Evidence(maps, PromptedImage(self.model, image) if asks else None)

    @torch.no_grad()
    def choose(self, evidence: Evidence, /) -> Instances:
        """The instances that the settings make of what the model sees, by falling score.

        Args:
            evidence: From :meth:`candidates`, of this generator or of one with other thresholds.
        """
        if evidence.prompted is not None:
            return self._prompted(evidence.prompted, evidence.maps).by_score()
        return instances_of(evidence.maps, self.config).by_score()

    def with_config(self, config: WatershedConfig) -> WatershedGenerator:
        """A copy with other settings, for evidence of the same answer."""
        other = copy.copy(self)
        other.config = config
        return other

    def _prompted(self, prompted: PromptedImage, maps: DenseMaps) -> Instances:
        """The answers to one point in each seed, without those that repeat a better one."""
        points = points_of(maps, self.config)
        size = prompted.size
        if not len(points):
            return Instances.none(size)
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
    if not (has_distances(model) or answers_unprompted(model)):
        raise InputError(
            f"decoder.name={decoder.name}: predicts no distances for a watershed, and was not "
            "trained to answer without a prompt; train with decoder.name=instances or "
            "prompts.train=none, or ask in points: samtune.MaskGenerator"
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


def has_distances(model: FineTuned) -> bool:
    """Whether a model's decoder predicts the distances of a watershed."""
    return "distances" in model.acting.decoder.dense_targets


def finds_by_watershed(model: FineTuned, answer: str, is_chosen: bool = False) -> bool:
    """Whether a model finds objects by a watershed, rather than with a grid of points.

    Args:
        model: The model.
        answer: ``watershed.answer``.
        is_chosen: Whether somebody set it; else a model that was trained with points is asked with
            them, unless its decoder predicts distances.
    """
    if answer == "grid":
        return False
    by_points = model.acting.decoder.prompted and "point" in model.prompt_modes.kinds
    return has_distances(model) or (answers_unprompted(model) and (is_chosen or not by_points))


def answers_unprompted(model: FineTuned) -> bool:
    """Whether a model was trained to answer with one mask of a whole image without a prompt."""
    tuned = model.trainable() > 0 and model.strength.of(NONE) > 0
    return tuned and NONE in model.prompt_modes and model.acting.decoder.classes is None


def instances_of(maps: DenseMaps, config: WatershedConfig) -> Instances:
    """The instances of maps by the seeded watershed.

    The score of an instance is the mean probability of foreground of its pixels; its class is the
    one that most of its pixels have.
    """
    labels = watershed(maps, config)
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


def watershed(maps: DenseMaps, config: WatershedConfig) -> NDArray[np.int32]:
    """A map ``(h, w)`` of instances: from 1, without gaps; 0 for none.

    Of maps with distances, a region of foreground without a seed is no instance.

    Args:
        maps: The maps of an image.
        config: Thresholds and smoothing.
    """
    from skimage.segmentation import watershed as grow

    seeds, height, _ = _seeds(maps, config)
    labels = grow(height, seeds, mask=maps.foreground > config.foreground).astype(np.int32)
    sizes = np.bincount(labels.ravel())
    large = sizes >= max(1, config.min_area)
    large[0] = False
    numbers = np.zeros(len(sizes), np.int32)
    numbers[large] = np.arange(1, int(large.sum()) + 1)
    return numbers[labels]


def points_of(maps: DenseMaps, config: WatershedConfig) -> NDArray[np.float32]:
    """One point ``(N, 2)`` xy in pixels for each seed: its pixel that is nearest to the centre."""
    seeds, _, distance = _seeds(maps, config)
    flat = np.flatnonzero(seeds)
    order = flat[np.lexsort((distance.ravel()[flat], seeds.ravel()[flat]))]
    _, first = np.unique(seeds.ravel()[order], return_index=True)
    y, x = np.divmod(order[first], seeds.shape[1])
    return np.stack([x, y], 1).astype(np.float32)


class Seeds(NamedTuple):
    """The seeds of a watershed, and in which order they grow."""

    numbers: NDArray[np.int32]
    """``(h, w)``: from 1, 0 for none."""
    height: NDArray[np.float32]
    """``(h, w)``: low pixels first."""
    to_centre: NDArray[np.float32]
    """``(h, w)``: low where a seed is asked about."""


def _seeds(maps: DenseMaps, config: WatershedConfig) -> Seeds:
    foreground = maps.foreground > config.foreground
    if maps.centre is None or maps.boundary is None:
        height, inside = _widest(foreground, config)
        return Seeds(_numbered(inside), height, height)
    height, centre = (
        _smooth(maps.boundary, config.smoothing),
        _smooth(maps.centre, config.smoothing),
    )
    inside = foreground & (height < config.boundary) & (centre < config.centre)
    return Seeds(_numbered(inside), height, centre)


def _widest(
    foreground: NDArray[np.bool_], config: WatershedConfig
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The inverted distance ``(h, w)`` to the edge of each region, and its widest places."""
    import cv2
    from skimage.morphology import local_maxima, reconstruction

    if foreground.all():  # there is no edge to measure from
        return np.zeros(foreground.shape, np.float32), foreground
    of_edge = (cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    to_edge = cv2.distanceTransform(foreground.astype(np.uint8), *of_edge)
    distance = _smooth(to_edge.astype(np.float32), config.smoothing)
    # so low that each region keeps its highest place, however narrow it is
    landscape = np.where(foreground, distance, -1 - config.neck).astype(np.float64)
    cut = reconstruction(landscape - config.neck, landscape)
    return -distance, foreground & local_maxima(cut)


def _numbered(inside: NDArray[np.bool_]) -> NDArray[np.int32]:
    """The connected regions ``(h, w)`` of a mask, numbered from 1."""
    import cv2

    return cv2.connectedComponents(inside.astype(np.uint8), connectivity=8)[1].astype(np.int32)


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
