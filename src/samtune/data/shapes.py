"""Widths and lengths of the objects in some masks, which a model's frame has to resolve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samtune.data.config import DataConfig
from samtune.data.labels import areas, extents, label_objects, read_values
from samtune.data.sources import Record

MOST_IMAGES = 64
"""Number of masks that are measured in a data set, spread evenly from first to last."""


@dataclass(frozen=True)
class Shapes:
    """The objects of some masks; each has one index in the arrays."""

    sizes: NDArray[np.int64]
    """``(N, 2)``: height and width in pixels of the image that contains each object."""
    widths: NDArray[np.float64]
    """``(N,)`` in pixels, see :func:`widths_of`."""
    lengths: NDArray[np.float64]
    """``(N,)`` in pixels: the longer side of the box around each object."""
    images: int
    """Number of masks measured."""

    def __len__(self) -> int:
        return len(self.widths)


def measure(records: Sequence[Record], data: DataConfig, most_images: int = MOST_IMAGES) -> Shapes:
    """Measures the objects of some masks.

    Args:
        records: The records; if there are more than ``most_images``, an evenly spread selection.
        data: How masks are read.
        most_images: The largest number of masks.

    Raises:
        InputError: A mask cannot be read.
    """
    places = np.unique(np.linspace(0, len(records) - 1, min(len(records), most_images)).round())
    sizes, widths, lengths = [], [], []
    for record in (records[int(place)] for place in places):
        values, source = read_values(record, data)
        labels = label_objects(values, data, source)
        boxes = extents(labels.map, len(labels))
        lengths.append((boxes[:, 2:] - boxes[:, :2]).max(1, initial=0))
        widths.append(widths_of(labels.map, len(labels)))
        sizes.append(np.tile(np.array(labels.map.shape, np.int64), (len(labels), 1)))
    there = np.concatenate(widths) > 0  # an object without a pixel has no width and no length
    return Shapes(
        sizes=np.concatenate(sizes)[there],
        widths=np.concatenate(widths)[there],
        lengths=np.concatenate(lengths).astype(np.float64)[there],
        images=len(places),
    )


def widths_of(labels: NDArray[np.integer], count: int) -> NDArray[np.float64]:
    r"""``(count,)``: the mean width in pixels of each object of a label map, ``2 area / outline``.

    For a line or a curve this is its width, however it winds and branches; for a disc it is half
    the diameter. The outline's length is Cauchy's and Crofton's estimate: :math:`\pi/4` of the
    edges between pixels of the object and others; those on the border of the image do not count.

    An object without a pixel, or without an outline, has width 0 or the image's shorter side.
    """
    edges = np.zeros(count + 1, np.int64)
    for a, b in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
        differ = a != b
        for side in (a, b):
            edges += np.bincount(side[differ], minlength=count + 1)
    pixels, outline = areas(labels, count), np.pi / 4 * edges[1:]
    whole = np.where(pixels > 0, float(min(labels.shape)), 0.0)
    return np.where(outline > 0, 2 * pixels / np.maximum(outline, 1e-9), whole)


def large_enough(labels: NDArray[np.integer], count: int, config: DataConfig) -> NDArray[np.bool_]:
    """``(count,)``: the objects of a label map that are prompted, and not too small for that.

    Args:
        labels: ``(h, w)``: ``k + 1`` for object ``k``.
        count: Number of objects.
        config: The smallest size, in pixels and as a fraction of the largest.
    """
    pixels = areas(labels, count)
    there: NDArray[np.bool_] = pixels >= max(1, config.min_area)
    return there & (pixels > config.min_area_fraction * pixels.max(initial=0))
