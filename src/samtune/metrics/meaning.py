"""The description of a metric, and words that many of them share.

Importing this module loads neither torch nor torchmetrics.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

HALF = "logit above 0 (probability above 0.5)"
ORIGINAL, FRAME = "the original image", "the model's frame, targets brought there by nearest pixel"


@dataclass(frozen=True)
class Measure:
    """One metric: the meaning of its value, and the class that computes it."""

    group: str
    meaning: str
    """The meaning in one line."""
    averaged: str
    """The averaging: of which values, over what."""
    empty: str
    """The value for an empty target or prediction."""
    family: str
    """The streaming metric that computes it, see :mod:`samtune.metrics.suite`."""
    key: str
    """Its name within the family."""
    higher: bool = True
    """Whether a higher number is better."""
    signed: bool = False
    """Whether 0 is the best number, and those on both sides of it are worse."""
    resolution: str = ORIGINAL
    threshold: str = HALF
    needs: tuple[str, ...] = ()
    """The inputs that it needs besides masks: ``probability``, ``class_probabilities`` (of a map),
    ``whole`` (all of the foreground), ``scores`` (the decoder's own estimates), ``frame`` (all of
    these in the model's frame too)."""
    source: str = ""
    masks: str = ""
    """The masks that it is of, for metrics that know others than those of prompts."""
    maps: bool = True
    """Whether it is defined for maps of classes."""
    made_by: Callable[..., Any] | None = None
    """Makes the streaming metric of one that another package brings."""

    @property
    def better(self) -> str:
        """The direction of better numbers, in a word or two."""
        return "closer to 0" if self.signed else "higher" if self.higher else "lower"


IMAGES = "mean over images"
"""The averaging of most metrics that are of an image as a whole."""
