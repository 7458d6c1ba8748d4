"""The sizes of the bases: the official three, MobileSAM and samtune's own small one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """The sizes of one stage of a hierarchical encoder; TinyViT's first stage has no heads."""

    dim: int
    depth: int
    heads: int = 0
    window: int = 0


@dataclass(frozen=True)
class SamSpec:
    """The sizes of one SAM; the defaults are common to the official three."""

    name: str
    embed_dim: int
    """Width of the token stream; for a hierarchical encoder, the width at its end."""
    depth: int
    """Number of blocks with attention."""
    heads: int
    global_blocks: tuple[int, ...]
    image_size: int = 1024
    """Native side of the square input in pixels."""
    patch_size: int = 16
    """Pixels from one token of the image embedding to the next."""
    window: int = 14
    mlp_ratio: float = 4.0
    prompt_dim: int = 256
    decoder_hidden: int = 2048
    iou_hidden: int = 256
    pixel_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    """Mean per channel, RGB, in the 0..255 range."""
    pixel_std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    encoder: str = "vit"
    """The kind of image encoder, by its name in :data:`samtune.sam.encoder.ENCODERS`."""
    stages: tuple[Stage, ...] = ()
    """The stages of a hierarchical encoder."""

    @property
    def grid(self) -> tuple[int, int]:
        """The native grid ``(H, W)`` of the image embedding."""
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
            encoder="tiny_vit",
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
