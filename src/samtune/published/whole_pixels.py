"""``input.round_prompts``: CAT-SAM (Xiao et al. 2024) rounds prompts to pixels of its frame."""

from __future__ import annotations

from torch import Tensor

from samtune.geometry import INPUT_RULES, Geometry, InputRule


@INPUT_RULES.register("round_prompts")
class WholePixels(InputRule):
    """Coordinates in the model's frame are rounded to whole numbers."""

    is_traceable = True

    def points(self, xy: Tensor, geometry: Geometry) -> Tensor:
        """Maps points ``(..., 2)`` from the original to whole pixels of the model frame."""
        return super().points(xy, geometry).round()

    def traced_points(self, xy: Tensor) -> Tensor:
        """Rounds points ``(..., 2)`` in the model frame."""
        return super().traced_points(xy).round()
