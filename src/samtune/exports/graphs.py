"""The parts of a model as modules of tensors alone, which exporters trace.

A prompted model becomes two: an encoder, which runs once per image, and a decoder, which runs once
per prompt and has the inputs and outputs of the official ``SamOnnxModel``. A model that takes no
prompts becomes one.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samtune.decoders import Features
from samtune.errors import InputError
from samtune.model.finetuned import FineTuned
from samtune.prompts import Prompts

Pixels = Literal["image", "planes", "normalised"]
"""``image``: ``(h, w, 3)`` in 0..255, resized; ``planes``: the same as ``(1, 3, h, w)``, floats or
bytes; ``normalised``: ``(1, 3, H, W)``, padded, as SAM's own are."""


def check_traceable(model: FineTuned) -> None:
    """Refuses a model whose way of bringing images in or masks back has no traced form.

    Raises:
        InputError: Such a model.
    """
    way, frame = model.input.way(), model.input.size
    try:
        way.traced_content(torch.ones(2), frame)
    except NotImplementedError as error:
        raise InputError(
            f"input.resize={model.input.resize}: {error}; samtune predict runs the checkpoint, and "
            "so do the formats cvat and label-studio"
        ) from error


class Graph(nn.Module):
    """A part of a model, whose programs hold the weights that it reads and no others.

    Args:
        model: In evaluation mode.
    """

    def __init__(self, model: FineTuned) -> None:
        super().__init__()
        self._model = (model,)  # a tuple, else a program has all weights of the model

    @property
    def model(self) -> FineTuned:
        """The model."""
        return self._model[0]


class EncoderGraph(Graph):
    """The image encoder with its adapter: pixels to one tensor that the decoder takes.

    What the decoder reads besides the embedding are further channels of that tensor.

    Args:
        model: In evaluation mode.
        pixels: The kind of input.
    """

    def __init__(self, model: FineTuned, pixels: Pixels = "image") -> None:
        super().__init__(model)
        self.adapter, self.pixels = model.acting.adapter, pixels
        policy, spec = model.input, model.sam.spec
        self.frame, self.flips = policy.size, policy.channels == "bgr"
        constants = (policy.mean or spec.pixel_mean, policy.std or spec.pixel_std)
        mean, std = (torch.tensor(value)[:, None, None] for value in constants)
        # Consumers that normalise do it with SAM's constants, in the order red, green, blue.
        order = -1 if self.flips else 1
        sam_mean, sam_std = (
            torch.tensor(value[::order])[:, None, None]
            for value in (spec.pixel_mean, spec.pixel_std)
        )
        plain = pixels != "normalised"
        self.register_buffer("gain", (1 if plain else sam_std) / std, persistent=False)
        self.register_buffer("shift", ((0 if plain else sam_mean) - mean) / std, persistent=False)
        as_sam = (spec.pixel_mean, spec.pixel_std)
        self.is_sam_normalised = constants == as_sam and not self.flips

    gain: Tensor
    shift: Tensor

    def forward(self, image: Tensor) -> Tensor:
        """The embedding, and what else the decoder reads, as ``(1, C, H, W)``.

        Args:
            image: RGB, see :data:`Pixels`.
        """
        return pack(self.features(image))

    def features(self, image: Tensor) -> Features:
        """The input of a decoder, see :meth:`forward`."""
        x = self.normalise(image)
        if self.pixels != "normalised":
            h, w = self.frame
            x = F.pad(x, (0, w - x.shape[3], 0, h - x.shape[2]))
        return self.model.encode(x)

    def normalise(self, image: Tensor) -> Tensor:
        """Pixels as the encoder was trained with them, ``(1, 3, h, w)``, not padded further."""
        x = image.permute(2, 0, 1)[None] if self.pixels == "image" else image
        if self.flips:
            x = x.flip(1)
        if self.pixels != "normalised" or not self.is_sam_normalised:
            changed = x * self.gain + self.shift
            # Padding after normalisation stays 0, which no pixel of an image is.
            is_padding = (x == 0).all(1, keepdim=True)
            x = changed if self.pixels != "normalised" else torch.where(is_padding, 0.0, changed)
        return x


class DecoderGraph(Graph):
    """The decoder for ``B`` prompts on one image, with the official names of inputs and outputs.

    Args:
        model: In evaluation mode, with a decoder that takes prompts.
        threshold: Logits of masks above it are inside; it is subtracted, because tools cut at 0.
        enlarges: Whether masks come at the image's size; else their low resolution alone does.
    """

    def __init__(self, model: FineTuned, threshold: float = 0.0, enlarges: bool = True) -> None:
        super().__init__(model)
        self.decoder, self.threshold, self.enlarges = model.acting.decoder, threshold, enlarges
        self.way, self.frame = model.input.way(), model.input.size

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
        orig_im_size: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Masks, their estimated IoU and their logits of low resolution.

        Args:
            image_embeddings: ``(1, C, H, W)``, of :class:`EncoderGraph`.
            point_coords: ``(B, n, 2)`` xy in the model's frame.
            point_labels: ``(B, n)``: 1 inside, 0 outside, 2 and 3 a box's corners, -1 SAM's padding
                point, -10 nothing at all.
            mask_input: ``(B, 1, 4H, 4W)`` logits of an earlier answer.
            has_mask_input: ``(1,)`` or ``(B,)``: above one half if there is one.
            orig_im_size: ``(2,)`` height and width of the image; not read if masks stay as they
                are.

        Returns:
            Masks ``(B, K, h, w)`` as logits of the image's size, ``(B, K)``, and ``(B, K, 4H,
            4W)``.
        """
        labels = point_labels.to(torch.int64)
        is_point = (labels >= 0)[..., None]
        coords = torch.where(is_point, self.way.traced_points(point_coords), point_coords)
        prompts = Prompts(
            coords, labels, torch.zeros_like(labels[:, 0]), mask_input, has_mask_input > 0.5
        )
        masks = self.decoder(self.model.sam, unpack(self.model, image_embeddings), prompts)
        low = masks.logits - self.threshold
        if not self.enlarges:
            return low, masks.iou, low
        assert orig_im_size is not None, "masks of the image's size need that size"
        return self.way.traced_logits(low, orig_im_size, self.frame), masks.iou, low


class WholeGraph(Graph):
    """A model without prompts: an image to the logits of its mask, or of its classes.

    Args:
        model: In evaluation mode.
        threshold: See :class:`DecoderGraph`.
    """

    def __init__(self, model: FineTuned, threshold: float = 0.0) -> None:
        super().__init__(model)
        self.encoder, self.decoder = EncoderGraph(model), model.acting.decoder
        self.threshold = threshold
        self.way, self.frame = model.input.way(), model.input.size

    def forward(self, image: Tensor, orig_im_size: Tensor) -> Tensor:
        """Logits ``(K, h, w)`` of the image's size.

        Args:
            image: ``(h', w', 3)`` RGB in 0..255, resized as the input policy says.
            orig_im_size: ``(2,)`` height and width of the image before that.
        """
        return self.way.traced_logits(self.low(image), orig_im_size, self.frame)[0]

    def low(self, image: Tensor) -> Tensor:
        """Logits ``(1, K, h, w)`` of the decoder's resolution, see :meth:`forward`."""
        prompts = Prompts.of(count=1).to(image.device)
        masks = self.decoder(self.model.sam, self.encoder.features(image), prompts)
        return masks.logits - self.threshold


def pack(features: Features) -> Tensor:
    """The input of a decoder as one tensor ``(B, C, H, W)``: the embedding first, then the taps."""
    taps = [tap.permute(0, 3, 1, 2) for _, tap in sorted(features.taps.items())]
    return torch.cat([features.embedding, *taps], 1) if taps else features.embedding


def packed_widths(model: FineTuned) -> list[int]:
    """The channels of each part of :func:`pack`, in its order."""
    taps, blocks = sorted(model.acting.decoder.taps), model.sam.image_encoder.blocks
    return [model.sam.spec.prompt_dim, *(blocks[i].dim for i in taps)]


def unpack(model: FineTuned, packed: Tensor) -> Features:
    """The inverse of :func:`pack`."""
    embedding, *streams = packed.split(packed_widths(model), 1)
    taps = sorted(model.acting.decoder.taps)
    by_block = {i: s.permute(0, 2, 3, 1) for i, s in zip(taps, streams, strict=True)}
    return Features(embedding, model.input.size, by_block)
