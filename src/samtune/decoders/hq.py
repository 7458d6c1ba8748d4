r"""SAM-HQ's decoder (Ke et al. 2023, arXiv:2306.01567): a new token on the frozen decoder.

With SAM's upscaled image :math:`U`, its image embedding :math:`E`, the stream :math:`X` after the
first global block and the decoder's last state :math:`h'` of the new token :math:`h`:

.. math::
    F &= \mathrm{up}_E(E) + \mathrm{up}_X(X), \quad
    U_{hq} = \mathrm{conv}(U) + F, \quad
    m_{hq} = \mathrm{MLP}(h') \cdot U_{hq}

CAT-SAM (Xiao et al. 2024, arXiv:2402.03631) has the same decoder, and its adapters read :math:`h`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from samtune.batch import Masks
from samtune.decoders.base import DECODERS, Decoder, Features
from samtune.errors import InputError
from samtune.prompts import Prompts
from samtune.sam.layers import LayerNorm2d
from samtune.sam.mask_decoder import Head
from samtune.sam.model import Sam
from samtune.sam.spec import SamSpec


@DECODERS.register("hq")
class HqDecoder(Decoder):
    """A high-quality token with its own head and image features; SAM's decoder stays frozen.

    It predicts one mask per prompt. The estimated IoU is that of SAM's mask, because the published
    head has no estimate.
    """

    paper = "Ke et al. 2023, arXiv:2306.01567"
    sits = "a sixth token and its head, on the frozen decoder"
    forms: ClassVar = {"sum": {"combine": "sum"}}
    learning_rate = 1e-3
    changes_at_start = "its token and its layers start at random"

    @dataclass(frozen=True)
    class Config(Decoder.Config):
        """Options of :class:`HqDecoder`."""

        combine: Literal["hq", "sum"] = "hq"
        """The mask in evaluation: ``hq``, the new token's mask, as CAT-SAM; ``sum``, its sum with
        SAM's mask, as SAM-HQ. Training uses the new token's mask, as both do."""

    @classmethod
    def check(cls, spec: SamSpec) -> None:
        """Refuses bases without a global block.

        Raises:
            InputError: The base has no global block.
        """
        if not spec.global_blocks:
            raise _no_global_block(spec)

    def __init__(self, sam: Sam, config: Config) -> None:
        super().__init__()
        self.check(sam.spec)
        dim, blocks = sam.spec.prompt_dim, sam.image_encoder.blocks
        self.combine, self._tap = config.combine, _first_global_block(sam)
        self.hf_token = nn.Embedding(1, dim)
        self.hf_mlp = Head(dim, dim, dim // 8)
        self.compress_vit_feat = _fourfold(blocks[self._tap].dim, dim, dim // 8)
        self.embedding_encoder = _fourfold(dim, dim // 4, dim // 8)
        self.embedding_maskfeature = nn.Sequential(
            nn.Conv2d(dim // 8, dim // 4, kernel_size=3, padding=1),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.Conv2d(dim // 4, dim // 8, kernel_size=3, padding=1),
        )

    @property
    def tokens(self) -> Tensor:
        """The high-quality token ``(1, prompt_dim)``, with its graph: adapters can train it."""
        return self.hf_token.weight

    @property
    def taps(self) -> tuple[int, ...]:
        """The index of the first global block."""
        return (self._tap,)

    def fuse(self, features: Features) -> Tensor:
        """Fuses early and final features of each image, ``(B, prompt_dim / 8, 4H, 4W)``."""
        early = features.taps[self._tap].permute(0, 3, 1, 2)
        return self.embedding_encoder(features.embedding) + self.compress_vit_feat(early)

    def forward(
        self, sam: Sam, features: Features, prompts: Prompts, multimask: bool = False
    ) -> Masks:
        """Predicts one mask per prompt.

        ``multimask`` only affects SAM's mask: the best of its three masks by estimated IoU replaces
        its single mask.
        """
        encoder, decoder = sam.prompt_encoder, sam.mask_decoder
        grid = (features.embedding.shape[-2], features.embedding.shape[-1])
        tokens, image = decoder.transform(
            features.embedding[prompts.image],
            encoder.dense_positions(grid),
            encoder(prompts, features.frame, grid),
            self.tokens,
        )
        upscaled = decoder.output_upscaling(image)
        fine = self.embedding_maskfeature(upscaled) + self.fuse(features)[prompts.image]
        logits = torch.einsum("nc,nchw->nhw", self.hf_mlp(tokens[:, -1]), fine)[:, None]
        plain = decoder.read(tokens, upscaled, multimask).best()
        if self.combine == "sum" and not self.training:
            logits = logits + plain.logits
        return Masks(logits, plain.iou)


def _first_global_block(sam: Sam) -> int:
    """The first global block on the grid of the image embedding, whose stream is fused with it."""
    encoder = sam.image_encoder
    for i, block in enumerate(encoder.blocks):
        if not block.window and block.stride == encoder.stride:
            return i
    raise _no_global_block(sam.spec)


def _no_global_block(spec: SamSpec) -> InputError:
    return InputError(
        f"decoder.name=hq: reads the stream after the first global block, and {spec.name} has "
        "none; choose another decoder"
    )


def _fourfold(dim: int, hidden: int, out: int) -> nn.Sequential:
    """``(B, dim, H, W)`` to ``(B, out, 4H, 4W)``."""
    return nn.Sequential(
        nn.ConvTranspose2d(dim, hidden, kernel_size=2, stride=2),
        LayerNorm2d(hidden),
        nn.GELU(),
        nn.ConvTranspose2d(hidden, out, kernel_size=2, stride=2),
    )
