"""The common part of formats of plain SAM, in whose weights the effect of the adapter is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from samtune.exports.base import Ask, Job, LastImage
from samtune.exports.checks import Reference
from samtune.model.finetuned import FineTuned
from samtune.sam.model import Sam

CUT_AT_0 = (
    "SAM's own weights, whose masks are cut at 0; leave it out and cut the logits there, or export "
    "to onnx"
)
"""The reason against a threshold: no weight of SAM's decoder can move its masks."""


class PlainAnswers:
    """A plain SAM at work, as SAM's own predictor runs it.

    Args:
        job: The job of the exported model.
        sam: The SAM as read from the exported files.
    """

    kinds: Sequence[str] = ("box", "point", "mask", "none")

    def __init__(self, job: Job, sam: Sam) -> None:
        self._same = replace(job, model=FineTuned(sam, input=job.model.input).eval())
        plain = FineTuned(sam).eval()
        is_plain = plain.input == job.model.input
        self._plain = None if is_plain else replace(job, model=plain)
        self._encoded = LastImage[Reference]()

    def same_pixels(self, image: NDArray[np.uint8], ask: Ask) -> NDArray[np.float32]:
        """Logits ``(1, h, w)``, see :class:`samtune.exports.base.Answers`."""
        return self._about("same", self._same, image).logits(ask)

    def as_consumer(self, image: NDArray[np.uint8], ask: Ask) -> NDArray[np.float32] | None:
        """The same with images that enter as SAM's own do, whatever the model was tuned for."""
        if self._plain is None:
            return None
        fits = ask.mask is None or ask.mask.shape[1:] == self._plain.model.mask_size
        about = self._about("plain", self._plain, image)
        return about.logits(ask if fits else replace(ask, mask=None))

    def _about(self, whose: str, job: Job, image: NDArray[np.uint8]) -> Reference:
        """An image, which is encoded once for all that is asked of it."""
        return self._encoded.get(whose, image, lambda: Reference(job, image))
