"""Masks of everything, computed plainly: all masks at the image's size, one list, no shortcuts.

It follows the published description of SAM's automatic masks (Kirillov et al. 2023) step
by step, on a predictor of samtune, as the slow twin of ``samtune.MaskGenerator``.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from samtune.inference.predictor import Predictor
from samtune.prompts import Prompts


@dataclass
class PlainMask:
    """A mask, and what decides about it."""

    mask: NDArray[np.bool_]
    score: float
    stability: float
    point: tuple[float, float]
    crop: tuple[int, int, int, int]

    def box(self):
        """Its box xyxy, of which the last column and row are part."""
        ys, xs = np.nonzero(self.mask)
        return xs.min(), ys.min(), xs.max(), ys.max()


def iou(a, b):
    """IoU of two boxes xyxy."""
    w, h = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
    both = max(w, 0) * max(h, 0)
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - both
    return both / union if union else 0.0


def suppressed(masks, scores, threshold):
    """The masks that stay, one after another by falling score."""
    stays: list[PlainMask] = []
    for i in sorted(range(len(masks)), key=lambda i: -scores[i]):
        if all(iou(masks[i].box(), other.box()) <= threshold for other in stays):
            stays.append(masks[i])
    return stays


def of_crop(predictor: Predictor, image, crop, grid, settings, multimask):
    """The masks of one crop, over the whole image."""
    x0, y0, x1, y1 = crop
    (height, width), part = image.shape[:2], image[y0:y1, x0:x1]
    predictor.set_image(part)
    found = []
    for point in grid * [x1 - x0, y1 - y0]:
        prompt = torch.tensor(point, dtype=torch.float32)[None, None]
        prompts = Prompts.of(points=prompt, labels=torch.ones(1, 1))
        logits, scores, _ = predictor.predict_torch(
            prompts, multimask_output=multimask, return_logits=True
        )
        for z, score in zip(logits[0], scores[0].tolist(), strict=True):
            inner, outer = ((z > d * settings.stability_score_offset).sum().item() for d in (1, -1))
            mask = np.zeros((height, width), bool)
            mask[y0:y1, x0:x1] = z.numpy() > 0
            stability = inner / outer if outer else 0.0
            passes = score > settings.pred_iou_thresh or settings.pred_iou_thresh <= 0
            if not passes or stability < settings.stability_score_thresh or not mask.any():
                continue
            at = (point[0] + x0, point[1] + y0)
            one = PlainMask(mask, score, stability, at, crop)
            image_sides, box = (0, 0, width, height), one.box()
            if not any(
                abs(side - edge) <= 20 < abs(side - end)
                for side, edge, end in zip(box, crop, image_sides, strict=True)
            ):
                found.append(one)
    return suppressed(found, [one.score for one in found], settings.box_nms_thresh)


def everything(predictor: Predictor, image, crops, grids, settings, multimask):
    """All masks of an image; ``crops`` has each crop's box and the number of its grid."""
    found = [
        one
        for crop, layer in crops
        for one in of_crop(predictor, image, crop, grids[layer], settings, multimask)
    ]
    if len(crops) == 1:
        return found
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (one.crop for one in found)]
    return suppressed(found, [1 / area for area in areas], settings.crop_nms_thresh)
