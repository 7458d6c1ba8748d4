"""The position of an image in the model's frame, and how images enter a model.

All sizes are ``(height, width)`` in pixels. Coordinates are ``xy`` floats in pixels, origin top
left, as ``SamPredictor`` takes them (the prompt encoder adds the half pixel).
"""

from samtune.geometry.policy import (
    MOST_OVERLAP,
    PRESETS,
    InputConfig,
    InputPolicy,
    Preset,
    check_divided,
    multiples,
)
from samtune.geometry.ways import (
    INPUT_RULES,
    RESIZES,
    Geometry,
    InputRule,
    Longest,
    Resize,
    Stretch,
    nearest_pixels,
    resized_bytes,
)

__all__ = [
    "INPUT_RULES",
    "MOST_OVERLAP",
    "PRESETS",
    "RESIZES",
    "Geometry",
    "InputConfig",
    "InputPolicy",
    "InputRule",
    "Longest",
    "Preset",
    "Resize",
    "Stretch",
    "check_divided",
    "multiples",
    "nearest_pixels",
    "resized_bytes",
]
