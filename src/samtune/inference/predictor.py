"""Prompting a model image by image, with ``SamPredictor``'s signature and frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from samtune.errors import InputError, checks_keywords, warn_user
from samtune.inference.images import as_rgb
from samtune.inference.prompt_checks import check_places, tensor_of
from samtune.inference.prompted import PromptedImage
from samtune.inference.requests import check_labels
from samtune.inference.transform import FrameTransform
from samtune.model.checks import check_model
from samtune.model.finetuned import FineTuned
from samtune.model.parts import OF_PREDICTOR
from samtune.options import speaks_python
from samtune.options.arguments import check_rows
from samtune.precision import Precision, autocast, check_precision
from samtune.prompts import NONE, Prompts


class PromptMismatch(UserWarning):
    """A model is asked in another way than it was trained for."""


class Predictor:
    """Encodes an image once and answers prompts about it.

    All coordinates are pixels of the image that was set; masks come back in its frame. Where the
    model's input policy cuts images into tiles or crops, a prompt is encoded where it points.

    A prompt of another kind than the model was trained for, or three masks of one that was trained
    for one, is answered with one :class:`PromptMismatch` warning. If kinds of prompts have their
    own strengths, there is none for kinds whose strength the training chose, and one for each kind
    that the base answers.

    Args:
        model: Put into evaluation mode.
        threshold: Logits above it are inside.
        precision: Arithmetic of the forward pass, ``auto`` is bf16 on devices that have it; masks
            and scores are fp32 all the same.

    Raises:
        InputError: A threshold that is not finite or that nothing is cut at, or fp16 without a
            GPU.
    """

    @speaks_python()
    @checks_keywords(elsewhere=OF_PREDICTOR)
    def __init__(
        self, model: FineTuned, threshold: float = 0.0, precision: Precision = "auto"
    ) -> None:
        check_model(model)
        check_threshold(threshold, model)
        check_precision(precision, model.device)
        self.model = model.eval()
        self.precision = precision
        self.threshold = threshold
        self._image: PromptedImage | None = None
        # plain SAM was trained for all of them
        self._foreign = model.trainable() > 0
        self._single = self._foreign and not model.multimask
        self._of_base: set[str] = set()  # kinds of which it has said that the base answers them

    @speaks_python()
    @torch.no_grad()
    def set_image(
        self, image: NDArray[Any] | Image.Image | str | Path, image_format: str = "RGB"
    ) -> None:
        """Encodes an image: an array, a picture of Pillow's, or the path of a file.

        Files are read as in training. Arrays are ``(h, w, 3)``, ``(h, w, 4)`` or grey ``(h, w)`` of
        bytes, or of fractions from 0 to 1; deeper whole numbers are scaled as those of a file are.

        Args:
            image: The image; alpha is dropped.
            image_format: ``RGB`` or ``BGR``: the order of an array's channels.

        Raises:
            InputError: Another shape, kind of values or format, or a file that cannot be read.
        """
        rgb = as_rgb(image, image_format, self.model.input)
        self._image = PromptedImage(self.model, rgb)
        with autocast(self.model.device, self.precision):
            self._image.encode()

    @torch.no_grad()
    def encode_together(self, images: Sequence[NDArray[np.uint8]]) -> list[PromptedImage]:
        """Encodes several images in one pass; :meth:`take` has one of them answer.

        Args:
            images: Each ``(h, w, 3)`` RGB; their sizes may differ.
        """
        with autocast(self.model.device, self.precision):
            return PromptedImage.together(self.model, images)

    def take(self, image: PromptedImage) -> None:
        """Has one of the images of :meth:`encode_together` answer from now on."""
        self._image = image

    @property
    def is_image_set(self) -> bool:
        """Whether there is an image to ask about."""
        return self._image is not None

    @torch.no_grad()
    def set_torch_image(
        self, transformed_image: torch.Tensor, original_image_size: tuple[int, int]
    ) -> None:
        """Encodes an image that :attr:`transform` has brought to its size in the frame.

        Args:
            transformed_image: ``(1, 3, h, w)`` RGB in 0..255.
            original_image_size: ``(h, w)`` of the image, in whose frame the masks come back.

        Raises:
            InputError: Another shape than the transform gives, or a model that cuts images.
        """
        size = (int(original_image_size[0]), int(original_image_size[1]))
        with autocast(self.model.device, self.precision):
            self._image = PromptedImage.of_content(self.model, transformed_image, size)

    @property
    def transform(self) -> FrameTransform:
        """Brings images and coordinates into the model's frame."""
        return FrameTransform(self.model.input)

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.model.device

    @property
    def original_size(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self._present().size

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the image within the model's frame, without padding."""
        return self._present().whole.resized

    @property
    def features(self) -> torch.Tensor | None:
        """The embedding ``(1, C, H, W)``; ``None`` without an image."""
        return None if self._image is None else self.get_image_embedding()

    @speaks_python()
    def get_image_embedding(self) -> torch.Tensor:
        """The embedding ``(1, C, H, W)`` of the image.

        Raises:
            InputError: No image set, or one that is cut into tiles or crops, which has several.
        """
        image = self._present()
        if image.is_cut:
            raise InputError(
                f"input.tiles={self.model.input.tiles}: an image that is cut has no embedding of "
                "its own; use a model with input.tiles=whole"
            )
        with autocast(self.model.device, self.precision):
            return image.embedding

    def _present(self) -> PromptedImage:
        if self._image is None:
            raise InputError("no image: call set_image before predict")
        return self._image

    def reset_image(self) -> None:
        """Forgets the image."""
        self._image = None

    @checks_keywords(
        elsewhere={
            "boxes": "one box is box=; several go to predict_torch(boxes=...)",
            "input_boxes": "one box is box=; several go to predict_torch(boxes=...)",
            "points": "points are point_coords= with point_labels=",
            "input_points": "points are point_coords= with point_labels=",
            "labels": "labels of points are point_labels=",
            "input_labels": "labels of points are point_labels=",
            "mask": "the logits of an earlier call are mask_input=",
        }
    )
    def predict(
        self,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask_input: NDArray[np.float32] | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[NDArray[Any], NDArray[np.float32], NDArray[np.float32]]:
        """Masks for one prompt; without arguments, the prompt-free answer.

        Args:
            point_coords: ``(n, 2)`` xy pixels.
            point_labels: ``(n,)``, 1 inside the object, 0 outside.
            box: ``(4,)`` xyxy pixels.
            mask_input: ``(1, 4H, 4W)`` logits, the ``low_res`` of an earlier call.
            multimask_output: Return three masks, as SAM does for an ambiguous prompt. A model that
                is trained for one mask answers best with False. Whatever is set, decoders with a
                single mask (``hq``, ``fusion``) return one, and decoders of classes one per class.
            return_logits: Masks as logits instead of bools.

        Returns:
            Masks ``(K, h, w)``, their estimated IoU ``(K,)``, and low-resolution logits ``(K, 4H,
            4W)``.

        Raises:
            InputError: No image set, malformed prompts, or a box or point outside the image.
        """
        points = tensor_of(point_coords, (1, -1, 2), "point_coords")
        labels = tensor_of(point_labels, (1, -1), "point_labels")
        check_labels(points, labels)
        prompts = Prompts.of(
            boxes=tensor_of(box, (1, 4), "box"),
            points=points,
            labels=labels,
            masks=self._mask(mask_input),
        )
        masks, scores, low_res = self.answer(prompts, multimask_output, return_logits)
        return masks[0].cpu().numpy(), scores[0].cpu().numpy(), low_res[0].cpu().numpy()

    def predict_torch(
        self,
        point_coords: torch.Tensor | Prompts | None = None,
        point_labels: torch.Tensor | None = None,
        boxes: torch.Tensor | None = None,
        mask_input: torch.Tensor | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Masks for ``N`` prompts in one call, as ``SamPredictor`` takes them.

        Args:
            point_coords: ``(N, n, 2)`` xy in the model's frame, as :attr:`transform` brings them
                there; or, in place of all four, :class:`samtune.Prompts` in the image's pixels.
            point_labels: ``(N, n)``, 1 inside the object, 0 outside, -1 for no point.
            boxes: ``(N, 4)`` xyxy in the model's frame.
            mask_input: ``(N, 1, 4H, 4W)`` logits of an earlier call.
            multimask_output: Whether three masks are returned, see :meth:`predict`.
            return_logits: Masks as logits instead of bools.

        Returns:
            Masks ``(N, K, h, w)``, estimated IoU ``(N, K)``, low-resolution logits ``(N, K, 4H,
            4W)``.

        Raises:
            InputError: No image set, tensors of other shapes, or a box or point outside the image.
        """
        image = self._present()
        if isinstance(point_coords, Prompts):
            return self.answer(point_coords, multimask_output, return_logits)
        back = image.whole.to_original
        check_rows("boxes", boxes, (4,))
        check_rows("point_coords", point_coords, (None, 2))
        check_rows("point_labels", point_labels, (None,))
        prompts = Prompts.of(
            boxes=None if boxes is None else back(boxes.reshape(-1, 2, 2)).flatten(1),
            points=None if point_coords is None else back(point_coords),
            labels=point_labels,
            masks=mask_input,
        )
        return self.answer(prompts, multimask_output, return_logits)

    @torch.no_grad()
    def answer(
        self, prompts: Prompts, multimask: bool = False, return_logits: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Masks for ``N`` prompts in the image's pixels; returns and errors as `predict_torch`.

        Raises:
            InputError: No image set, or a box or point outside the image.
        """
        image = self._present()
        check_places(prompts, image.whole.original)
        self._remark(prompts)
        with autocast(self.model.device, self.precision):
            if not return_logits:
                masks, scores, low = image.masks(prompts, multimask, self.threshold)
            else:
                answer, low = image.answer(prompts, multimask)
                masks, scores = answer.logits.float(), answer.iou
        if multimask and self.model.acting.decoder.classes is None and masks.shape[1] > 1:
            self._remark_three(prompts)
        return masks, scores.float(), low.float()

    def _remark_three(self, prompts: Prompts) -> None:
        """Warns, once, of three masks of a model that was trained for one."""
        if self._single and any(map(self.model.strength.of, prompts.kinds())):
            self._single = False
            warn_user(
                "trained for one mask per prompt, but asked for three: they may be worse; set "
                "multimask_output=False",
                PromptMismatch,
            )

    def _remark(self, prompts: Prompts) -> None:
        """Warns, once, of prompts that the model was not trained for."""
        strength = self.model.strength
        if not self.model.trainable() or not strength:
            return
        for kind, which in prompts.by_kind().items() if strength.by_kind else ():
            if strength.of(kind) == 0 and kind not in self._of_base and bool(which.any()):
                self._of_base.add(kind)
                remark_base(kind)
        answered = [prompts.only(rows) for level, rows in strength.rows(prompts).items() if level]
        kinds = set[str]().union(*(part.kinds() for part in answered))
        other = kinds - self.model.prompt_modes.kinds - strength.validated
        if other and self._foreign:
            self._foreign = False
            used = f"used with {' and '.join(sorted(kinds))}"
            asked = "none was given" if other == {NONE} else used
            warn_user(
                f"trained with prompt {self.model.prompts}, but {asked}: masks may be worse",
                PromptMismatch,
            )

    def _mask(self, mask: NDArray[np.float32] | None) -> torch.Tensor | None:
        if mask is None:
            return None
        shape = (1, *self.model.mask_size)
        if np.shape(mask) != shape:
            raise InputError(
                f"mask_input of shape {np.shape(mask)}: must be {shape}, one of the "
                "low-resolution logits of an earlier call, as in low_res[:1]"
            )
        return torch.as_tensor(np.asarray(mask, dtype=np.float32))[None]


def remark_base(kind: str) -> None:
    """Warns that the base answers a kind of prompt, whose strength is 0."""
    prompt = "no prompt" if kind == NONE else f"prompt {kind}"
    warn_user(f"{prompt} has strength 0: the base answers it, without the training", PromptMismatch)


def check_threshold(threshold: float, model: FineTuned | None = None) -> None:
    """Checks that a logit can separate inside from outside.

    Args:
        threshold: The logit.
        model: The model whose masks are cut there, if it is known already.

    Raises:
        InputError: It is not finite, or the model answers with classes, of which the likeliest one
            counts.
    """
    if isinstance(threshold, bool) or not isinstance(threshold, int | float):
        raise InputError(f"threshold={threshold!r}: must be a number, the logit to cut at")
    if not math.isfinite(threshold):
        raise InputError(
            f"threshold={threshold}: no logit to cut at; choose a finite number, 0 for a "
            "probability of one half"
        )
    if threshold and model is not None and (classes := model.acting.decoder.classes):
        raise InputError(
            f"threshold={threshold:g}: each pixel gets the likeliest of the model's {classes} "
            "classes, and nothing is cut; leave it out"
        )
