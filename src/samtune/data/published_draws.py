"""The random numbers of CAT-SAM's published training, where every worker starts from one seed.

Its loader seeds each worker alike at the start of every epoch. So one image alone sees one view
with one prompt in all epochs, and so does each of 16 where a worker has one image per epoch, as on
the four GPUs that its authors name.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from samtune.data.labels import Labels
from samtune.data.transforms import turned

SEED = 3407
"""Of all three generators, in every worker and every epoch."""
GATE = 0.5
"""A mirror is made where the number drawn for it is below."""


class PublishedDraws(np.random.Generator):
    """What a worker draws for its first image of an epoch, in the place of NumPy's generator.

    Python's ``random`` decides on mirrors, crop and the kind of prompt, NumPy's old generator on
    pixels and objects, torch's on the noise of masks. Draws that CAT-SAM's training does not make
    are NumPy's own.
    """

    def __init__(self) -> None:
        super().__init__(np.random.PCG64(SEED))
        self._python = random.Random(SEED)
        self._numpy = np.random.RandomState(SEED)
        self._torch = torch.Generator().manual_seed(SEED)

    def changed(
        self, image: NDArray[np.uint8], labels: Labels, crop: bool
    ) -> tuple[NDArray[np.uint8], Labels]:
        """The image and its labels, top to bottom, then left to right, each in half of the cases.

        Args:
            image: ``(h, w, 3)``.
            labels: Its labels.
            crop: Whether a crop follows, which has a gate of its own.
        """
        upside_down, left_right = (self._python.random() < GATE for _ in range(2))
        if crop:
            self._python.random()
        # Two quarter turns swap both axes, so one of the two alone takes another swap.
        return turned(image, labels, 2 * upside_down, upside_down != left_right)

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        """The area of a crop."""
        if size is not None:
            return super().uniform(low, high, size)
        return self._python.uniform(low, high)

    def integers(self, low: Any, high: Any = None, size: Any = None, *args: Any, **k: Any) -> Any:
        """Where a crop lies, and the kind of prompt."""
        if high is not None:
            return super().integers(low, high, size, *args, **k)
        count = 1 if size is None else int(np.prod(size))
        drawn = [self._python.randint(0, int(low) - 1) for _ in range(count)]
        return drawn[0] if size is None else np.reshape(drawn, size)

    def choice(self, a: Any, size: Any = None, replace: bool = True, *args: Any, **k: Any) -> Any:
        """Some of an object's pixels, or of an image's objects: the first of a permutation."""
        drawn = self._numpy.permutation(a)
        return drawn[0] if size is None else np.resize(drawn, size)

    def standard_normal(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        """The noise of masks."""
        return torch.randn(size, generator=self._torch).numpy().astype(dtype)
