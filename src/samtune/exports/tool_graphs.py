"""The two parts of a model for tools that bring images into a frame of their own.

A tool resizes an image in its way, and its frame need not be the model's. The encoder brings what
it gets into the model's frame, and writes next to the embedding how large the image was in the
tool's; the decoder reads that, so that points and masks are right without the tool's help.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samtune.exports.graphs import DecoderGraph, EncoderGraph, Pixels, pack
from samtune.model.finetuned import FineTuned
from samtune.ops.resize import shrinkage
from samtune.prompts import ABSENT, BOX_TOP_LEFT, NOT_A_POINT

SIZE_CHANNELS = 2
"""The channels that an encoder adds to the embedding: the image's height and width."""

HALF = 0.5 + 1e-4
"""Halves become the next larger byte, in spite of the noise of floats."""


class ToolEncoder(EncoderGraph):
    """The image encoder, for an image in a tool's frame.

    Args:
        model: In evaluation mode.
        pixels: The kind of input.
        has_margins: Whether the tool fills its frame up with zeros on the right or below; else
            every pixel is the image's.
    """

    def __init__(self, model: FineTuned, pixels: Pixels, has_margins: bool = False) -> None:
        super().__init__(model, pixels)
        self.has_margins, self.way = has_margins, model.input.way()
        self.is_wide = model.input.antialias

    def forward(self, image: Tensor) -> Tensor:
        """The embedding, what else the decoder reads, and the image's size in the tool's frame.

        Args:
            image: RGB, see :data:`samtune.exports.graphs.Pixels`; of any size.

        Returns:
            ``(1, C + SIZE_CHANNELS, H, W)``.
        """
        planes = image.permute(2, 0, 1) if self.pixels == "image" else image[0]
        extent = self._extent(planes)
        content = self.way.traced_content(extent, self.frame)
        rows, columns = (
            shrinkage(planes.shape[1 + i], extent[i], content[i], self.frame[i], self.is_wide)
            for i in (0, 1)
        )
        packed = pack(self.model.encode(self._in_frame(image, planes, rows, columns)))
        sizes = extent.float()[None, :, None, None].expand(-1, -1, *packed.shape[2:])
        return torch.cat([packed, sizes], 1)

    def _in_frame(self, image: Tensor, planes: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """The image as the model's encoder takes it, ``(1, 3, H, W)``.

        Pixels are rounded to bytes after each axis, as Pillow does it, if the model's are.

        Args:
            image: See :meth:`forward`.
            planes: The same as ``(3, h, w)``.
            rows: The effect of resizing its columns, ``(H, h)``.
            columns: The effect of resizing its rows, ``(W, w)``.
        """
        if self.pixels == "normalised":
            return rows @ self.normalise(image) @ columns.T
        x = planes[None].float() @ columns.T
        x = rows @ ((x + HALF).floor() if self.is_wide else x)
        x = (x + HALF).floor() if self.is_wide else x
        x = self.normalise(x[0].permute(1, 2, 0) if self.pixels == "image" else x)
        is_there = (rows.sum(1) > 0)[:, None] & (columns.sum(1) > 0)
        return torch.where(is_there, x, 0.0)

    def _extent(self, planes: Tensor) -> Tensor:
        """Height and width of the image within the tool's frame ``(3, h, w)``: ``(2,)`` float64.

        One of the two sides fills the frame. Zeros may also be the image's own, so that the side
        with fewer of them is the one.
        """
        counts = [torch.arange(1, n + 1, device=planes.device) for n in planes.shape[1:]]
        whole = torch.stack([count.amax(0) for count in counts]).double()
        if not self.has_margins:
            return whole
        is_there = (planes != 0).any(0)  # h w
        marks = (is_there.any(1), is_there.any(0))
        last = torch.stack([(m * c).amax(0) for m, c in zip(marks, counts, strict=True)]).double()
        missing = 1 - last / whole
        return torch.where(missing <= missing.flip(0), whole, last.clamp(min=1.0))


class ToolDecoder(nn.Module):
    """The decoder to :class:`ToolEncoder`, with the official names of inputs and outputs.

    Tools always add SAM's padding point, or never; it is taken away from a prompt with a box and
    added to one without, as SAM's own predictor does it. They send no masks, so that those inputs
    are there and without effect.

    Args:
        model: In evaluation mode, with a decoder that takes prompts.
        threshold: See :class:`samtune.exports.graphs.DecoderGraph`.
        knows_image: Whether the tool tells the size of the image; else it tells that of its own
            frame, and masks lie in that.
    """

    def __init__(self, model: FineTuned, threshold: float, knows_image: bool) -> None:
        super().__init__()
        self.decoder = DecoderGraph(model, threshold, enlarges=False)
        self.knows_image = knows_image

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
        orig_im_size: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Masks, their estimated IoU and their logits of low resolution.

        Args:
            image_embeddings: ``(1, C + 2, H, W)``, of :class:`ToolEncoder`.
            point_coords: ``(B, n, 2)`` xy in the tool's frame.
            point_labels: ``(B, n)``: 1 inside, 0 outside, 2 and 3 a box's corners, -1 padding.
            mask_input: Not used.
            has_mask_input: Not used.
            orig_im_size: ``(2,)`` height and width of the masks.

        Returns:
            Masks ``(B, K, h, w)`` as logits, ``(B, K)``, and ``(B, K, 4H, 4W)``.
        """
        low, iou, extent = self.answer(image_embeddings, point_coords, point_labels)
        way, frame = self.decoder.way, self.decoder.frame
        if self.knows_image:
            return way.traced_logits(low, orig_im_size, frame), iou, low
        content = way.traced_logits(low, extent, frame)
        counts: list[Any] = [orig_im_size[i].to(torch.int64).item() for i in (0, 1)]  # symbols
        for count in counts:
            torch._check(count >= 1)
        return in_corner(content, extent, counts[0], counts[1]), iou, low

    def answer(
        self, image_embeddings: Tensor, coords: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of low resolution, their IoU, and the image's size ``(2,)`` in the tool's frame.

        Args:
            image_embeddings: See :meth:`forward`.
            coords: See :meth:`forward`.
            labels: See :meth:`forward`.
        """
        extent = image_embeddings[0, -SIZE_CHANNELS:, 0, 0].double()
        content = self.decoder.way.traced_content(extent, self.decoder.frame)
        scale = (content / extent).flip(0).float()
        packed = image_embeddings[:, :-SIZE_CHANNELS]
        low, iou = answer(self.decoder, packed, coords * scale, labels)
        return low, iou, extent


class SquareDecoder(ToolDecoder):
    """The decoder to :class:`ToolEncoder` for a tool that does the rest in a square of its own.

    Args:
        model: See :class:`ToolDecoder`.
        threshold: See :class:`ToolDecoder`.
        side: The side of the square, whose left top corner the image fills; in pixels.
    """

    def __init__(self, model: FineTuned, threshold: float, side: int) -> None:
        super().__init__(model, threshold, knows_image=False)
        self.side = side

    def forward(  # type: ignore[override]
        self, image_embeddings: Tensor, point_coords: Tensor, point_labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scores ``(B, K)`` and logits ``(B, K, side, side)``, see :class:`ToolDecoder`."""
        low, iou, extent = self.answer(image_embeddings, point_coords, point_labels)
        content = self.decoder.way.traced_logits(low, extent, self.decoder.frame)
        return iou, in_corner(content, extent, self.side, self.side)


class StretchedEncoder(nn.Module):
    """The encoder for tools that stretch images and pass three tensors on.

    Args:
        model: In evaluation mode, with images stretched to its frame.
    """

    def __init__(self, model: FineTuned) -> None:
        super().__init__()
        self.encoder, spec = EncoderGraph(model, "planes"), model.sam.spec
        self.register_buffer("mean", torch.tensor(spec.pixel_mean)[:, None, None], False)
        self.register_buffer("std", torch.tensor(spec.pixel_std)[:, None, None], False)
        # The tool resizes floats, samtune bytes, unless the model was trained without rounding.
        self.rounds = model.input.antialias

    mean: Tensor
    std: Tensor

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Two tensors without meaning, which the tool expects, and the embedding.

        Args:
            image: ``(1, 3, H, W)`` RGB, normalised as SAM's.
        """
        pixels = image * self.std + self.mean
        packed = self.encoder(pixels.round() if self.rounds else pixels)
        return packed[:, :1, :1, :1], packed[:, 1:2, :1, :1], packed


class StretchedDecoder(nn.Module):
    """The decoder to :class:`StretchedEncoder`; its inputs are fed by position.

    Args:
        model: See :class:`StretchedEncoder`.
        threshold: See :class:`ToolDecoder`.
    """

    def __init__(self, model: FineTuned, threshold: float) -> None:
        super().__init__()
        self.decoder = DecoderGraph(model, threshold, enlarges=False)

    def forward(
        self,
        image_embed: Tensor,
        high_res_feats_0: Tensor,
        high_res_feats_1: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Logits ``(B, K, h, w)`` of the frame's size and their estimated IoU ``(B, K)``.

        Args:
            image_embed: ``(1, C, H, W)``.
            high_res_feats_0: Not used.
            high_res_feats_1: Not used.
            point_coords: ``(B, n, 2)`` xy in the frame.
            point_labels: ``(B, n)``, see :class:`ToolDecoder`.
            mask_input: Not used.
            has_mask_input: Not used.
        """
        low, iou = answer(self.decoder, image_embed, point_coords, point_labels)
        return F.interpolate(low, self.decoder.frame, mode="bilinear", align_corners=False), iou


def answer(
    graph: DecoderGraph, packed: Tensor, coords: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Logits ``(B, K, 4H, 4W)`` and IoU ``(B, K)`` of points, padded as SAM's predictor does it.

    Args:
        graph: Decodes.
        packed: The result of :func:`samtune.exports.graphs.pack`.
        coords: ``(B, n, 2)`` xy in the model's frame.
        labels: ``(B, n)``; padding points among them count for nothing.
    """
    is_boxed = (labels >= BOX_TOP_LEFT).any(1, keepdim=True)  # B 1
    last = torch.where(is_boxed, float(ABSENT), float(NOT_A_POINT))
    points = torch.where(labels == NOT_A_POINT, float(ABSENT), labels)
    size = coords.new_tensor(graph.frame)
    _, iou, low = graph(
        packed,
        torch.cat([coords, torch.zeros_like(coords[:, :1])], 1),
        torch.cat([points, last], 1),
        coords.new_zeros(coords.shape[0], 1, *graph.model.mask_size),
        coords.new_zeros(1),
        size,
    )
    return low, iou


def in_corner(content: Tensor, extent: Tensor, down: int, right: int) -> Tensor:
    """Puts masks ``(B, K, h, w)`` into the left top corner of a frame ``(down, right)``.

    Beyond them their last row and column go on, so that tools which interpolate at the edge meet
    no step.
    """
    for axis, count in ((2, down), (3, right)):
        at = torch.arange(count, device=content.device)
        last = extent[axis - 2].to(torch.int64) - 1
        content = content.index_select(axis, torch.minimum(at, last))
    return content
