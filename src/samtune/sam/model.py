"""The base as a whole: its sizes, its parts, its pixel normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from samtune.sam.image_encoder import ImageEncoder
from samtune.sam.mask_decoder import MaskDecoder
from samtune.sam.prompt_encoder import PromptEncoder
from samtune.sam.tiny_vit import TinyViT
from samtune.types import Masks, Prompts


@dataclass(frozen=True)
class Stage:
    """The sizes of one of TinyViT's stages; the first has convolutions and no heads."""

    dim: int
    depth: int
    heads: int = 0
    window: int = 0


@dataclass(frozen=True)
class SamSpec:
    """The sizes that make one SAM; the defaults are common to the official three."""

    name: str
    embed_dim: int
    """Width of the token stream, of TinyViT's at its end."""
    depth: int
    """Blocks with attention."""
    heads: int
    global_blocks: tuple[int, ...]
    image_size: int = 1024
    """Native side of the square input in pixels."""
    patch_size: int = 16
    window: int = 14
    mlp_ratio: float = 4.0
    prompt_dim: int = 256
    decoder_hidden: int = 2048
    iou_hidden: int = 256
    pixel_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    """RGB, in the 0..255 range."""
    pixel_std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    stages: tuple[Stage, ...] = ()
    """The stages of a TinyViT; without them the image encoder is a ViT."""

    @property
    def encoder(self) -> str:
        """The kind of image encoder: ``vit`` or ``tiny_vit``."""
        return "tiny_vit" if self.stages else "vit"

    @property
    def grid(self) -> tuple[int, int]:
        """The native token grid ``(H, W)``."""
        return (self.image_size // self.patch_size,) * 2


SPECS: dict[str, SamSpec] = {
    spec.name: spec
    for spec in (
        SamSpec("vit_b", 768, 12, 12, (2, 5, 8, 11)),
        SamSpec("vit_l", 1024, 24, 16, (5, 11, 17, 23)),
        SamSpec("vit_h", 1280, 32, 16, (7, 15, 23, 31)),
        SamSpec(
            "vit_t",
            embed_dim=320,
            depth=10,
            heads=10,
            global_blocks=(),
            stages=(Stage(64, 2), Stage(128, 2, 4, 7), Stage(160, 6, 5, 14), Stage(320, 2, 10, 7)),
        ),
        SamSpec(
            "nano",
            embed_dim=128,
            depth=6,
            heads=4,
            global_blocks=(2, 5),
            image_size=256,
            patch_size=8,
            window=8,
            prompt_dim=128,
            decoder_hidden=512,
            iou_hidden=128,
        ),
    )
}
"""The bases by name: the official registry's, MobileSAM, and samtune's own small one."""


class Sam(nn.Module):
    """The Segment Anything Model with the official parameter names.

    ``samtune.load_sam`` gives it frozen and in evaluation mode; nothing in samtune changes it
    after that.
    """

    def __init__(self, spec: SamSpec) -> None:
        super().__init__()
        self.spec = spec
        # What adapters know is the ViT; those that fit another encoder say so (``encoders``) and
        # keep to what both have.
        encoder = TinyViT(spec) if spec.stages else ImageEncoder(spec)
        self.image_encoder = cast(ImageEncoder, encoder)
        self.prompt_encoder = PromptEncoder(spec.prompt_dim)
        self.mask_decoder = MaskDecoder(spec.prompt_dim, spec.decoder_hidden, spec.iou_hidden)

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        return self.prompt_encoder.no_mask_embed.weight.device

    def freeze(self) -> Sam:
        """Stops all gradients and fixes evaluation mode; returns itself."""
        return self.requires_grad_(False).eval()

    def preprocess(
        self,
        pixels: Tensor,
        sizes: Tensor | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
    ) -> Tensor:
        """Normalises pixels in 0..255; the padding becomes zero after it, as in the official code.

        Args:
            pixels: ``(B, 3, h, w)`` RGB of any dtype.
            sizes: ``(B, 2)`` height and width of the content; ``None`` when nothing is padded.
            mean: RGB in 0..255, in place of the specification's.
            std: As ``mean``.
        """
        like = self.prompt_encoder.no_mask_embed.weight
        shift, scale = (
            torch.tensor(v, dtype=like.dtype, device=pixels.device)[:, None, None]
            for v in (mean or self.spec.pixel_mean, std or self.spec.pixel_std)
        )
        x = (pixels.to(like.dtype) - shift) / scale
        return x if sizes is None else x * content_mask(sizes, x.shape[-2:])[:, None]

    def decode(
        self,
        embedding: Tensor,
        prompts: Prompts,
        frame: tuple[int, int],
        multimask: bool = False,
        decoder: MaskDecoder | None = None,
        prompt_encoder: PromptEncoder | None = None,
    ) -> Masks:
        """Masks of ``N`` prompts from the image embeddings ``(B, C, H, W)``.

        Args:
            embedding: From the image encoder.
            prompts: In the pixels of ``frame``.
            frame: ``(h, w)`` of the model's input.
            multimask: Three masks instead of one.
            decoder: Another decoder of the same kind in place of the base's.
            prompt_encoder: Another prompt encoder in place of the base's.
        """
        grid = (embedding.shape[-2], embedding.shape[-1])
        encoder = prompt_encoder or self.prompt_encoder
        embedded = encoder(prompts, frame, grid)
        positions = encoder.dense_positions(grid)
        return (decoder or self.mask_decoder)(
            embedding[prompts.image], positions, embedded, multimask
        )

    def forward(
        self, pixels: Tensor, prompts: Prompts, sizes: Tensor | None = None, multimask: bool = False
    ) -> Masks:
        """Plain SAM, from pixels in 0..255 and prompts to low-resolution mask logits."""
        embedding = self.image_encoder(self.preprocess(pixels, sizes))
        return self.decode(embedding, prompts, (pixels.shape[-2], pixels.shape[-1]), multimask)


def content_mask(sizes: Tensor, frame: torch.Size | tuple[int, ...]) -> Tensor:
    """``(B, h, w)`` bool: true where the image is, false in the padding right of and below it."""
    h, w = frame
    rows = torch.arange(h, device=sizes.device)[None, :, None] < sizes[:, 0, None, None]
    columns = torch.arange(w, device=sizes.device)[None, None] < sizes[:, 1, None, None]
    return rows & columns
