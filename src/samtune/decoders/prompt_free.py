"""A trained mask decoder for use without prompts, as in SAM-Adapter.

Source: Chen et al. 2023 (arXiv:2304.09148). There is no prompt encoder: the sparse embeddings are
    empty, and the dense embedding is one learned vector for all cells.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn
from torch.func import functional_call

from samtune.batch import Masks
from samtune.decoders.base import DECODERS, UNPROMPTED_RATE, Decoder, Features
from samtune.prompts import Prompts
from samtune.sam.model import Sam
from samtune.sam.prompt_encoder import PositionEmbeddingRandom


@DECODERS.register("prompt_free")
class PromptFreeDecoder(Decoder):
    """A trained copy of the base's mask decoder, with its own embedding for "no mask".

    If prompts are given nevertheless, the base's frozen prompt encoder encodes them.
    """

    paper = "Chen et al. 2023 (SAM-Adapter), arXiv:2304.09148"
    sits = "a trained copy of SAM's mask decoder and of its dense embedding without a mask"
    forms: ClassVar = {"random": {"start": "random"}}
    unprompted_rate = UNPROMPTED_RATE
    untrained = ("mask_decoder.iou_prediction_head", "mask_decoder.output_hypernetworks_mlps")

    @dataclass(frozen=True)
    class Config(Decoder.Config):
        """Options of :class:`PromptFreeDecoder`."""

        start: Literal["pretrained", "random"] = "pretrained"
        """Initial "no mask" embedding and position code: ``pretrained``, the base's; ``random``,
        drawn anew, as in the published code, which does not load them."""

    def __init__(self, sam: Sam, config: Config) -> None:
        super().__init__()
        self.mask_decoder = copy.deepcopy(sam.mask_decoder).requires_grad_(True)
        self.no_mask_embed = nn.Embedding(1, sam.spec.prompt_dim)
        self.pe_layer: PositionEmbeddingRandom | None = None
        if config.start == "random":
            self.changes_at_start = "its position code starts at random"  # type: ignore[misc]
            self.pe_layer = PositionEmbeddingRandom(sam.spec.prompt_dim // 2)
        else:
            with torch.no_grad():
                self.no_mask_embed.weight.copy_(sam.prompt_encoder.no_mask_embed.weight)

    def forward(
        self, sam: Sam, features: Features, prompts: Prompts, multimask: bool = False
    ) -> Masks:
        """Predicts one mask, or three, for each of ``N`` prompts, which are usually empty."""
        grid = (features.embedding.shape[-2], features.embedding.shape[-1])
        tensors = {"no_mask_embed.weight": self.no_mask_embed.weight}
        positions = self.pe_layer or sam.prompt_encoder.pe_layer
        for name, buffer in positions.named_buffers():
            tensors[f"pe_layer.{name}"] = buffer
        embedded = functional_call(sam.prompt_encoder, tensors, (prompts, features.frame, grid))
        embedding = features.embedding[prompts.image]
        return self.mask_decoder(embedding, positions.dense(grid), embedded, multimask)
