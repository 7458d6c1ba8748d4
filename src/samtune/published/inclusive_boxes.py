"""``prompts.inclusive_boxes``: the boxes of CAT-SAM's training (Xiao et al. 2024)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from samtune.data.config import PromptConfig
from samtune.data.prompters import BOX_RULES, BoxRule


@BOX_RULES.register("inclusive_boxes")
class InclusiveBoxes(BoxRule):
    """Boxes end on the last pixel, not on its far edge."""

    @staticmethod
    def boxes(
        tight: NDArray[np.int64], size: tuple[int, ...], config: PromptConfig
    ) -> NDArray[np.int64]:
        """``xmin, ymin, xmax, ymax`` of the objects."""
        return tight - np.array([0, 0, 1, 1])
