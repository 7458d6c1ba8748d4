"""A metric that another package or a script brings: one class, one number for each image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from samtune.metrics.image_result import ImageResult
from samtune.metrics.meaning import HALF
from samtune.metrics.streamed import RowMetric, Rows
from samtune.registry.places import place_of


class ImageMetric(RowMetric):
    """A number for each image, and what is made of those of all images: by default their mean.

    A subclass defines :meth:`of_image` and says what its number means. Sums over processes, draws
    for intervals and the report follow from it::

        class Missed(ImageMetric):
            \"\"\"The fraction of the foreground that no mask covers.\"\"\"

            empty = "images without foreground are left out"
            higher = False

            def of_image(self, image):
                predicted, target = image.union()
                return float((target & ~predicted).sum() / target.sum())
    """

    meaning: ClassVar[str] = ""
    """The meaning in one line; by default the first line of the docstring."""
    averaged: ClassVar[str] = "mean over images"
    """The averaging, for the contract beside the values."""
    empty: ClassVar[str] = ""
    """The value for an image without a target or an answer, for the contract; a subclass must set
    it."""
    higher: ClassVar[bool] = True
    """Whether a higher number is better."""
    threshold: ClassVar[str] = HALF
    """The probability from which on a pixel is inside, for the contract."""
    needs: ClassVar[tuple[str, ...]] = ()
    """The inputs that an image must have besides masks, see
    :class:`samtune.metrics.measures.Measure`."""
    maps: ClassVar[bool] = False
    """Whether it has a meaning for maps of classes."""
    source: ClassVar[str] = ""
    """Authors, year and arXiv number or venue."""
    fields = 1

    def of_image(self, image: ImageResult) -> float | Sequence[float]:
        """The number of one image, or a row of ``fields`` numbers; NaN leaves the image out.

        Args:
            image: Its masks and targets, those of all its prompts.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define of_image")

    def of_all(self, rows: Tensor, times: Tensor) -> Tensor:
        """The number of all images, for R draws of them at once: ``(R,)``.

        Args:
            rows: ``(n, fields)`` float64: what :meth:`of_image` gave.
            times: ``(R, n)`` float64: how often each row counts in a draw.
        """
        return times @ rows[:, 0] / times.sum(1)

    def update(self, image: ImageResult) -> None:
        """Adds one image.

        Raises:
            ValueError: What :meth:`of_image` gives is not as many numbers as ``fields`` says.
        """
        try:
            value = self.of_image(image)
        except Exception as error:
            error.add_note(f"in the metric {place_of(type(self))}, image {image.index}")
            raise
        row = torch.as_tensor(value, dtype=torch.float64).flatten()
        if len(row) != self.fields:
            raise ValueError(
                f"{place_of(type(self))} gives {len(row)} numbers for an image and declares "
                f"fields = {self.fields}; make them the same"
            )
        if not row.isnan().any():
            self.keep(row)

    def values(self, sums: Mapping[str, Tensor], rows: Rows | None = None) -> dict[str, Tensor]:
        """The number for R draws of the images, see :meth:`Streamed.values`."""
        if rows is None or not len(rows.table):
            return {"value": torch.full((1,), math.nan, dtype=torch.float64)}
        return {"value": self.of_all(rows.table, rows.times)}
