"""Prompts sampled from the objects of one image: boxes, points, masks, or none."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from samtune.data.config import PromptConfig
from samtune.data.labels import extents
from samtune.data.transforms import area_average
from samtune.errors import InputError
from samtune.prompts import POSITIVE, Prompts, numbered_mode

MASK_LOGIT = 6.0
"""Mask prompts range from minus to plus this."""
MASK_NOISE = 1.0
"""Standard deviation of the noise on a training mask prompt, in logits at the token grid."""
BAND = 0.01
"""A binary mask prompt is noisy where it loses this much in reduction."""


@dataclass(frozen=True)
class Objects:
    """The objects of one image in both frames."""

    map: NDArray[np.integer]
    """``(h0, w0)`` label map in the (augmented) original frame; object ``k`` is ``k + 1``."""
    fitted: NDArray[np.integer]
    """``(h, w)`` the same in the model's frame."""
    count: int
    """Objects in the map, also those without a pixel left."""
    resized: tuple[int, int] | None = None
    """``(h1, w1)`` of the image within ``fitted``, the rest being padding; ``None``: no padding."""

    def boxes(self) -> NDArray[np.int64]:
        """``(count, 4)`` xyxy around the objects, original frame, far edges exclusive."""
        return extents(self.map, self.count)

    def targets(self, which: NDArray[np.int64]) -> Tensor:
        """``(N, h, w)`` bool masks of the objects ``which``, model frame."""
        return _materialised(self.fitted, which)

    def originals(self, which: NDArray[np.int64]) -> Tensor:
        """``(N, h0, w0)`` bool masks of the objects ``which``, original frame."""
        return _materialised(self.map, which)


@dataclass(frozen=True)
class Draw:
    """How to sample: with which random numbers and settings."""

    config: PromptConfig
    train: bool
    """Training jitters and draws; evaluation is deterministic."""
    rng: np.random.Generator
    mask_size: tuple[int, int]
    """``(height, width)`` of a mask prompt: four times the token grid."""


def prompter(mode: str) -> Prompter:
    """What samples prompts of a mode; of ``none`` there are none."""
    numbered = numbered_mode(mode)
    if numbered is None:
        return PROMPTERS[mode]
    name, number = numbered
    return sample_click if name == "clicks" else partial(sample_point, count=number)


def check_numbers(config: PromptConfig) -> None:
    """Checks the ranges of a prompt setting's numbers.

    Raises:
        InputError: A number out of its range.
    """
    if not 0 <= config.box_jitter < 1:
        raise InputError(
            f"prompts.box_jitter={config.box_jitter}: a part of the box's side; choose 0 to below 1"
        )
    if config.box_scale is not None and not 0 < config.box_scale < math.inf:
        raise InputError(
            f"prompts.box_scale={config.box_scale}: a part of the box's side; choose a positive "
            f"number, 1 for the tight box"
        )
    if config.inclusive_boxes and config.box_scale is not None:
        raise InputError(
            "prompts.inclusive_boxes: prompts.box_scale says where boxes end; leave one of them out"
        )
    binary = config.binary_masks
    if binary is not None and not (binary[0] >= 1 and 0 <= binary[1] < 1):
        raise InputError(
            f"prompts.binary_masks={list(binary)}: a factor of 1 or more and a threshold of 0 to "
            "below 1; choose such as [8,0.5]"
        )
    for name in ("points", "clicks", "max_objects"):
        if getattr(config, name) < 1:
            raise InputError(f"prompts.{name}={getattr(config, name)}: too few; choose 1 or more")


def assign(
    which: NDArray[np.int64], choices: tuple[str, ...], rng: np.random.Generator, one: bool = False
) -> list[tuple[str, NDArray[np.int64]]]:
    """Draws one of the modes for each object: ``(mode, objects)`` for each mode, in order.

    Args:
        which: The objects.
        choices: The modes.
        rng: Random numbers.
        one: Draw once, for all objects.
    """
    drawn = rng.integers(len(choices), size=1 if one else len(which))
    drawn = np.broadcast_to(drawn, len(which))
    return [(mode, which[drawn == i]) for i, mode in enumerate(choices)]


def sample_box(objects: Objects, which: NDArray[np.int64], draw: Draw) -> Prompts:
    """Boxes on pixel edges (``xmin, ymin, xmax + 1, ymax + 1``), original frame.

    With ``inclusive_boxes`` they end on the last pixels (``xmax, ymax``), and with a ``box_scale``
    they are those of :func:`scaled_boxes`, in evaluation too.

    In training each side moves by up to ``box_jitter`` of the box's width or height, within the
    image; a box keeps at least half a pixel.
    """
    tight = objects.boxes()[which]
    if draw.config.box_scale is not None:
        tight = scaled_boxes(tight, objects.map.shape, draw.config.box_scale)
    boxes = tight.astype(np.float64)
    if draw.config.inclusive_boxes:
        boxes[:, 2:] -= 1
    if draw.train and draw.config.box_jitter and len(which):
        h, w = objects.map.shape
        sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        boxes += draw.rng.uniform(-1, 1, boxes.shape) * draw.config.box_jitter * sides
        boxes = boxes.clip(0, [w, h, w, h])
        boxes[:, :2] = np.minimum(boxes[:, :2], np.array([w, h]) - 0.5)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 0.5)
    return Prompts.of(boxes=torch.from_numpy(boxes).float())


def scaled_boxes(
    boxes: NDArray[np.int64], size: tuple[int, ...], scale: float = 1.0
) -> NDArray[np.int64]:
    """Boxes of ``scale`` times the sides about the same centre, in whole pixels.

    Kyyle2114's ``make_box_prompt`` (Fine-tuning-Segment-Anything), parts of a pixel cut off: what
    leaves the image left or above moves in with its size kept; a far side that reaches the image's
    edge ends on the last pixel instead, even at scale 1. Boxes of negative size, which objects
    without a pixel have, become ``0 0 0 0``.

    Args:
        boxes: ``(N, 4)`` xyxy, far edges exclusive.
        size: ``(h, w)`` of the image.
        scale: Factor of both sides.
    """
    boxes = np.where((boxes[:, 2:] > boxes[:, :2]).all(1, keepdims=True), boxes, 0)
    corner, side = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    scaled = (side * scale).astype(np.int64)
    corner = np.maximum(corner - ((scaled - side) / 2).astype(np.int64), 0)
    edge = np.array([size[1], size[0]])
    scaled = np.where(corner + scaled >= edge, edge - corner - 1, scaled)
    return np.concatenate([corner, corner + scaled], axis=1)


def sample_point(
    objects: Objects, which: NDArray[np.int64], draw: Draw, count: int | None = None
) -> Prompts:
    """``count`` or ``config.points`` pixels inside each object, original frame, all positive.

    Training draws them evenly. Evaluation takes the pixel farthest from the object's boundary (the
    image's edge is one), then each time the pixel farthest from boundary and points taken.
    """
    count = draw.config.points if count is None else count
    boxes = objects.boxes()
    points = np.zeros((len(which), count, 2), np.float32)
    for row, k in enumerate(which):
        x, y, right, below = boxes[k]
        inside = objects.map[y:below, x:right] == k + 1
        chosen = _random_pixels(inside, count, draw.rng) if draw.train else central(inside, count)
        points[row] = chosen + np.array([x, y])
    labels = torch.full((len(which), count), POSITIVE)
    return Prompts.of(points=torch.from_numpy(points), labels=labels)


def sample_mask(objects: Objects, which: NDArray[np.int64], draw: Draw) -> Prompts:
    """Coarse masks ``(N, 1, 4H, 4W)`` as logits within about +-6, over the whole model frame.

    The object's part of each token's cell (four by four mask pixels), interpolated bilinearly to
    the mask's size: so a mask prompt tells where an object is, not its outline. In training the
    object is first dilated or eroded by up to two mask pixels (erosion never removes it), and noise
    of standard deviation 1 logit is added at the token grid.

    With ``binary_masks`` the values are 0 and 1: the object, interpolated bilinearly from the
    original to the mask's size, above one half, or in training :func:`noisy_binary` of it.
    """
    size = draw.mask_size
    grid = (max(1, size[0] // 4), max(1, size[1] // 4))
    if not len(which):
        return Prompts.of(masks=torch.zeros(0, 1, *size))
    if draw.config.binary_masks is not None:
        return Prompts.of(masks=_binary(objects, which, draw, draw.config.binary_masks))
    soft = area_average(objects.targets(which)[:, None], size)
    if draw.train:
        soft = _swollen(soft, draw.rng.integers(-2, 3, size=len(which)))
    logits = (area_average(soft, grid) * 2 - 1) * MASK_LOGIT
    if draw.train:
        noise = draw.rng.standard_normal(tuple(logits.shape), np.float32) * MASK_NOISE
        logits = logits + torch.from_numpy(noise)
    masks = F.interpolate(logits, size, mode="bilinear", align_corners=False)
    return Prompts.of(masks=masks)


def noisy_binary(soft: Tensor, factor: int, threshold: float, noise: Tensor) -> Tensor:
    """Masks of 0 and 1 with noise along the outline, as CAT-SAM trains with them.

    A value gets noise where reduction by ``factor`` and enlargement change it by 0.01 or more.

    Args:
        soft: ``(N, 1, h, w)`` in 0..1.
        factor: How much smaller the masks become.
        threshold: Values above are 1.
        noise: As ``soft``, standard normal.
    """
    h, w = soft.shape[-2:]
    small = F.interpolate(soft, (max(1, h // factor), max(1, w // factor)), mode="bilinear")
    band = (soft - F.interpolate(small, (h, w), mode="bilinear")).abs() >= BAND
    return (soft + noise * band > threshold).float()


def sample_click(objects: Objects, which: NDArray[np.int64], draw: Draw) -> Prompts:
    """The first of several clicks; the next ones answer what the model makes of it."""
    return sample_point(objects, which, draw, count=1)


def sample_jittered_box(objects: Objects, which: NDArray[np.int64], draw: Draw) -> Prompts:
    """Boxes as in training, in evaluation too: the same in each, drawn with the data's seed."""
    return sample_box(objects, which, replace(draw, train=True))


def sample_noisy_mask(objects: Objects, which: NDArray[np.int64], draw: Draw) -> Prompts:
    """Masks as in training, in evaluation too: the same in each, drawn with the data's seed."""
    return sample_mask(objects, which, replace(draw, train=True))


Prompter = Callable[[Objects, NDArray[np.int64], Draw], Prompts]
"""Prompts for some of an image's objects."""
PROMPTERS: dict[str, Prompter] = {
    "box": sample_box,
    "jittered_box": sample_jittered_box,
    "point": sample_point,
    "mask": sample_mask,
    "noisy_mask": sample_noisy_mask,
    "clicks": sample_click,
}
"""The modes that ask for one object each; ``none`` asks for all of them and has no prompt."""


def central(inside: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    """``(count, 2)`` xy of the most central pixels of a mask; repeated when it has too few."""
    import cv2

    padded = np.pad(inside, 1).astype(np.uint8)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    distance = np.where(inside, distance, -1.0)
    ys, xs = np.indices(inside.shape)
    points = np.zeros((count, 2), np.int64)
    for i in range(count):
        y, x = np.unravel_index(int(distance.argmax()), inside.shape)
        points[i] = x, y
        if i + 1 < count:
            distance = np.minimum(distance, np.hypot(ys - y, xs - x))
    return points


def _random_pixels(
    inside: NDArray[np.bool_], count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    pixels = np.flatnonzero(inside)
    chosen = rng.choice(pixels, count)
    return np.stack([chosen % inside.shape[1], chosen // inside.shape[1]], axis=1)


def _binary(
    objects: Objects, which: NDArray[np.int64], draw: Draw, settings: tuple[int, float]
) -> Tensor:
    """``(N, 1, 4H, 4W)`` of 0 and 1; nothing in the padding."""
    (h, w), frame = draw.mask_size, objects.fitted.shape
    h1, w1 = objects.resized or frame
    inner = (max(1, round(h * h1 / frame[0])), max(1, round(w * w1 / frame[1])))
    masks = objects.originals(which)[:, None].float()
    masks = F.interpolate(masks, inner, mode="bilinear", align_corners=False)
    if draw.train:
        noise = torch.from_numpy(draw.rng.standard_normal(tuple(masks.shape), np.float32))
        masks = noisy_binary(masks, *settings, noise)
    else:
        masks = (masks > 0.5).float()
    return F.pad(masks, (0, w - inner[1], 0, h - inner[0]))


def _swollen(masks: Tensor, radius: NDArray[np.int64]) -> Tensor:
    """Grey dilation of each mask by its radius in pixels, erosion where that is negative."""
    result = masks.clone()
    for r in np.unique(radius[radius != 0]):
        rows = torch.from_numpy(radius == r)
        sign, reach = (1 if r > 0 else -1), int(abs(r))
        part = masks[rows]
        changed = sign * F.max_pool2d(sign * part, 2 * reach + 1, stride=1, padding=reach)
        gone = changed.amax((1, 2, 3), keepdim=True) <= 0
        result[rows] = torch.where(gone, part, changed)
    return result


def _materialised(labels: NDArray[np.integer], which: NDArray[np.int64]) -> Tensor:
    ids = (which + 1).astype(labels.dtype)  # of one type the comparison is several times faster
    return torch.from_numpy(labels[None] == ids[:, None, None])
