r"""Targets that are maps of a whole image, computed from all of its objects.

The distances are those of Archit et al. 2025 (Segment Anything for Microscopy, Nature Methods 22).
With the Euclidean distance :math:`c` of a pixel to the centre of its object, and :math:`b` to the
nearest pixel outside of it, each divided by its largest value in the object, the two maps are
:math:`c` and :math:`1 - b`: both are near 0 in the middle of an object and 1 at its edge, however
large it is, and 1 where no object is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from samtune.data.labels import Labels, extents
from samtune.data.transforms import fit_mask
from samtune.geometry import Geometry

DenseTarget = Callable[[NDArray[np.integer], NDArray[np.int64]], Tensor]
"""Computes a target ``(C, h, w)`` from a map ``(h, w)`` of objects, of which ``k + 1`` is object
``k``, and the class of each object ``(K,)``."""

DENSE_TARGETS: dict[str, DenseTarget] = {}
"""The targets by name; a decoder says which it reads (``Decoder.dense_targets``)."""

NO_CLASS = -1
"""The class of pixels that belong to no object."""


def register(name: str) -> Callable[[DenseTarget], DenseTarget]:
    """Adds a target to :data:`DENSE_TARGETS`.

    Raises:
        ValueError: The name is taken.
    """

    def add(target: DenseTarget) -> DenseTarget:
        if name in DENSE_TARGETS:
            raise ValueError(f"the dense target {name!r} is taken: choose another name")
        DENSE_TARGETS[name] = target
        return target

    return add


@register("distances")
def distances(objects: NDArray[np.integer], classes: NDArray[np.int64]) -> Tensor:
    """Foreground, distance to the centre, and inverted distance to the edge: ``(3, h, w)``.

    The centre is the pixel of the object that is nearest to its centre of mass, so it lies inside.
    The edge of the image is no edge of an object, because the object may go on there; one without
    any edge in the image has an inverted distance of 0.
    """
    h, w = objects.shape
    maps = np.ones((3, h, w), np.float32)
    maps[0] = objects > 0
    for k, (x0, y0, x1, y1) in enumerate(extents(objects, len(classes)).tolist()):
        if x1 <= x0:  # augmentation or resizing has left no pixel of it
            continue
        # one pixel more on each side, if the image has it: the nearest pixel outside is in here
        window = (slice(max(y0 - 1, 0), y1 + 1), slice(max(x0 - 1, 0), x1 + 1))
        inside = objects[window] == k + 1
        for map, values in zip(maps[1:], (_to_centre(inside), _from_edge(inside)), strict=True):
            map[window][inside] = values[inside]
    return torch.from_numpy(maps)


@register("object_classes")
def object_classes(objects: NDArray[np.integer], classes: NDArray[np.int64]) -> Tensor:
    """The class of each pixel's object ``(1, h, w)`` int64; :data:`NO_CLASS` outside of objects."""
    table = np.concatenate([np.array([NO_CLASS], np.int64), classes])
    return torch.from_numpy(table[objects])[None]


def in_frame(names: Sequence[str], labels: Labels, geometry: Geometry) -> dict[str, Tensor]:
    """Targets by name, of all objects of an image in the model's frame ``(C, h, w)``.

    Args:
        names: Some names of :data:`DENSE_TARGETS`.
        labels: In the image's frame.
        geometry: The place of the image in the model's frame; the padding gets 0.
    """
    if not names:
        return {}
    (h, w), (height, width) = geometry.resized, geometry.model
    content = fit_mask(labels.map, geometry)[:h, :w]  # an object does not end at the padding
    maps = {name: DENSE_TARGETS[name](content, labels.classes) for name in names}
    return {name: F.pad(map, (0, width - w, 0, height - h)) for name, map in maps.items()}


def _to_centre(inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The distance to the object's centre as a fraction of the largest in the object."""
    ys, xs = np.nonzero(inside)
    nearest = np.argmin((ys - ys.mean()) ** 2 + (xs - xs.mean()) ** 2)
    rows, columns = np.indices(inside.shape)
    distance = np.hypot(rows - ys[nearest], columns - xs[nearest])
    return distance / max(1.0, distance[inside].max())  # a single pixel is its centre


def _from_edge(inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """One minus the distance to the outside as a fraction of the largest in the object."""
    import cv2

    if inside.all():
        return np.zeros(inside.shape)
    distance = cv2.distanceTransform(
        inside.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE
    ).astype(np.float64)
    return 1 - distance / distance.max()
