"""SAM's automatic mask generation (Kirillov et al. 2023, arXiv:2304.02643) on any tuned model.

Each point of a grid is asked. Of the answers stay those that the model takes to be good, whose
masks depend little on the threshold, and that are not the same as better ones.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from samtune.errors import InputError, warn_user
from samtune.inference.everything.config import EverythingConfig, with_fitted
from samtune.inference.everything.full_size import FullSize, Mask
from samtune.inference.everything.grid import (
    check_grids,
    crop_boxes,
    grids_of_layers,
    is_near_crop_edge,
)
from samtune.inference.everything.image_generator import ImageGenerator, Progress
from samtune.inference.everything.instances import Instances, check_output_mode
from samtune.inference.everything.regions import without_small_regions
from samtune.inference.everything.run_lengths import Box
from samtune.inference.everything.seams import Part, joined_windows
from samtune.inference.everything.suppression import suppressed_boxes, suppressed_masks
from samtune.inference.everything.watershed import answers_unprompted, has_distances
from samtune.inference.frames import EncodedFrames
from samtune.inference.predictor import PromptMismatch, remark_base
from samtune.model.checks import check_model
from samtune.model.finetuned import FineTuned
from samtune.ops.tiling import extent, starts
from samtune.options import speaks_python
from samtune.precision import Precision, autocast, check_precision
from samtune.prompts import Prompts


class MaskGenerator(ImageGenerator[Sequence[Part]]):
    """Finds all objects of an image by asking a model with a grid of points.

    Settings have the names, the defaults and the meaning of SAM's official generator, see
    ``help(samtune.EverythingConfig)``; those that were fitted for the model (``samtune calibrate``)
    replace the defaults. An image of a model that cuts images is asked tile by tile, and objects
    are joined across the seams.

    Args:
        model: Put into evaluation mode.
        precision: Arithmetic of the forward pass; masks and scores are fp32 all the same.
        point_grids: Points in place of ``points_per_side``: for the image and for each layer of
            crops ``(n, 2)`` xy as fractions of width and height.
        output_mode: The form of masks in :meth:`records`: ``binary_mask``, ``uncompressed_rle`` or
            ``coco_rle``.
        **settings: Settings that are changed, by name, as ``points_per_side=16``.

    Raises:
        InputError: A wrong setting, or a model that cannot be asked with points.
    """

    @speaks_python()
    def __init__(
        self,
        model: FineTuned,
        *,
        precision: Precision = "auto",
        point_grids: Sequence[ArrayLike] | None = None,
        output_mode: str = "binary_mask",
        **settings: Any,
    ) -> None:
        check_model(model)
        check_output_mode(output_mode)
        check_points(model)
        check_precision(precision, model.device)
        self.config = with_fitted(EverythingConfig(**settings), model.about or {}, settings)
        """The settings in force."""
        self.output_mode = output_mode
        self.model, self.precision = model.eval(), precision
        self.grids = _grids(self.config, point_grids)
        if self.is_cut and self.config.crop_n_layers:
            raise InputError(
                f"crop_n_layers={self.config.crop_n_layers}: the model cuts images into tiles "
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
        chosen = self.config.multimask_output
        tuned = self.model.trainable() > 0 and self.model.strength.of("point") > 0
        return (self.model.multimask or not tuned) if chosen is None else chosen

    @torch.no_grad()
    def candidates(self, image: NDArray[np.uint8], progress: Progress | None = None) -> list[Part]:
        """The answers to all points that pass the thresholds of score and stability.

        Args:
            image: ``(h, w, 3)`` RGB.
            progress: Called with the number of windows that are done, and of all.

        Returns:
            The windows that the model saw one by one, each with its answers.
        """
        windows = self._windows((image.shape[0], image.shape[1]))
        parts = []
        for number, (window, layer) in enumerate(windows, 1):
            parts.append((window, self._answers(image, window, layer)))
            if progress is not None:
                progress(number, len(windows))
        return parts

    def choose(self, parts: Sequence[Part], /) -> Instances:
        """The instances among candidates: each object once, by falling score.

        Args:
            parts: From :meth:`candidates`, of this generator or of one with lower thresholds.
        """
        chosen = [(window, self._best_of(window, instances)) for window, instances in parts]
        return self._cleaned(self._together(chosen))

    def with_config(self, config: EverythingConfig) -> MaskGenerator:
        """A copy with other settings, for candidates of the same grid."""
        other = copy.copy(self)
        other.config = config
        return other

    def _windows(self, size: tuple[int, int]) -> list[tuple[Box, int]]:
        """The parts of an image that are asked one by one, each with the number of its grid."""
        if not self.is_cut:
            config = self.config
            return crop_boxes(size, config.crop_n_layers, config.crop_overlap_ratio)
        policy = self.model.input
        tile = extent(policy.size, policy.scale, size)
        rows, columns = (starts(n, t, policy.overlap) for n, t in zip(size, tile, strict=True))
        return [((x, y, x + tile[1], y + tile[0]), 0) for y in rows for x in columns]

    def _answers(self, image: NDArray[np.uint8], window: Box, layer: int) -> Instances:
        """The answers to the grid's points in one window, in the image's pixels."""
        model, config = self.model, self.config
        x0, y0, x1, y1 = window
        with autocast(model.device, self.precision):
            frames = EncodedFrames.of_windows(model, image, [(y0, x0, y1, x1)])
        geometry, size = frames.geometries[0], (image.shape[0], image.shape[1])
        full = FullSize(geometry, model.mask_size, model.device, (x0, y0), size)
        limits = (0.0, config.stability_score_offset, config.stability_score_thresh)
        points = torch.from_numpy(self.grids[layer] * [x1 - x0, y1 - y0]).float()
        masks, scores, places = list[Mask](), list[float](), [np.zeros((0, 2), np.float32)]
        for part in points.split(config.points_per_batch):
            labels = torch.ones(len(part), 1, dtype=torch.long)
            prompts = Prompts.of(points=part[:, None], labels=labels).to_model(geometry)
            with autocast(model.device, self.precision):
                least = config.pred_iou_thresh or -math.inf
                answer = frames.candidates(prompts, least, self.multimask)
            stable = list(full.masks(answer.logits, *limits))
            rows = torch.tensor([mask.candidate for mask in stable], dtype=torch.long)
            masks += stable
            scores += answer.iou.float().cpu()[rows].tolist()
            places.append(part[answer.prompt.cpu()[rows]].numpy())
        return Instances(
            size,
            tuple(mask.counts for mask in masks),
            np.array(scores, np.float32),
            np.array([mask.box for mask in masks], np.int64).reshape(-1, 4),
            np.array([mask.area for mask in masks], np.int64),
            np.array([mask.stability for mask in masks], np.float32),
            np.concatenate(places) + np.array([x0, y0], np.float32),
            windows=np.array([window] * len(masks), np.int64).reshape(-1, 4),
        )

    def _best_of(self, window: Box, instances: Instances) -> Instances:
        """The answers of a window that pass all thresholds, each object once."""
        config, stability = self.config, instances.stability
        assert stability is not None
        good = np.ones(len(instances), bool)
        if config.pred_iou_thresh > 0:
            good &= instances.scores > config.pred_iou_thresh
        if config.stability_score_thresh > 0:
            good &= stability >= config.stability_score_thresh
        if not self.is_cut:
            inclusive = instances.boxes - np.array([0, 0, 1, 1])
            good &= ~is_near_crop_edge(inclusive, window, instances.size)
        best = instances.only(good)
        return best.only(self._suppressed(best.boxes, best.scores, config.box_nms_thresh))

    def _suppressed(
        self, boxes: NDArray[np.int64], scores: NDArray[np.floating], threshold: float
    ) -> NDArray[np.int64]:
        """The rows of boxes ``(n, 4)`` that stay, compared on the model's device."""
        # as the official generator has them, the last column and row are part of a box
        inclusive = torch.from_numpy(boxes - np.array([0, 0, 1, 1])).to(self.model.device)
        values = torch.from_numpy(scores.astype(np.float32)).to(self.model.device)
        return suppressed_boxes(inclusive, values, threshold).cpu().numpy()

    def _together(self, parts: list[Part]) -> Instances:
        """The instances of all windows, each object once."""
        config = self.config
        if self.is_cut and len(parts) > 1:
            return joined_windows(parts, config.seam_iou_thresh, config.box_nms_thresh).by_score()
        instances = Instances.cat([each for _, each in parts])
        if len(parts) == 1:
            return instances
        windows = instances.windows
        assert windows is not None
        area = (windows[:, 2] - windows[:, 0]) * (windows[:, 3] - windows[:, 1])
        smaller_first = 1 / area.astype(np.float64)
        stays = self._suppressed(instances.boxes, smaller_first, config.crop_nms_thresh)
        return instances.only(stays)

    def _cleaned(self, instances: Instances) -> Instances:
        """Instances without small regions, and without those that show the same object twice."""
        config = self.config
        if config.min_mask_region_area:
            instances, same = without_small_regions(instances, config.min_mask_region_area)
            threshold = max(config.box_nms_thresh, config.crop_nms_thresh)
            instances = instances.only(self._suppressed(instances.boxes, same * 1.0, threshold))
        if config.mask_nms_thresh < 1:
            instances = instances.only(suppressed_masks(instances, config.mask_nms_thresh))
        return instances


def check_points(model: FineTuned) -> None:
    """Refuses a model that cannot be asked with points.

    Raises:
        InputError: Its decoder answers without prompts, or with classes.
    """
    decoder = model.acting.decoder
    if decoder.classes is not None or not decoder.prompted:
        why = "takes no prompts" if not decoder.prompted else "answers with a map of classes"
        remedy = (
            "samtune.WatershedGenerator finds them, as `samtune everything` does with this model"
            if has_distances(model) or answers_unprompted(model)
            else "use `samtune predict`, or a model with a decoder that is asked with points, as "
            "tuned"
        )
        raise InputError(
            f"decoder.name={decoder.name}: {why}, so a grid of points finds no single objects; "
            f"{remedy}"
        )


def _remark(model: FineTuned) -> None:
    """Warns of a model that was not trained for points."""
    strength = model.strength
    if not model.trainable() or not strength:
        return
    if strength.of("point") == 0:
        remark_base("point")
    elif "point" not in model.prompt_modes.kinds | strength.validated:
        warn_user(
            f"trained with prompt {model.prompts}, but asked with points: masks and their scores "
            "may be worse; train for the prompts box,point",
            PromptMismatch,
        )


def _grids(
    config: EverythingConfig, grids: Sequence[ArrayLike] | None
) -> list[NDArray[np.float64]]:
    if grids is not None:
        return check_grids(grids, config.crop_n_layers)
    return grids_of_layers(
        config.points_per_side, config.crop_n_layers, config.crop_n_points_downscale_factor
    )
