"""The common part of generators of instances: images of many kinds come in, records go out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from samtune.inference.everything.instances import Instances
from samtune.inference.images import as_rgb
from samtune.model.finetuned import FineTuned

Evidence = TypeVar("Evidence")
"""A model's view of an image, from which settings choose the instances."""
Progress = Callable[[int, int], None]
"""Called with the number of windows that are done, and of all."""


class ImageGenerator(ABC, Generic[Evidence]):
    """A function of an image that finds its instances with a model, in two steps."""

    model: FineTuned
    output_mode: str
    """The form of masks in :meth:`records`, one of :data:`.instances.OUTPUT_MODES`."""

    @abstractmethod
    def candidates(self, image: NDArray[np.uint8], progress: Progress | None = None) -> Evidence:
        """The model's view of an image ``(h, w, 3)`` RGB.

        Args:
            image: The image.
            progress: See :meth:`generate`.
        """

    @abstractmethod
    def choose(self, evidence: Evidence, /) -> Instances:
        """The instances that the settings make of what the model sees, by falling score."""

    def __call__(self, image: NDArray[Any] | Image.Image | str | Path, /) -> Instances:
        """The instances of an image, as :meth:`generate` finds them."""
        return self.generate(image)

    @torch.no_grad()
    def generate(
        self,
        image: NDArray[Any] | Image.Image | str | Path,
        image_format: str = "RGB",
        progress: Progress | None = None,
    ) -> Instances:
        """Finds the instances of an image, by falling score.

        Args:
            image: An image, as :meth:`samtune.Predictor.set_image` takes it: a path, an array of
                bytes or fractions, in colour or grey, or a picture of Pillow's.
            image_format: ``RGB`` or ``BGR``: the order of an array's channels.
            progress: Called with the number of tiles or crops that are done, and of all.

        Raises:
            InputError: Another shape, kind of values or format, or a file that cannot be read.
        """
        return self.choose(self.candidates(as_rgb(image, image_format, self.model.input), progress))

    def records(
        self, image: NDArray[Any] | Image.Image | str | Path, image_format: str = "RGB"
    ) -> list[dict[str, Any]]:
        """The same as the official generator returns it, see :meth:`Instances.records`.

        Args:
            image: See :meth:`generate`.
            image_format: See :meth:`generate`.
        """
        return self.generate(image, image_format).records(self.output_mode)
