"""The prompts for each image: objects by boxes and points, by image name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from samtune.errors import InputError, nearest
from samtune.prompts import Prompts

KINDS = ("boxes", "points", "labels")
EVERY = "*"
"""The key whose prompts are used for all images without their own."""
FRACTIONS = (
    "lies within the first pixel; give pixels, which are fractions times the image's width and "
    "height"
)
FORM = "boxes [x0, y0, x1, y1], or points [x, y] with as many labels"


@dataclass(frozen=True)
class ObjectRequest:
    """One object: a box, points, or a box corrected by points."""

    box: tuple[float, ...] | None = None
    """``x0, y0, x1, y1``."""
    points: tuple[tuple[float, float], ...] = ()
    """``x, y``."""
    labels: tuple[int, ...] = ()
    """One label per point, 1 inside and 0 outside."""
    relative: bool = False
    """Whether the coordinates are fractions of the image's width and height, not pixels."""

    def prompts(self, size: Sequence[int]) -> Prompts:
        """The one prompt, in the pixels of an image of ``size`` (height, width)."""
        w, h = (size[1], size[0]) if self.relative else (1, 1)
        scale = torch.tensor([w, h], dtype=torch.float32)
        box = None if self.box is None else torch.tensor([self.box]) * scale.repeat(2)
        if not self.points:
            return Prompts.of(boxes=box)
        points = torch.tensor([self.points]) * scale
        return Prompts.of(boxes=box, points=points, labels=torch.tensor([self.labels]))


Request = tuple[ObjectRequest, ...]
"""The objects of one image; an empty one means that there is nothing to segment."""


def prompts_of(request: Request | None, size: Sequence[int]) -> Prompts:
    """One prompt per object; for ``None`` the empty prompt."""
    if request is None:
        return Prompts.of(count=1)
    return Prompts.cat([each.prompts(size) for each in request])


def check_prompts(prompts: Any, origin: str) -> dict[str, Request]:
    """Reads a mapping of images to boxes, points and labels.

    Args:
        prompts: By image ``boxes``, ``points`` and ``labels``, see docs/prompts.md; or a result of
            this function.
        origin: Their name in messages, such as the file's.

    Raises:
        InputError: The form is wrong; the message names the image and the right form.
    """
    if not isinstance(prompts, Mapping):
        raise InputError(f"{origin}: must map image names to boxes or points")
    return {
        str(name): entry if isinstance(entry, tuple) else _request(entry, f"{origin}: {name}")
        for name, entry in prompts.items()
    }


def checked_box(values: Any, origin: str, relative: bool = False) -> tuple[float, ...]:
    """A box of four finite numbers in their order, in pixels unless it is ``relative``.

    Raises:
        InputError: The values are anything else.
    """
    if not _is_numbers(values, 4):
        raise InputError(f"{origin}: {_brief(values)}: must be {FORM}")
    box = tuple(float(v) for v in values)
    if not all(map(math.isfinite, box)):
        raise InputError(f"{origin}: box={list(box)}: is not finite; give pixels of the image")
    if box[2] <= box[0] or box[3] <= box[1]:
        raise InputError(
            f"{origin}: box={list(box)}: must be x0, y0, x1, y1 with x0 < x1 and y0 < y1"
        )
    if not relative and is_of_fractions(box):
        raise InputError(f"{origin}: box={list(box)}: {FRACTIONS}")
    return box


def is_of_fractions(numbers: Sequence[float]) -> bool:
    """Whether a box lies within the first pixel, which suggests fractions of the image's sides."""
    return max(numbers) <= 1 and not all(float(v).is_integer() for v in numbers)


def _request(entry: Any, origin: str) -> Request:
    if not isinstance(entry, Mapping) or not entry or set(entry) - set(KINDS):
        other = [k for k in entry if k not in KINDS] if isinstance(entry, Mapping) else []
        hint = nearest(str(other[0]), KINDS) if other else ""
        raise InputError(
            f'{origin}: must hold boxes, or points and labels, and "boxes": [] if there is '
            f"nothing{hint}"
        )
    boxes = [checked_box(box, origin) for box in _rows(entry.get("boxes"), 4, origin)]
    objects = _objects(entry, origin)
    if not objects:
        if "points" not in entry and "boxes" not in entry:
            raise InputError(f"{origin}: labels without points; must be {FORM}")
        return tuple(ObjectRequest(box) for box in boxes)
    if not boxes and not all(points for points, _ in objects):
        raise InputError(f"{origin}: an object has no point; leave it out, or give one")
    if not boxes:
        return tuple(ObjectRequest(None, *each) for each in objects)
    nested = _depth(entry["points"]) == 3
    if len(boxes) == len(objects):
        return tuple(ObjectRequest(b, *o) for b, o in zip(boxes, objects, strict=True))
    if nested:
        raise InputError(
            f"{origin}: {len(boxes)} boxes, and points of {len(objects)} objects; give the points "
            "of each box, [] for one without"
        )
    if 1 not in objects[0][1]:
        raise InputError(
            f"{origin}: {len(boxes)} boxes, and points outside of one of them; nest the points by "
            "box, as in [[[x, y]], []], so that it is clear of which"
        )
    return (*(ObjectRequest(box) for box in boxes), ObjectRequest(None, *objects[0]))


Points = tuple[tuple[tuple[float, float], ...], tuple[int, ...]]


def _objects(entry: Mapping[str, Any], origin: str) -> list[Points]:
    """The points of each object with their labels; flat points belong to one object."""
    points, labels = entry.get("points"), entry.get("labels")
    if points in (None, []):
        if labels not in (None, []):
            raise InputError(f"{origin}: labels without points; must be {FORM}")
        return []
    if _depth(points) == 3:
        groups = list(points)
        by_group = _labels_of_groups(groups, labels, origin)
    else:
        groups = [_rows(points, 2, origin)]
        by_group = [labels]
    return [_points(g, b, origin) for g, b in zip(groups, by_group, strict=True)]


def _labels_of_groups(groups: Sequence[Any], labels: Any, origin: str) -> list[Any]:
    """Labels for points nested by object: nested in the same way, or one list over all points."""
    if labels is None:
        return [None] * len(groups)
    if _depth(labels) == 2:
        if len(labels) != len(groups):
            raise InputError(
                f"{origin}: points of {len(groups)} objects, and labels of {len(labels)}; give "
                "each point its label"
            )
        return list(labels)
    counts = [len(g) if isinstance(g, list | tuple) else 0 for g in groups]
    if not isinstance(labels, list | tuple) or len(labels) != sum(counts):
        raise InputError(
            f"{origin}: points of {len(groups)} objects: must be {FORM}; nest the labels as the "
            "points are"
        )
    starts = [sum(counts[:i]) for i in range(len(counts))]
    return [list(labels[s : s + n]) for s, n in zip(starts, counts, strict=True)]


def _points(points: Any, labels: Any, origin: str) -> Points:
    """One object's points with their labels, 1 by default."""
    for point in points:
        if not _is_numbers(point, 2):
            raise InputError(f"{origin}: {_brief(point)}: must be {FORM}")
        if not all(map(math.isfinite, point)):
            raise InputError(f"{origin}: point={point}: is not finite; give pixels of the image")
        if min(point) >= 0 and is_of_fractions(point):
            raise InputError(f"{origin}: point={list(point)}: {FRACTIONS}")
    labels = [1] * len(points) if labels is None else labels
    if not isinstance(labels, list | tuple) or len(labels) != len(points):
        raise InputError(f"{origin}: labels {_brief(labels)}: must be {FORM}")
    if any(isinstance(v, bool) or v not in (0, 1) for v in labels):
        raise InputError(
            f"{origin}: labels {_brief(labels)}: each must be 0 or 1, 1 inside the object"
        )
    return tuple((float(x), float(y)) for x, y in points), tuple(int(v) for v in labels)


def _rows(value: Any, width: int, origin: str) -> list[Any]:
    """A list of rows; a single row may come without its list."""
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        raise InputError(f"{origin}: {_brief(value)}: must be {FORM}")
    return [value] if _is_numbers(value, width) else list(value)


def _is_numbers(value: Any, count: int) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == count
        and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value)
    )


def _depth(value: Any) -> int:
    """The nesting depth of lists, along the first non-empty member."""
    if not isinstance(value, list | tuple):
        return 0
    return 1 + max((_depth(member) for member in value), default=0)


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_labels(points: torch.Tensor | None, labels: torch.Tensor | None) -> None:
    """Checks that points ``(N, n, 2)`` have labels ``(N, n)`` of 0 or 1.

    Raises:
        InputError: Their numbers differ, or a label is another number.
    """
    have = (0 if points is None else points.shape[1], 0 if labels is None else labels.shape[1])
    if have[0] != have[1]:
        raise InputError(
            f"point_labels: {have[1]} labels for {have[0]} points; give one each, 1 inside the "
            "object and 0 outside"
        )
    if labels is not None and not bool(((labels == 0) | (labels == 1)).all()):
        raise InputError(
            f"point_labels={labels[0].tolist()}: each must be 0 or 1, 1 inside the object"
        )
