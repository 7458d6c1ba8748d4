"""``data.redraw=published``: the random numbers of CAT-SAM's training (Xiao et al. 2024).

Its loader gives each worker the same seed at the start of every epoch. A single training image
therefore has the same augmentation and prompt in all epochs; so does each of 16 images if a worker
has one image per epoch, as on the four GPUs that the authors name.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samtune.data.augmentations import turn
from samtune.data.changes import acts_in_frame
from samtune.data.config import DataConfig
from samtune.data.draws import DRAWS, Draws
from samtune.data.labels import Labels
from samtune.errors import InputError

SEED = 3407
"""Seed of all three generators, in every worker and every epoch."""
GATE = 0.5
"""The image is mirrored if the number drawn for it is below this."""


@DRAWS.register("published")
class SeededWorkers(Draws):
    """All images get the same draws in all epochs, as in CAT-SAM; needs data.augment=mirrors.

    Python's ``random`` decides on mirrors, crop and the mode of prompts, NumPy's old generator on
    pixels and objects, torch's on the noise of masks. Draws that CAT-SAM's training does not have
    come from a NumPy generator with the same seed.
    """

    cuts_apart = True

    def __init__(self) -> None:
        super().__init__(np.random.default_rng(SEED))
        self._python = random.Random(SEED)
        self._numpy = np.random.RandomState(SEED)
        self._torch = torch.Generator().manual_seed(SEED)

    @classmethod
    def of(cls, seed: int, epoch: int, index: int) -> Draws:
        """The same draws for every image in every epoch."""
        return cls()

    @classmethod
    def check(cls, data: DataConfig) -> None:
        """Refuses other changes of the image than mirrors and crops by area.

        Raises:
            InputError: Other changes are set; the message says what to set instead.
        """
        if data.augment != "mirrors" or acts_in_frame(data):
            raise InputError(
                f"data.redraw={cls.name}: repeats CAT-SAM's draws, which mirror and crop the "  # type: ignore[attr-defined]
                f"image; data.augment={data.augment} data.rotate={data.rotate:g} "
                f"data.crop={data.crop} are other changes; set data.augment=mirrors, leave "
                "data.rotate out, and crop by area such as data.crop=[0.1,1]; or set "
                "data.redraw=true"
            )

    def change(
        self, image: NDArray[np.uint8], labels: Labels, augmentation: str, crops: bool
    ) -> tuple[NDArray[np.uint8], Labels]:
        """Top to bottom, then left to right, each in half of the cases; a crop has its own gate."""
        upside_down, left_right = (self._python.random() < GATE for _ in range(2))
        if crops:
            self._python.random()
        # Two quarter turns swap both axes, so a single mirror takes one more swap.
        return turn(image, labels, 2 * upside_down, upside_down != left_right)

    def crop_area(self, low: float, high: float) -> float:
        """Draws from Python's generator."""
        return self._python.uniform(low, high)

    def crop_corner(self, room: Sequence[int]) -> tuple[int, int]:
        """Draws from Python's generator."""
        y, x = (self._python.randint(0, pixels) for pixels in room)
        return y, x

    def margin(self, low: float, high: float) -> float:
        """Draws from Python's generator."""
        return self._python.uniform(low, high)

    def mode(self, count: int) -> int:
        """Draws from Python's generator."""
        return self._python.randint(0, count - 1)

    def modes(self, count: int, objects: int) -> NDArray[np.int64]:
        """Draws from Python's generator."""
        return np.array([self._python.randint(0, count - 1) for _ in range(objects)], np.int64)

    def one_of(self, values: NDArray[np.integer]) -> int:
        """Takes the first of a permutation."""
        return int(self._numpy.permutation(values)[0])

    def some_of(self, objects: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        """Takes the first of a permutation."""
        return np.resize(self._numpy.permutation(objects), count)

    def points(self, pixels: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        """Takes the first of a permutation, and starts again if there are too few."""
        return np.resize(self._numpy.permutation(pixels), count)

    def mask_noise(self, shape: tuple[int, ...]) -> Tensor:
        """Draws from torch's generator."""
        return torch.randn(shape, generator=self._torch)
