"""Encoding, decoding, and mapping back to the image: the only way through a model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samtune.batch import Candidates, Masks
from samtune.data.transforms import fit
from samtune.decoders import Features
from samtune.geometry import Geometry
from samtune.model.finetuned import FineTuned
from samtune.ops.tiling import Window
from samtune.prompts import PER_TOKEN, Prompts


def bytes_per_prompt(model: FineTuned, size: tuple[int, int], masks: int = 1) -> int:
    """Approximate memory for one more prompt of an image while it is answered.

    SAM's decoder holds a copy of the embedding per prompt, and about eight at its widest point; its
    masks are resized through the frame to the image's own size.

    Args:
        model: The model.
        size: Height and width of the image.
        masks: Number of masks per prompt that are resized to the image's size.
    """
    cells, frame, image = (h * w for h, w in (model.mask_size, model.input.size, size))
    tokens = cells // PER_TOKEN**2
    numbers = 8 * tokens * model.sam.spec.prompt_dim + masks * (cells + 2 * frame + 3 * image)
    return 4 * numbers + 2 * masks * image


class EncodedFrames:
    """Images, or windows of one image, in the model's frame, encoded together.

    They are encoded once for each strength at which the model answers prompts: at once if that is
    one, else when the first prompt of a strength comes.

    Args:
        model: In evaluation mode.
        pixels: ``(B, 3, h, w)`` RGB in 0..255, in the model's frame.
        geometries: The geometry of each in the frame.
    """

    @torch.no_grad()
    def __init__(self, model: FineTuned, pixels: Tensor, geometries: Sequence[Geometry]) -> None:
        self.model, self.geometries, self._pixels = model, tuple(geometries), pixels
        self._by_strength: dict[float, Features] = {}
        if not model.strength.by_kind:
            self._features_of(model)

    @property
    def features(self) -> Features:
        """The features at the model's strength for all prompts together."""
        return self._features_of(self.model.at(float(self.model.strength)))

    @torch.no_grad()
    def _features_of(self, model: FineTuned) -> Features:
        level = float(model.strength)
        if level not in self._by_strength:
            sizes = torch.tensor([g.resized for g in self.geometries], device=model.device)
            pixels = model.preprocess(self._pixels.to(model.device), sizes)
            self._by_strength[level] = model.encode(pixels)
        return self._by_strength[level]

    @classmethod
    def of_windows(
        cls, model: FineTuned, image: NDArray[np.uint8], windows: Sequence[Window]
    ) -> EncodedFrames:
        """Fits windows of an image ``(h, w, 3)`` uint8 RGB into the model's frame."""
        return cls.of_images(model, [image[y0:y1, x0:x1] for y0, x0, y1, x1 in windows])

    @classmethod
    def of_images(cls, model: FineTuned, images: Sequence[NDArray[np.uint8]]) -> EncodedFrames:
        """Fits images, each ``(h, w, 3)`` uint8 RGB, into the model's frame."""
        fitted = [fit(image, model.input) for image in images]
        pixels = torch.stack([pixels for pixels, _ in fitted])
        return cls(model, pixels, [geometry for _, geometry in fitted])

    @torch.no_grad()
    def decode(
        self, prompts: Prompts, multimask: bool = False, uncut: Prompts | None = None
    ) -> Masks:
        """Masks of ``N`` prompts in the model's frame, each decoded from its image.

        Args:
            prompts: In the model's frame.
            multimask: Three masks per prompt instead of one.
            uncut: The same prompts before they were cut to windows of an image. These decide the
                strengths, since what lies outside a window is missing in it.
        """
        asked = prompts.to(self.model.device)
        parts = self.model.by_strength(asked if uncut is None else uncut.to(self.model.device))
        answers = []
        for model, rows in parts:
            features, part = self._features_of(model), asked if rows is None else asked.only(rows)
            masks = model.acting.decoder(model.sam, features, part, multimask)
            if rows is None:
                return masks
            answers.append((rows, masks))
        return Masks.union(answers)

    @torch.no_grad()
    def candidates(self, prompts: Prompts, least: float, multimask: bool = False) -> Candidates:
        """The masks of ``N`` prompts whose estimated IoU is above ``least``, in the same frame."""
        asked = prompts.to(self.model.device)
        parts = self.model.by_strength(asked)
        if len(parts) > 1:
            return Candidates.of(self.decode(asked, multimask), least)
        model, features = parts[0][0], self._features_of(parts[0][0])
        return model.acting.decoder.candidates(model.sam, features, asked, least, multimask)

    def to_original(self, i: int, logits: Tensor) -> Tensor:
        """Resizes logits ``(n, K, 4H, 4W)`` of image ``i`` to its size ``(n, K, h0, w0)``."""
        return self.geometries[i].masks_to_original(logits.float())
