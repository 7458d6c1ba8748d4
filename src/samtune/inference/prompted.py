"""Answering prompts on one image: fitted whole, cropped around each prompt, or in blended tiles.

A prompt is asked in the views that it touches: a tile that holds a part of its box or one of its
points, or each tile where nothing says where. Memory beyond the answers, which have the image's
size, is that of :data:`AT_ONCE` views.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from samtune.batch import Masks, inside
from samtune.data.transforms import fit, fit_geometry
from samtune.decoders import Features
from samtune.geometry import Geometry
from samtune.inference.views import OUTSIDE, Blend, View, cut_masks, local, planned
from samtune.model.finetuned import FineTuned
from samtune.ops.tiling import Window, extent
from samtune.prompts import Prompts

AT_ONCE = 4
"""Views encoded and held at once."""

LOGIT_BYTES = 2**30
"""Logits of the image's size held at once, where masks are wanted; a single prompt may need more.
"""


class PromptedImage:
    """An image that answers prompts as its model's input policy says.

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
        self.cut = policy.tiles == "crop" or (policy.tiles == "tiled" and tile != self.size)
        self._held: tuple[tuple[Window, ...], Features, list[Geometry]] | None = None

    def encode(self) -> None:
        """Encodes the image ahead of prompts, where it is seen whole."""
        if not self.cut:
            self._encoded(((0, 0, *self.size),))

    def masks(
        self, prompts: Prompts, multimask: bool = False, threshold: float = 0.0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Masks ``(N, K, h, w)`` bool, estimated IoU and low-resolution logits.

        Of cut images only so many prompts are answered together as :data:`LOGIT_BYTES` holds.
        """
        count = len(prompts)
        if self.cut:
            logit = 4 * (3 if multimask else 1) * self.size[0] * self.size[1]
            count = max(1, min(count, LOGIT_BYTES // logit))
        parts = []
        for rows in torch.arange(len(prompts)).split(count) if len(prompts) else [torch.arange(0)]:
            mine = prompts.only(rows) if count < len(prompts) else prompts
            found, low = self.answer(mine, multimask)
            parts.append((inside(found.logits, found.exclusive, threshold), found.iou, low))
        if len(parts) == 1:
            return parts[0]
        masks, iou, low = (torch.cat(part) for part in zip(*parts, strict=True))
        return masks, iou, low

    @torch.no_grad()
    def answer(self, prompts: Prompts, multimask: bool = False) -> tuple[Masks, Tensor]:
        """Answers ``N`` prompts in the image's pixels; their masks are in the whole image's frame.

        Returns:
            Masks whose logits ``(N, K, h, w)`` have the image's size, and low-resolution logits
            ``(N, K, 4H, 4W)`` in the whole image's frame, fit for mask prompts.
        """
        if not self.cut:
            features, [geometry] = self._encoded(((0, 0, *self.size),))
            found = self._decoded(features, prompts.to_model(geometry), multimask)
            logits = geometry.masks_to_original(found.logits.float())
            return replace(found, logits=logits), found.logits
        blend: Blend | None = None
        prompts = prompts.to("cpu")
        views = planned(prompts, self.size, self.model.input, self.whole)
        for start in range(0, len(views), AT_ONCE):
            group = views[start : start + AT_ONCE]
            features, geometries = self._encoded(tuple(view.window for view in group))
            parts = [
                self._moved(prompts, view, geometry).at(i)
                for i, (view, geometry) in enumerate(zip(group, geometries, strict=True))
            ]
            asked = Prompts.cat(parts)
            found = self._decoded(features, asked, multimask)
            blend = blend or Blend(found, len(prompts), self.size)
            for i, (view, geometry) in enumerate(zip(group, geometries, strict=True)):
                here = (asked.image == i).to(found.iou.device)
                logits = geometry.masks_to_original(found.logits[here].float())
                blend.add(view, logits, found.iou[here])
        assert blend is not None, "every prompt has a view"
        masks = blend.masks()
        return masks, self._low(masks.logits)

    def _encoded(self, windows: tuple[Window, ...]) -> tuple[Features, list[Geometry]]:
        if self._held is not None and self._held[0] == windows:
            return self._held[1:]
        self._held = None  # before the next ones are made
        policy, device = self.model.input, self.model.device
        fitted = [fit(self.image[y0:y1, x0:x1], policy) for y0, x0, y1, x1 in windows]
        geometries = [geometry for _, geometry in fitted]
        sizes = torch.tensor([geometry.resized for geometry in geometries], device=device)
        pixels = torch.stack([pixels for pixels, _ in fitted]).to(device)
        features = self.model.encode(self.model.preprocess(pixels, sizes))
        self._held = (windows, features, geometries)
        return features, geometries

    def _decoded(self, features: Features, prompts: Prompts, multimask: bool) -> Masks:
        placed = prompts.to(self.model.device)
        return self.model.decoder(self.model.sam, features, placed, multimask)

    def _moved(self, prompts: Prompts, view: View, geometry: Geometry) -> Prompts:
        """A view's prompts in its own frame."""
        rows = torch.tensor(view.rows, dtype=torch.long)
        mine = local(prompts.only(rows), view.window)
        if mine.masks is not None:
            cut = cut_masks(mine.masks, self.whole, view.window, geometry)
            mine = replace(mine, masks=cut)
        return mine.to_model(geometry)

    def _low(self, logits: Tensor) -> Tensor:
        frame = self.model.mask_size
        part = [
            max(1, round(n * f / m))
            for n, f, m in zip(self.whole.resized, frame, self.whole.model, strict=True)
        ]
        low = F.interpolate(logits, part, mode="bilinear", align_corners=False, antialias=True)
        return F.pad(low, (0, frame[1] - part[1], 0, frame[0] - part[0]), value=OUTSIDE)
