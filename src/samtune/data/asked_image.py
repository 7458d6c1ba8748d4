"""The prompts of one image with their targets, before they come into the model's frame."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from samtune.batch import ObjectMap
from samtune.data.late_masks import LateMasks
from samtune.prompts import Prompts


class AskedImage(NamedTuple):
    """The prompts of one image in the original frame, with objects, and targets in both frames."""

    prompts: Prompts
    targets: Tensor
    originals: Tensor
    classes: NDArray[np.int64]
    map: ObjectMap | None = None
    """The object map that replaces both targets."""

    def with_late(self, late: LateMasks | None) -> AskedImage:
        """A copy whose mask prompts are computed when they are needed."""
        return self if self.map is None else self._replace(map=replace(self.map, late=late))
