"""SAM's own decoder, frozen: only the adapter is trained."""

from __future__ import annotations

from torch import Tensor

from samtune.batch import Candidates, Masks
from samtune.decoders.base import DECODERS, Decoder, Features
from samtune.prompts import Prompts
from samtune.sam.model import Sam


@DECODERS.register("frozen")
class FrozenDecoder(Decoder):
    """The base's decoder as it is."""

    paper = "Kirillov et al. 2023, arXiv:2304.02643"
    sits = "SAM's mask decoder, untouched"
    learning_rate = None

    def __init__(self, sam: Sam, config: Decoder.Config) -> None:
        super().__init__()

    def sam_tensors(self) -> dict[str, Tensor]:
        """No tensor."""
        return {}

    def forward(
        self, sam: Sam, features: Features, prompts: Prompts, multimask: bool = False
    ) -> Masks:
        """Plain SAM's masks."""
        return sam.decode(features.embedding, prompts, features.frame, multimask)

    def candidates(
        self,
        sam: Sam,
        features: Features,
        prompts: Prompts,
        least: float,
        multimask: bool = False,
    ) -> Candidates:
        """The best of the same masks, with less work."""
        return sam.candidates(features.embedding, prompts, features.frame, least, multimask)
