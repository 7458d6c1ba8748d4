"""The base as a whole: its parts and its pixel normalisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from samtune.batch import Candidates, Masks
from samtune.errors import InputError
from samtune.geometry import InputPolicy
from samtune.prompts import Prompts
from samtune.sam.encoder import ENCODERS
from samtune.sam.many_prompts import ImageSide, decode_by_image, pays_off
from samtune.sam.mask_decoder import MaskDecoder
from samtune.sam.prompt_encoder import PromptEncoder
from samtune.sam.spec import SPECS, SamSpec

__all__ = ["SPECS", "Sam", "SamSpec", "content_mask"]


class Sam(nn.Module):
    """The Segment Anything Model with the official parameter names.

    ``samtune.load_sam`` returns it frozen and in evaluation mode; samtune does not change it after
    that.
    """

    def __init__(self, spec: SamSpec) -> None:
        super().__init__()
        self.spec = spec
        self.image_encoder = ENCODERS[spec.encoder](spec)
        self.prompt_encoder = PromptEncoder(spec.prompt_dim)
        self.mask_decoder = MaskDecoder(spec.prompt_dim, spec.decoder_hidden, spec.iou_hidden)

    @property
    def device(self) -> torch.device:
        """The device of its parameters."""
        return self.prompt_encoder.no_mask_embed.weight.device

    @property
    def input_policy(self) -> InputPolicy:
        """How images enter by default: fitted to the native square, filled as in SAM's training."""
        return InputPolicy((self.spec.image_size,) * 2, self.image_encoder.resize)

    def freeze(self) -> Sam:
        """Disables all gradients and fixes evaluation mode; returns itself."""
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
            mean: RGB in 0..255; by default the specification's.
            std: Standard deviations, like ``mean``.
        """
        if pixels.ndim != 4 or pixels.shape[1] != 3:
            raise InputError(
                f"pixels of shape {tuple(pixels.shape)}: must be (B, 3, h, w), RGB in 0..255"
            )
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
        """Predicts masks of ``N`` prompts from the image embeddings ``(B, C, H, W)``.

        Args:
            embedding: Output of the image encoder.
            prompts: Prompts in pixels of ``frame``.
            frame: ``(h, w)`` of the model's input.
            multimask: Three masks instead of one.
            decoder: Another decoder of the same kind in place of the base's.
            prompt_encoder: Another prompt encoder in place of the base's.
        """
        grid = (embedding.shape[-2], embedding.shape[-1])
        encoder = prompt_encoder or self.prompt_encoder
        embedded = encoder(prompts, frame, grid)
        positions, decoder = encoder.dense_positions(grid), decoder or self.mask_decoder
        if pays_off(decoder, embedding, embedded):
            how = embedded, prompts.image, multimask
            return decode_by_image(decoder, embedding, positions, *how)
        return decoder(embedding[prompts.image], positions, embedded, multimask)

    def candidates(
        self,
        embedding: Tensor,
        prompts: Prompts,
        frame: tuple[int, int],
        least: float,
        multimask: bool = False,
        decoder: MaskDecoder | None = None,
        prompt_encoder: PromptEncoder | None = None,
    ) -> Candidates:
        """The masks of ``N`` prompts whose estimated IoU is above ``least``.

        They are those of :meth:`decode`. Points and boxes on one image are decoded with less work,
        see :mod:`samtune.sam.many_prompts`.

        Args:
            embedding: The embedding; it and the other arguments are those of :meth:`decode`.
            prompts: Prompts in pixels of ``frame``.
            frame: ``(h, w)`` of the model's input.
            least: Minus infinity for all masks.
            multimask: Three masks instead of one.
            decoder: Another decoder in place of the base's.
            prompt_encoder: Another prompt encoder in place of the base's.
        """
        grid = (embedding.shape[-2], embedding.shape[-1])
        encoder = prompt_encoder or self.prompt_encoder
        embedded = encoder(prompts, frame, grid)
        is_alike = len(embedding) == 1 and prompts.masks is None and embedded.present is None
        if not is_alike or not len(prompts):
            answer = self.decode(embedding, prompts, frame, multimask, decoder, prompt_encoder)
            return Candidates.of(answer, least)
        positions = encoder.dense_positions(grid)
        side = ImageSide(decoder or self.mask_decoder, embedding, embedded.dense, positions)
        return side.candidates(embedded.sparse, multimask, least)

    def forward(
        self, pixels: Tensor, prompts: Prompts, sizes: Tensor | None = None, multimask: bool = False
    ) -> Masks:
        """Plain SAM, from pixels in 0..255 and prompts to low-resolution mask logits."""
        embedding = self.image_encoder(self.preprocess(pixels, sizes))
        return self.decode(embedding, prompts, (pixels.shape[-2], pixels.shape[-1]), multimask)


def content_mask(sizes: Tensor, frame: torch.Size | tuple[int, ...]) -> Tensor:
    """``(B, h, w)`` bool: true on the image, false on the padding to its right and below it."""
    h, w = frame
    rows = torch.arange(h, device=sizes.device)[None, :, None] < sizes[:, 0, None, None]
    columns = torch.arange(w, device=sizes.device)[None, None] < sizes[:, 1, None, None]
    return rows & columns
