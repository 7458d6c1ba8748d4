"""The random choices of one training image and its prompts, each by its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samtune.data.augmentations import Change, augment, drawn_change
from samtune.registry import Registry

if TYPE_CHECKING:
    from samtune.data.config import DataConfig
    from samtune.data.labels import Labels


class Draws:
    """All random choices for one example, here from a NumPy generator.

    A class that repeats the random numbers of a published training overrides the choices that
    differ.

    Args:
        generator: The source of the numbers.
    """

    varies: ClassVar[bool] = False
    """Whether an image gets other choices in every epoch."""
    cuts_apart: ClassVar[bool] = False
    """Whether objects are determined after the changes even without a crop that cuts them."""

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator

    @classmethod
    def of(cls, seed: int, epoch: int, index: int) -> Draws:
        """The choices of one example; here the same in every epoch.

        Args:
            seed: Seed of the data set.
            epoch: The pass over the data, from 0.
            index: The image's number.
        """
        return cls(np.random.default_rng((seed, 0, index)))

    @classmethod
    def check(cls, data: DataConfig) -> None:
        """Refuses changes of images that these choices do not support.

        Raises:
            InputError: A change is not supported; the message says what to set instead.
        """

    def change(
        self, image: NDArray[np.uint8], labels: Labels, augmentation: str, crops: bool
    ) -> tuple[NDArray[np.uint8], Labels]:
        """The image and its labels after the augmentation.

        Args:
            image: ``(h, w, 3)`` uint8 RGB.
            labels: Its labels.
            augmentation: Its name.
            crops: Whether a crop follows.
        """
        return augment(image, labels, int(self.generator.integers(2**62)), augmentation)

    def late_change(self, size: tuple[int, ...], augmentation: str) -> Change:
        """The choices of :meth:`change`, for an image that is changed elsewhere.

        Args:
            size: Its height and width.
            augmentation: The name of an augmentation that draws before it looks.
        """
        return drawn_change(size, int(self.generator.integers(2**62)), augmentation)

    def crop_area(self, low: float, high: float) -> float:
        """The area of a crop as a fraction of the image's."""
        return float(self.generator.uniform(low, high))

    def crop_corner(self, room: Sequence[int]) -> tuple[int, int]:
        """The upper left corner ``y, x`` of a crop, each from 0 to the pixels left over."""
        y, x = (int(self.generator.integers(pixels + 1)) for pixels in room)
        return y, x

    def angle(self, most: float) -> float:
        """The angle of a rotation in degrees, at most a given one in either direction."""
        return float(self.generator.uniform(-most, most))

    def lies_anywhere(self) -> bool:
        """Whether a tile need not contain an object; true in half of the cases."""
        return bool(self.generator.random() < 0.5)

    def one_of(self, values: NDArray[np.integer]) -> int:
        """One of some objects, or of some pixels."""
        return int(self.generator.choice(values))

    def tile_corner(self, low: Sequence[int], high: Sequence[int]) -> tuple[int, int]:
        """The upper left corner ``y, x`` of a tile, between ``low`` and ``high``, both included."""
        sides = zip(low, high, strict=True)
        y, x = (int(self.generator.integers(first, last + 1)) for first, last in sides)
        return y, x

    def shift(self, most: float) -> NDArray[np.float64]:
        """The shift of a crop around an object, ``(2,)``, at most a number of pixels."""
        return self.generator.uniform(-most, most, 2)

    def margin(self, low: float, high: float) -> float:
        """The factor of a crop's margin around an object."""
        return float(self.generator.uniform(low, high))

    def mode(self, count: int) -> int:
        """The index of the prompt mode for an image, among a number of modes."""
        return int(self.generator.integers(count))

    def modes(self, count: int, objects: int) -> NDArray[np.int64]:
        """The index of the prompt mode for each object, ``(objects,)``."""
        return self.generator.integers(count, size=objects)

    def some_of(self, objects: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        """A number of an image's objects, each at most once."""
        return self.generator.choice(objects, count, replace=False)

    def points(self, pixels: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        """A number of an object's pixels, ``(count,)``."""
        return self.generator.choice(pixels, count)

    def jitter(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """The shift of each side of a box as a fraction of the allowed maximum, -1 to 1."""
        return self.generator.uniform(-1, 1, shape)

    def swelling(self, most: int, objects: int) -> NDArray[np.int64]:
        """The pixels by which each mask prompt grows or shrinks, ``(objects,)``."""
        return self.generator.integers(-most, most + 1, size=objects)

    def mask_noise(self, shape: tuple[int, ...]) -> Tensor:
        """The noise of mask prompts, standard normal float32."""
        return torch.from_numpy(self.generator.standard_normal(shape, np.float32))


DRAWS: Registry[Draws] = Registry("draws", "data.redraw", "samtune.published")
"""The values of ``data.redraw``."""


@DRAWS.register("false")
class FirstDraws(Draws):
    """An image keeps the augmentation and prompts of the first epoch."""


@DRAWS.register("true")
class EpochDraws(Draws):
    """Each epoch draws augmentation and prompts anew."""

    varies = True

    @classmethod
    def of(cls, seed: int, epoch: int, index: int) -> Draws:
        """The choices of one example in one epoch."""
        return cls(np.random.default_rng((seed, epoch, index)))
