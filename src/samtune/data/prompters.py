"""Prompts sampled from the objects of one image: boxes, points, masks, or none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from samtune.batch import ObjectMap
from samtune.data.config import PromptConfig
from samtune.data.draws import Draws
from samtune.data.labels import extents
from samtune.data.transforms import area_average
from samtune.errors import InputError
from samtune.options import published_settings
from samtune.prompts import PER_TOKEN, POSITIVE, Prompts, numbered_mode
from samtune.registry import Registry

AT_ONCE = 2**26
"""Pixels of masks from which prompts are drawn together."""
MASK_LOGIT = 6.0
"""Mask prompts range from minus to plus this value."""
MASK_NOISE = 1.0
"""Standard deviation of the noise on a training mask prompt, in logits at the token grid."""
SWELLING = 2
"""Largest number of mask pixels by which a training mask prompt grows or shrinks."""


@dataclass(frozen=True)
class Objects:
    """The objects of one image in both frames."""

    map: NDArray[np.integer]
    """``(h0, w0)`` label map in the (augmented) original frame; object ``k`` is ``k + 1``."""
    fitted: NDArray[np.integer]
    """``(h, w)`` the same in the model's frame."""
    count: int
    """Number of objects in the map, including those without a pixel left."""
    resized: tuple[int, int] | None = None
    """``(h1, w1)`` of the image within ``fitted``, the rest being padding; ``None``: no padding."""

    def boxes(self) -> NDArray[np.int64]:
        """``(count, 4)`` xyxy around the objects, original frame, far edges exclusive."""
        return extents(self.map, self.count)

    def targets(self, which: NDArray[np.int64]) -> Tensor:
        """``(N, h, w)`` bool masks of the objects ``which``, model frame."""
        return _masks_of(self.fitted, which)

    def originals(self, which: NDArray[np.int64]) -> Tensor:
        """``(N, h0, w0)`` bool masks of the objects ``which``, original frame."""
        return _masks_of(self.map, which)

    def each(self, which: NDArray[np.int64], make: Callable[[NDArray[np.int64]], Tensor]) -> Tensor:
        """The results of ``make`` for each object, with few masks in memory at a time."""
        step = max(1, AT_ONCE // max(self.map.size, self.fitted.size))
        parts = [make(which[k : k + step]) for k in range(0, max(1, len(which)), step)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def as_one(self) -> Objects:
        """All objects as a single one."""
        map, fitted = (side > 0 for side in (self.map, self.fitted))
        return replace(self, map=map.view(np.uint8), fitted=fitted.view(np.uint8), count=1)

    def as_map(self, which: NDArray[np.int64]) -> ObjectMap:
        """The objects ``which`` as one map, instead of one mask each."""
        original, fitted, numbers = (
            torch.from_numpy(values.astype(np.int32)) for values in (self.map, self.fitted, which)
        )
        return ObjectMap(original, fitted, numbers + 1)


@dataclass(frozen=True)
class Sampling:
    """How prompts are sampled: the settings and random choices."""

    config: PromptConfig
    train: bool
    """Training jitters and draws; evaluation is deterministic."""
    draws: Draws
    mask_size: tuple[int, int]
    """``(height, width)`` of a mask prompt: four times the token grid."""


class PromptRule:
    """How one kind of prompt is computed from an object's mask."""

    says: ClassVar[str]
    """The rule in words, for a message."""


class BoxRule(PromptRule):
    """The rule for where boxes of objects end; here on the pixels' edges."""

    says = "where boxes end"

    @staticmethod
    def boxes(
        tight: NDArray[np.int64], size: tuple[int, ...], config: PromptConfig
    ) -> NDArray[np.int64]:
        """The boxes ``(N, 4)`` xyxy in pixels of the original frame.

        Args:
            tight: ``(N, 4)`` xyxy ``xmin, ymin, xmax + 1, ymax + 1``.
            size: ``(h, w)`` of the image.
            config: The settings.
        """
        return tight


class MaskRule(PromptRule):
    """The form of mask prompts; here coarse logits within about +-6.

    A mask prompt is the object's fraction of each token's cell (four by four mask pixels),
    interpolated bilinearly to the mask's size. It therefore shows where an object is, but not its
    outline. In training the object is first dilated or eroded by up to two mask pixels (erosion
    never removes it), and noise of standard deviation 1 logit is added at the token grid.
    """

    says = "the form of mask prompts"

    @staticmethod
    def masks(objects: Objects, which: NDArray[np.int64], how: Sampling) -> Tensor:
        """The masks ``(N, 1, 4H, 4W)`` of the objects ``which``, at least one."""
        size = how.mask_size
        grid = (max(1, size[0] // PER_TOKEN), max(1, size[1] // PER_TOKEN))
        soft = objects.each(which, lambda part: area_average(objects.targets(part)[:, None], size))
        if how.train:
            soft = _dilated(soft, how.draws.swelling(SWELLING, len(which)))
        logits = (area_average(soft, grid) * 2 - 1) * MASK_LOGIT
        if how.train:
            logits = logits + how.draws.mask_noise(tuple(logits.shape)) * MASK_NOISE
        return F.interpolate(logits, size, mode="bilinear", align_corners=False)


BOX_RULES: Registry[BoxRule] = Registry("box rule", "prompts", "samtune.published")
"""Rules for boxes: ``plain``, and others by the name of the ``prompts`` setting that turns them on.
"""
BOX_RULES.register("plain")(BoxRule)
MASK_RULES: Registry[MaskRule] = Registry("mask rule", "prompts", "samtune.published")
"""Rules for mask prompts, in the same way."""
MASK_RULES.register("plain")(MaskRule)
_Rule = TypeVar("_Rule", bound=PromptRule)


def rule_of(rules: Registry[_Rule], config: PromptConfig) -> type[_Rule]:
    """The rule that the settings turn on; ``plain`` if they turn on none.

    Raises:
        InputError: The settings turn on two.
    """
    turned_on = published_settings(config)
    names = [name for name in rules if name in turned_on] if turned_on else []
    if len(names) > 1:
        raise InputError(
            f"prompts.{names[1]}: prompts.{names[0]} also sets {rules[names[0]].says}; leave one "
            "of the two out"
        )
    return rules[names[0] if names else "plain"]


def prompter(mode: str) -> Prompter:
    """The function that samples prompts of a mode; ``none`` has no such function."""
    numbered = numbered_mode(mode)
    if numbered is None:
        return PROMPTERS[mode]
    name, number = numbered
    return sample_click if name == "clicks" else partial(sample_point, count=number)


def check_rules(config: PromptConfig) -> None:
    """Refuses settings of prompts that turn on several rules of one kind.

    Raises:
        InputError: With their names.
    """
    rule_of(BOX_RULES, config)
    rule_of(MASK_RULES, config)


def assign(
    which: NDArray[np.int64], choices: tuple[str, ...], draws: Draws, one: bool = False
) -> list[tuple[str, NDArray[np.int64]]]:
    """Draws one of the modes for each object: ``(mode, objects)`` for each mode, in order.

    Args:
        which: The objects.
        choices: The modes.
        draws: Random choices.
        one: Draw once, for all objects.
    """
    drawn = draws.modes(len(choices), 1 if one else len(which))
    drawn = np.broadcast_to(drawn, len(which))
    return [(mode, which[drawn == i]) for i, mode in enumerate(choices)]


def sample_box(objects: Objects, which: NDArray[np.int64], how: Sampling) -> Prompts:
    """Boxes of the objects in the original frame, by the rule of the settings.

    By default they are tight, on pixel edges. In training each side moves by up to ``box_jitter``
    of the box's width or height, within the image; a box keeps at least half a pixel.
    """
    rule = rule_of(BOX_RULES, how.config)
    boxes = rule.boxes(objects.boxes()[which], objects.map.shape, how.config).astype(np.float64)
    if how.train and how.config.box_jitter and len(which):
        h, w = objects.map.shape
        sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        boxes += how.draws.jitter(boxes.shape) * how.config.box_jitter * sides
        boxes = boxes.clip(0, [w, h, w, h])
        boxes[:, :2] = np.minimum(boxes[:, :2], np.array([w, h]) - 0.5)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 0.5)
    return Prompts.of(boxes=torch.from_numpy(boxes).float())


def sample_point(
    objects: Objects, which: NDArray[np.int64], how: Sampling, count: int | None = None
) -> Prompts:
    """``count`` or ``config.points`` pixels inside each object, original frame, all positive.

    Training draws them uniformly. Evaluation takes the pixel farthest from the object's boundary
    (the image's edge counts as one), then each time the pixel farthest from the boundary and the
    earlier points.
    """
    count = how.config.points if count is None else count
    boxes = objects.boxes()
    points = np.zeros((len(which), count, 2), np.float32)
    for row, k in enumerate(which):
        x, y, right, below = boxes[k]
        inside = objects.map[y:below, x:right] == k + 1
        chosen = _random_pixels(inside, count, how.draws) if how.train else central(inside, count)
        points[row] = chosen + np.array([x, y])
    labels = torch.full((len(which), count), POSITIVE)
    return Prompts.of(points=torch.from_numpy(points), labels=labels)


def background_points(
    objects: Objects, valid: NDArray[np.bool_], count: int, draws: Draws
) -> Prompts:
    """Prompts of one point each on the background, original frame; none if there is no background.

    Args:
        objects: The objects of the image.
        valid: ``(h0, w0)``: false at ignored pixels, where no point lies.
        count: Number of prompts.
        draws: Random choices.
    """
    outside = (objects.map == 0) & valid
    if not outside.any():
        return Prompts.of(count=0)
    xy = _random_pixels(outside, count, draws).astype(np.float32)
    return Prompts.of(points=torch.from_numpy(xy)[:, None], labels=torch.full((count, 1), POSITIVE))


def sample_mask(objects: Objects, which: NDArray[np.int64], how: Sampling) -> Prompts:
    """Mask prompts ``(N, 1, 4H, 4W)`` over the whole model frame, by the rule of the settings.

    The default rule is :class:`MaskRule`.
    """
    if not len(which):
        return Prompts.of(masks=torch.zeros(0, 1, *how.mask_size))
    return Prompts.of(masks=rule_of(MASK_RULES, how.config).masks(objects, which, how))


def sample_click(objects: Objects, which: NDArray[np.int64], how: Sampling) -> Prompts:
    """The first of several clicks; the next ones correct the model's answer."""
    return sample_point(objects, which, how, count=1)


def sample_jittered_box(objects: Objects, which: NDArray[np.int64], how: Sampling) -> Prompts:
    """Boxes as in training, but also in evaluation: always the same, from the data's seed."""
    return sample_box(objects, which, replace(how, train=True))


def sample_noisy_mask(objects: Objects, which: NDArray[np.int64], how: Sampling) -> Prompts:
    """Masks as in training, but also in evaluation: always the same, from the data's seed."""
    return sample_mask(objects, which, replace(how, train=True))


Prompter = Callable[[Objects, NDArray[np.int64], Sampling], Prompts]
"""Prompts for some of an image's objects."""
PROMPTERS: dict[str, Prompter] = {
    "box": sample_box,
    "jittered_box": sample_jittered_box,
    "point": sample_point,
    "mask": sample_mask,
    "noisy_mask": sample_noisy_mask,
    "clicks": sample_click,
}
"""The modes with one prompt per object; ``none`` has no prompt and targets all objects."""


def central(inside: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    """``(count, 2)`` xy of the most central pixels of a mask; repeated if it has too few."""
    import cv2

    padded = np.pad(inside, 1).astype(np.uint8)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    # Squared distances between pixels are whole numbers, so ties are the same on every machine.
    squares = np.where(inside, np.rint(distance.astype(np.float64) ** 2), -1).astype(np.int64)
    ys, xs = np.indices(inside.shape)
    points = np.zeros((count, 2), np.int64)
    for i in range(count):
        y, x = np.unravel_index(int(squares.argmax()), inside.shape)
        points[i] = x, y
        if i + 1 < count:
            squares = np.minimum(squares, (ys - y) ** 2 + (xs - x) ** 2)
    return points


def _random_pixels(inside: NDArray[np.bool_], count: int, draws: Draws) -> NDArray[np.int64]:
    pixels = np.flatnonzero(inside)
    chosen = draws.points(pixels, count)
    return np.stack([chosen % inside.shape[1], chosen // inside.shape[1]], axis=1)


def _dilated(masks: Tensor, radius: NDArray[np.int64]) -> Tensor:
    """Grey dilation of each mask by its radius in pixels; erosion if the radius is negative."""
    result = masks.clone()
    for r in np.unique(radius[radius != 0]):
        rows = torch.from_numpy(radius == r)
        sign, reach = (1 if r > 0 else -1), int(abs(r))
        part = masks[rows]
        changed = sign * F.max_pool2d(sign * part, 2 * reach + 1, stride=1, padding=reach)
        gone = changed.amax((1, 2, 3), keepdim=True) <= 0
        result[rows] = torch.where(gone, part, changed)
    return result


def _masks_of(labels: NDArray[np.integer], which: NDArray[np.int64]) -> Tensor:
    ids = (which + 1).astype(labels.dtype)  # comparing values of one type is several times faster
    return torch.from_numpy(labels[None] == ids[:, None, None])
