"""Decoder fine-tuning: a fully trained copy of SAM's mask decoder."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from torch import Tensor

from samtune.batch import Candidates, Masks
from samtune.decoders.base import DECODERS, UNPROMPTED_RATE, Decoder, Features
from samtune.prompts import Prompts
from samtune.sam.model import Sam


@DECODERS.register("tuned")
class TunedDecoder(Decoder):
    """A trained copy of the base's mask decoder, optionally with the prompt encoder."""

    paper = "Ma et al. 2024 (MedSAM), arXiv:2304.12306"
    sits = "a trained copy of SAM's mask decoder"
    unprompted_rate = UNPROMPTED_RATE
    untrained = ("mask_decoder.iou_prediction_head", "mask_decoder.output_hypernetworks_mlps")

    @dataclass(frozen=True)
    class Config(Decoder.Config):
        """Options of :class:`TunedDecoder`."""

        prompt_encoder: bool = False
        """Train a copy of the prompt encoder too."""

    def __init__(self, sam: Sam, config: Config) -> None:
        super().__init__()
        self.mask_decoder = copy.deepcopy(sam.mask_decoder).requires_grad_(True)
        self.prompt_encoder = (
            copy.deepcopy(sam.prompt_encoder).requires_grad_(True)
            if config.prompt_encoder
            else None
        )

    def sam_tensors(self) -> dict[str, Tensor]:
        """All of its tensors, which have SAM's names."""
        return {name: tensor.detach().clone() for name, tensor in self.state_dict().items()}

    def forward(
        self, sam: Sam, features: Features, prompts: Prompts, multimask: bool = False
    ) -> Masks:
        """Predicts the copy's masks."""
        return sam.decode(
            features.embedding,
            prompts,
            features.frame,
            multimask,
            self.mask_decoder,
            self.prompt_encoder,
        )

    def candidates(
        self,
        sam: Sam,
        features: Features,
        prompts: Prompts,
        least: float,
        multimask: bool = False,
    ) -> Candidates:
        """The best of the same masks, with less work."""
        return sam.candidates(
            features.embedding,
            prompts,
            features.frame,
            least,
            multimask,
            self.mask_decoder,
            self.prompt_encoder,
        )
