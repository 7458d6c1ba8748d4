"""Checks of prompts that Python code gives: their shapes, and their places on an image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike

from samtune.errors import InputError
from samtune.inference.requests import FRACTIONS, is_of_fractions
from samtune.prompts import NEGATIVE, POSITIVE, Prompts


class Outside(InputError):
    """A box or point that is nowhere on the image.

    Args:
        prompt: The box or point as it was given, as in ``box=[0, 0, 9, 9]``.
        size: ``(h, w)`` of the image in pixels.
        order: The coordinates that it must hold.
    """

    def __init__(self, prompt: str, size: tuple[int, int], order: str) -> None:
        self.prompt, (h, w) = prompt, size
        super().__init__(
            f"{prompt}: lies outside the image of {w}x{h} pixels; give {order} in the pixels of "
            "this image"
        )


def tensor_of(value: ArrayLike | None, shape: Sequence[int], name: str) -> torch.Tensor | None:
    """Numbers as a tensor of a shape, in which one side may be -1.

    Args:
        value: The numbers, if there are any.
        shape: The shape.
        name: The argument, for messages.

    Raises:
        InputError: They cannot have the shape, or are no numbers.
    """
    if value is None:
        return None
    try:
        return torch.as_tensor(np.asarray(value, dtype=np.float32)).reshape(*shape)
    except (ValueError, TypeError, RuntimeError) as error:
        wanted = " x ".join("n" if n == -1 else str(n) for n in shape[1:])
        what, several = " ".join(str(value).split()), np.size(value) > np.prod(shape) > 0
        more = "; several boxes at once go to predict_torch(boxes=...)" if several else ""
        raise InputError(f"{name}={what}: must be {wanted} numbers{more}") from error


def check_places(prompts: Prompts, size: tuple[int, int]) -> None:
    """Checks that boxes and points lie on an image.

    Args:
        prompts: In the pixels of the image.
        size: Its height and width.

    Raises:
        InputError: One is nowhere on it (:class:`Outside`), not finite, or no box.
    """
    h, w = size
    used = prompts.labels >= NEGATIVE
    if not bool(prompts.coords[used].isfinite().all()):
        raise InputError("a box or point is not finite: give pixels of this image")
    for box in prompts.boxes():
        x0, y0, x1, y1 = box.tolist()
        if math.isnan(x0):  # this prompt has no box
            continue
        if x1 <= x0 or y1 <= y0:
            raise InputError(f"box={box.tolist()}: must be x0, y0, x1, y1 with x0 < x1 and y0 < y1")
        if is_of_fractions((x0, y0, x1, y1)):
            raise InputError(f"box={box.tolist()}: {FRACTIONS}")
        if x0 >= w or y0 >= h or x1 <= 0 or y1 <= 0:
            raise Outside(f"box={box.tolist()}", size, "xyxy")
    points = prompts.coords[(prompts.labels == NEGATIVE) | (prompts.labels == POSITIVE)]
    for x, y in points.tolist():
        if not (0 <= x <= w and 0 <= y <= h):
            raise Outside(f"point={[x, y]}", size, "xy")
