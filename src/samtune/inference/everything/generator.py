"""SAM's automatic mask generation (Kirillov et al. 2023, arXiv:2304.02643) on any tuned model.

Each point of a grid is asked. Of the answers stay those that the model takes to be good, whose
masks depend little on the threshold, and that are not the same as better ones.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from samtune.errors import InputError
from samtune.inference.everything.config import EverythingConfig, settings_for
from samtune.inference.everything.full_size import FullSize, Mask
from samtune.inference.everything.grid import (
    check_grids,
    crop_boxes,
    grids_of_layers,
    is_near_crop_edge,
)
from samtune.inference.everything.instances import Instances
from samtune.inference.everything.regions import without_small_regions
from samtune.inference.everything.run_lengths import Box
from samtune.inference.everything.seams import joined_windows
from samtune.inference.everything.suppression import suppressed_boxes, suppressed_masks
from samtune.inference.frames import EncodedFrames
from samtune.inference.images import as_rgb
from samtune.inference.predictor import PromptMismatch
from samtune.model.finetuned import FineTuned
from samtune.ops.tiling import extent, starts
from samtune.precision import Precision, autocast, check_precision
from samtune.prompts import Prompts

LEAST = -float("inf")


@dataclass
class _Answers:
    """The masks of one window, in the order of the points."""

    masks: list[Mask] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    points: list[tuple[float, float]] = field(default_factory=list)


class MaskGenerator:
    """Finds all objects of an image by asking a model with a grid of points.

    Settings have the names, the defaults and the meaning of SAM's official generator, see
    ``help(samtune.EverythingConfig)``; those that were fitted for the model (``samtune calibrate``)
    replace the defaults. An image of a model that cuts images is asked tile by tile, and objects
    are joined across the seams.

    Args:
        model: Put into evaluation mode.
        precision: Arithmetic of the forward pass; masks and scores are fp32 all the same.
        **settings: Settings that are changed, by name, as ``points_per_side=16``.

    Raises:
        InputError: A wrong setting, or a model that cannot be asked with points.
    """

    def __init__(self, model: FineTuned, *, precision: Precision = "fp32", **settings: Any) -> None:
        check_points(model)
        check_precision(precision, model.device)
        self.settings = settings_for(model.about or {}, settings)
        """The settings in force."""
        self.model, self.precision = model.eval(), precision
        self.grids = _grids(self.settings)
        if self.is_cut and self.settings.crop_n_layers:
            raise InputError(
                f"crop_n_layers={self.settings.crop_n_layers}: the model cuts images into tiles "
                f"(input.tiles={model.input.tiles}), which crops would cut again; leave it 0, or "
                "use a model with input.tiles=whole"
            )
        _remark(model)

    @property
    def is_cut(self) -> bool:
        """Whether the model sees parts of an image one by one."""
        return self.model.input.tiles != "whole"

    @property
    def multimask(self) -> bool:
        """Whether each point has three masks."""
        chosen = self.settings.multimask_output
        tuned = self.model.trainable() > 0 and self.model.strength > 0
        return (self.model.multimask or not tuned) if chosen is None else chosen

    def __call__(self, image: NDArray[np.uint8]) -> Instances:
        """The instances of an image ``(h, w, 3)`` RGB, as :meth:`generate` finds them."""
        return self.generate(image)

    @torch.no_grad()
    def generate(
        self,
        image: NDArray[Any] | Image.Image | str | Path,
        image_format: str = "RGB",
        progress: Callable[[int, int], None] | None = None,
    ) -> Instances:
        """Finds the instances of an image, by falling score.

        Args:
            image: As :meth:`samtune.Predictor.set_image` takes it.
            image_format: ``RGB`` or ``BGR``: the order of an array's channels.
            progress: Called with the number of tiles or crops that are done, and of all.

        Raises:
            InputError: Another shape, kind of values or format, or a file that cannot be read.
        """
        rgb = as_rgb(image, image_format, self.model.input)
        windows = self._windows((rgb.shape[0], rgb.shape[1]))
        parts = []
        for number, (window, layer) in enumerate(windows, 1):
            parts.append((window, self._answered(rgb, window, layer)))
            if progress is not None:
                progress(number, len(windows))
        instances = self._together(parts)
        return self._cleaned(instances)

    def records(
        self, image: NDArray[Any] | Image.Image | str | Path, image_format: str = "RGB"
    ) -> list[dict[str, Any]]:
        """The same as the official generator returns it, see :meth:`Instances.records`.

        Args:
            image: See :meth:`generate`.
            image_format: See :meth:`generate`.
        """
        return self.generate(image, image_format).records(self.settings.output_mode)

    def _windows(self, size: tuple[int, int]) -> list[tuple[Box, int]]:
        """The parts of an image that are asked one by one, each with the number of its grid."""
        if not self.is_cut:
            settings = self.settings
            return crop_boxes(size, settings.crop_n_layers, settings.crop_overlap_ratio)
        policy = self.model.input
        tile = extent(policy.size, policy.scale, size)
        rows, columns = (starts(n, t, policy.overlap) for n, t in zip(size, tile, strict=True))
        return [((x, y, x + tile[1], y + tile[0]), 0) for y in rows for x in columns]

    def _answered(self, image: NDArray[np.uint8], window: Box, layer: int) -> Instances:
        """The instances of one window, in the image's pixels."""
        settings, size = self.settings, (image.shape[0], image.shape[1])
        x0, y0, x1, y1 = window
        answers = self._answers_to_grid(image[y0:y1, x0:x1], window, layer, size)
        boxes = np.array([mask.box for mask in answers.masks], np.int64).reshape(-1, 4)
        if not self.is_cut:
            inclusive = boxes - np.array([0, 0, 1, 1])
            whole = ~is_near_crop_edge(inclusive, window, size)
        else:
            whole = np.ones(len(boxes), bool)
        rows = np.flatnonzero(whole)
        stays = self._suppressed(
            boxes[rows], np.array(answers.scores)[rows], settings.box_nms_thresh
        )
        masks = [answers.masks[i] for i in rows[stays]]
        return Instances.of_counts(
            [mask.counts for mask in masks],
            size,
            [answers.scores[i] for i in rows[stays]],
            stability=[mask.stability for mask in masks],
            points=np.array([answers.points[i] for i in rows[stays]]).reshape(-1, 2),
            windows=np.array([window] * len(masks), np.int64).reshape(-1, 4),
        )

    def _answers_to_grid(
        self, image: NDArray[np.uint8], window: Box, layer: int, size: tuple[int, int]
    ) -> _Answers:
        """The answers to the grid's points that pass the thresholds of score and stability."""
        model, settings, answers = self.model, self.settings, _Answers()
        h, w = image.shape[:2]
        least = settings.pred_iou_thresh if settings.pred_iou_thresh > 0 else LEAST
        with autocast(model.device, self.precision):
            frames = EncodedFrames.of_windows(model, image, [(0, 0, h, w)])
        geometry = frames.geometries[0]
        full = FullSize(geometry, model.mask_size, model.device, window[:2], size)
        points = torch.from_numpy(self.grids[layer] * [w, h]).float()
        for part in points.split(settings.points_per_batch):
            labels = torch.ones(len(part), 1, dtype=torch.long)
            prompts = Prompts.of(points=part[:, None], labels=labels).to_model(geometry)
            with autocast(model.device, self.precision):
                answer = frames.candidates(prompts, least, self.multimask)
            scores, prompt = answer.iou.float().tolist(), answer.prompt.tolist()
            for mask in full.masks(
                answer.logits,
                0.0,
                settings.stability_score_offset,
                settings.stability_score_thresh,
            ):
                x, y = part[prompt[mask.candidate]].tolist()
                answers.masks.append(mask)
                answers.scores.append(scores[mask.candidate])
                answers.points.append((x + window[0], y + window[1]))
        return answers

    def _suppressed(
        self, boxes: NDArray[np.int64], scores: NDArray[np.floating], threshold: float
    ) -> NDArray[np.int64]:
        """The rows of boxes ``(n, 4)`` that stay, compared on the model's device."""
        # as the official generator has them, the last column and row are part of a box
        inclusive = torch.from_numpy(boxes - np.array([0, 0, 1, 1])).to(self.model.device)
        values = torch.from_numpy(scores.astype(np.float32)).to(self.model.device)
        return suppressed_boxes(inclusive, values, threshold).cpu().numpy()

    def _together(self, parts: list[tuple[Box, Instances]]) -> Instances:
        """The instances of all windows, each object once."""
        settings = self.settings
        if self.is_cut and len(parts) > 1:
            return joined_windows(
                parts, settings.seam_iou_thresh, settings.box_nms_thresh
            ).by_score()
        instances = Instances.cat([each for _, each in parts])
        if len(parts) == 1:
            return instances
        windows = instances.windows
        assert windows is not None
        area = (windows[:, 2] - windows[:, 0]) * (windows[:, 3] - windows[:, 1])
        smaller_first = 1 / area.astype(np.float64)
        stays = self._suppressed(instances.boxes, smaller_first, settings.crop_nms_thresh)
        return instances.only(stays)

    def _cleaned(self, instances: Instances) -> Instances:
        """Instances without small regions, and without those that show the same object twice."""
        settings = self.settings
        if settings.min_mask_region_area:
            instances, same = without_small_regions(instances, settings.min_mask_region_area)
            threshold = max(settings.box_nms_thresh, settings.crop_nms_thresh)
            instances = instances.only(self._suppressed(instances.boxes, same * 1.0, threshold))
        if settings.mask_nms_thresh < 1:
            instances = instances.only(suppressed_masks(instances, settings.mask_nms_thresh))
        return instances


def check_points(model: FineTuned) -> None:
    """Refuses a model that cannot be asked with points.

    Raises:
        InputError: Its decoder answers without prompts, or with classes.
    """
    decoder = model.acting.decoder
    if decoder.classes is not None or not decoder.prompted:
        why = "takes no prompts" if not decoder.prompted else "answers with a map of classes"
        raise InputError(
            f"decoder.name={decoder.name}: {why}, so a grid of points finds no single objects; use "
            "`samtune predict`, or a model with a decoder that is asked with points, as tuned"
        )


def _remark(model: FineTuned) -> None:
    """Warns of a model that was not trained for points."""
    if model.trainable() and model.strength and "point" not in model.prompt_modes.kinds:
        warnings.warn(
            f"trained with prompt {model.prompts}, but asked with points: masks and their scores "
            "may be worse; train with prompts.train=box,point",
            PromptMismatch,
            stacklevel=3,
        )


def _grids(settings: EverythingConfig) -> list[NDArray[np.float64]]:
    if settings.point_grids is not None:
        return check_grids(settings.point_grids, settings.crop_n_layers)
    return grids_of_layers(
        settings.points_per_side, settings.crop_n_layers, settings.crop_n_points_downscale_factor
    )
