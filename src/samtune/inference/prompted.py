"""Answering prompts on one image: fitted whole, cropped around each prompt, or in blended tiles.

Each prompt is answered in its views, see :mod:`samtune.inference.views`. Besides the answers, which
have the image's size, memory holds :data:`AT_ONCE` views.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from samtune.batch import Masks, inside
from samtune.data.transforms import fit_geometry
from samtune.errors import InputError
from samtune.geometry import Geometry
from samtune.inference.frames import EncodedFrames, bytes_per_prompt
from samtune.inference.views import OUTSIDE, Blend, View, cut_masks, local, views_of
from samtune.model.finetuned import FineTuned
from samtune.ops.tiling import Window, extent
from samtune.prompts import Prompts

AT_ONCE = 4
"""Number of views that are encoded and kept at once."""

LOGIT_BYTES = 2**30
"""Largest number of bytes of logits, and of their decoder inputs, at a time; a single prompt may
need more."""


def bytes_of_answer(model: FineTuned, size: tuple[int, int], is_cut: bool, masks: int = 1) -> int:
    """Approximate memory for one more prompt of an image until its masks are finished.

    For an image that is cut these are logits of its size; the number of prompts decoded together in
    its views is limited separately.

    Args:
        model: The model.
        size: Height and width of the image.
        is_cut: Whether it is cut into tiles or crops.
        masks: Number of masks per prompt.
    """
    if not is_cut:
        return bytes_per_prompt(model, size, masks)
    return 5 * masks * size[0] * size[1]


class PromptedImage:
    """An image that answers prompts, cut or whole by its model's input policy.

    Args:
        model: In evaluation mode.
        image: ``(h, w, 3)`` uint8 RGB.
    """

    def __init__(self, model: FineTuned, image: NDArray[np.uint8]) -> None:
        self.model, self.image = model, image
        self.size = (image.shape[0], image.shape[1])
        policy = model.input
        self.whole = fit_geometry(self.size, policy.size, policy.resize)
        tile = extent(policy.size, policy.scale, self.size)
        self.is_cut = policy.tiles == "crop" or (policy.tiles == "tiled" and tile != self.size)
        self._frames: tuple[tuple[Window, ...], EncodedFrames] | None = None
        self._place = 0
        """The index of an image that is not cut among those encoded with it."""

    @classmethod
    def together(cls, model: FineTuned, images: Sequence[NDArray[np.uint8]]) -> list[PromptedImage]:
        """Several images, of which those that are not cut are encoded in one pass.

        Args:
            model: In evaluation mode.
            images: Each ``(h, w, 3)`` uint8 RGB.
        """
        prompted = [cls(model, image) for image in images]
        whole = [image for image in prompted if not image.is_cut]
        if whole:
            frames = EncodedFrames.of_images(model, [image.image for image in whole])
        for place, image in enumerate(whole):
            image._frames, image._place = (((0, 0, *image.size),), frames), place
        return prompted

    @classmethod
    def of_content(cls, model: FineTuned, content: Tensor, size: tuple[int, int]) -> PromptedImage:
        """An image of ``(h, w)`` whose content ``(1, 3, h', w')`` is in the frame, not yet padded.

        Raises:
            InputError: The content has another shape, or the model cuts images.
        """
        image = cls(model, np.broadcast_to(np.uint8(0), (*size, 3)))  # it takes no memory
        wanted = (1, 3, *image.whole.resized)
        if image.is_cut or tuple(content.shape) != wanted:
            rule = f"must be {wanted}, as predictor.transform.apply_image resizes it"
            if image.is_cut:
                rule = "this model cuts images; give them to set_image"
            raise InputError(f"transformed_image of shape {tuple(content.shape)}: {rule}")
        (h, w), (height, width) = image.whole.resized, image.whole.model
        pixels = F.pad(content, (0, width - w, 0, height - h))
        image._frames = ((0, 0, *size),), EncodedFrames(model, pixels, [image.whole])
        return image

    def encode(self) -> None:
        """Encodes the image before any prompt, unless prompts decide where it is cut."""
        if not self.is_cut:
            self.frames()

    @property
    def embedding(self) -> Tensor:
        """The embedding ``(1, C, H, W)`` of an image that is not cut."""
        return self.frames().features.embedding[self._place : self._place + 1]

    def frames(self) -> EncodedFrames:
        """The image as it was encoded, maybe among others; of one that is not cut."""
        return self._encoded(((0, 0, *self.size),))

    def masks(
        self,
        prompts: Prompts,
        multimask: bool = False,
        threshold: float = 0.0,
        *,
        best: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Masks ``(N, K, h, w)`` bool, estimated IoU and low-resolution logits.

        Only as many prompts are answered together as :data:`LOGIT_BYTES` allows.

        Args:
            prompts: In the image's pixels.
            multimask: Three masks for each prompt instead of one.
            threshold: Logits above it are inside.
            best: Keep only the best of them, see :meth:`samtune.batch.Masks.best`.
        """
        each = bytes_of_answer(self.model, self.size, self.is_cut, 3 if multimask else 1)
        count = max(1, min(len(prompts), LOGIT_BYTES // each))
        parts = []
        for rows in torch.arange(len(prompts)).split(count) if len(prompts) else [torch.arange(0)]:
            group = prompts.only(rows) if count < len(prompts) else prompts
            masks, low = self.answer(group, multimask)
            if best:
                masks, low = masks.best(), replace(masks, logits=low).best().logits
            parts.append((inside(masks.logits, masks.exclusive, threshold), masks.iou, low))
        if len(parts) == 1:
            return parts[0]
        answers, iou, low = (torch.cat(part) for part in zip(*parts, strict=True))
        return answers, iou, low

    @torch.no_grad()
    def answer(self, prompts: Prompts, multimask: bool = False) -> tuple[Masks, Tensor]:
        """Answers ``N`` prompts in the image's pixels; their masks are in the whole image's frame.

        Returns:
            Masks whose logits ``(N, K, h, w)`` have the image's size, and low-resolution logits
            ``(N, K, 4H, 4W)`` in the whole image's frame, fit for mask prompts.
        """
        if not self.is_cut:
            frames, place = self.frames(), self._place
            mine = prompts.to_model(frames.geometries[place]).at(place)
            masks = frames.decode(mine, multimask)
            return replace(masks, logits=frames.to_original(place, masks.logits)), masks.logits
        blend: Blend | None = None
        prompts = prompts.to("cpu")
        views = views_of(prompts, self.size, self.model.input, self.whole)
        for start in range(0, len(views), AT_ONCE):
            group = views[start : start + AT_ONCE]
            frames = self._encoded(tuple(view.window for view in group))
            local_prompts = Prompts.cat(
                [
                    self._in_view(prompts, view, geometry).at(i)
                    for i, (view, geometry) in enumerate(zip(group, frames.geometries, strict=True))
                ]
            )
            uncut = prompts.only(torch.tensor([row for view in group for row in view.rows]).long())
            for part in torch.arange(max(1, len(local_prompts))).split(self._at_once(multimask)):
                asked = local_prompts.only(part) if len(local_prompts) else local_prompts
                whole = uncut.only(part) if len(uncut) else uncut
                masks = frames.decode(asked, multimask, whole)
                blend = blend or Blend(masks, len(prompts), self.size)
                for i, view in enumerate(group):
                    rows = (asked.image == i).to(masks.iou.device)
                    before = int((local_prompts.image[: int(part[0])] == i).sum())
                    logits = frames.to_original(i, masks.logits[rows])
                    blend.add(view.some(before, len(logits)), logits, masks.iou[rows])
        assert blend is not None, "every prompt has a view"
        masks = blend.masks()
        return masks, self._low(masks.logits)

    def _at_once(self, multimask: bool) -> int:
        """Number of prompts that are decoded together in windows of a cut image."""
        window = extent(self.model.input.size, self.model.input.scale, self.size)
        each = bytes_per_prompt(self.model, window, 3 if multimask else 1)
        return max(1, LOGIT_BYTES // each)

    def _encoded(self, windows: tuple[Window, ...]) -> EncodedFrames:
        """The encoded windows; those of the last call are reused."""
        if self._frames is None or self._frames[0] != windows:
            self._frames = None  # frees their memory before the next ones need theirs
            self._frames = (windows, EncodedFrames.of_windows(self.model, self.image, windows))
        return self._frames[1]

    def _in_view(self, prompts: Prompts, view: View, geometry: Geometry) -> Prompts:
        """A view's prompts in the model's frame."""
        rows = torch.tensor(view.rows, dtype=torch.long)
        of_view = local(prompts.only(rows), view.window)
        if of_view.masks is not None:
            masks = cut_masks(of_view.masks, self.whole, view.window, geometry)
            of_view = replace(of_view, masks=masks)
        return of_view.to_model(geometry)

    def _low(self, logits: Tensor) -> Tensor:
        """Reduces logits ``(N, K, h, w)`` of the image to mask prompts ``(N, K, 4H, 4W)``."""
        frame = self.model.mask_size
        part = [
            max(1, round(n * f / m))
            for n, f, m in zip(self.whole.resized, frame, self.whole.model, strict=True)
        ]
        low = F.interpolate(logits, part, mode="bilinear", align_corners=False, antialias=True)
        return F.pad(low, (0, frame[1] - part[1], 0, frame[0] - part[0]), value=OUTSIDE)
