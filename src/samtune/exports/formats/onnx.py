"""ONNX files with the official names: an encoder and a decoder, or one file without prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samtune.exports.base import FORMATS, Answers, Ask, Format, Job, LastImage
from samtune.exports.graphs import (
    DecoderGraph,
    EncoderGraph,
    WholeGraph,
    check_traceable,
    packed_widths,
)
from samtune.exports.onnx_files import OPSET, OnnxModel, reduce_precision, write_onnx
from samtune.exports.onnx_inputs import SIDES, notes_of, resized, resized_example
from samtune.geometry import Geometry
from samtune.model.finetuned import FineTuned
from samtune.prompts import ABSENT, BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, NOT_A_POINT, POSITIVE

Runner = Callable[..., list[NDArray[np.float32]]]
"""A file at work: arrays in the order of its inputs to its outputs."""
DECODER_AXES = {
    "point_coords": {0: "num_prompts", 1: "num_points"},
    "point_labels": {0: "num_prompts", 1: "num_points"},
    "mask_input": {0: "num_prompts"},
}
"""The axes of a decoder's inputs that have any length."""


@FORMATS.register("onnx")
class Onnx(Format):
    """An encoder and a decoder, or one file for a model without prompts.

    The encoder takes an image that was resized to the frame and pads and normalises it itself; the
    decoder has the inputs and outputs of the official ``SamOnnxModel``, for any number of prompts
    and points and an image of any shape. See docs/export/onnx.md.
    """

    consumer = "onnxruntime, onnxruntime-web, and what is built on them"
    writes = "NAME.encoder.onnx and NAME.decoder.onnx, or NAME.onnx without prompts"
    needs = ("onnx", "onnxscript", "onnxruntime")
    extra = "onnx"
    precisions = ("fp32", "fp16", "int8")

    def check(self, job: Job) -> None:
        """Refuses what has no traced form.

        Raises:
            InputError: A way of resizing without one.
        """
        check_traceable(job.model)

    def write(self, job: Job, folder: Path) -> Mapping[str, Any]:
        """Writes the files, see :class:`Onnx`."""
        if job.is_prompted:
            write_encoder(job, folder / f"{job.name}.encoder.onnx")
            write_decoder(job, folder / f"{job.name}.decoder.onnx")
        else:
            write_whole(job, folder / f"{job.name}.onnx")
        return {"opset": OPSET}

    def answers(self, job: Job, folder: Path) -> Answers:
        """The files in onnxruntime."""
        return OnnxAnswers(job, folder)


def write_encoder(job: Job, path: Path) -> None:
    """Writes the encoder: ``input_image (h, w, 3)`` to ``image_embeddings (1, C, H, W)``."""
    write_onnx(
        path,
        EncoderGraph(job.model),
        {"input_image": resized_example(job.model)},
        ["image_embeddings"],
        {"input_image": SIDES} if job.model.input.resize == "longest" else {},
        notes_of(job),
    )
    reduce_precision(path, job.precision)


def write_decoder(job: Job, path: Path) -> None:
    """Writes the decoder, whose inputs and outputs are those of :class:`DecoderGraph`."""
    write_onnx(
        path,
        DecoderGraph(job.model, job.threshold),
        decoder_inputs(job.model),
        ["masks", "iou_predictions", "low_res_masks"],
        DECODER_AXES,
        notes_of(job),
    )


def write_whole(job: Job, path: Path) -> None:
    """Writes one file: ``input_image (h, w, 3)`` and ``orig_im_size (2,)`` to ``logits``."""
    write_onnx(
        path,
        WholeGraph(job.model, job.threshold),
        {"input_image": resized_example(job.model), "orig_im_size": torch.tensor([120.0, 90.0])},
        ["logits"],
        {"input_image": SIDES} if job.model.input.resize == "longest" else {},
        notes_of(job),
    )
    reduce_precision(path, job.precision)


def decoder_inputs(model: FineTuned) -> dict[str, Tensor]:
    """Examples of a decoder's inputs: two prompts of three points each."""
    h, w = model.mask_size
    return {
        "image_embeddings": torch.zeros(1, sum(packed_widths(model)), h // 4, w // 4),
        "point_coords": torch.full((2, 3, 2), 8.0),
        "point_labels": torch.ones(2, 3),
        "mask_input": torch.zeros(2, 1, h, w),
        "has_mask_input": torch.zeros(1),
        "orig_im_size": torch.tensor([120.0, 90.0]),
    }


class OnnxAnswers:
    """The files of a folder in onnxruntime.

    Args:
        job: What was exported.
        folder: Where the files lie.
    """

    def __init__(self, job: Job, folder: Path) -> None:
        self.model = job.model
        self._encoded = LastImage[NDArray[np.float32]]()
        if job.is_prompted:
            self.kinds: Sequence[str] = ("box", "point", "mask", "none")
            self.encoder = self.opened(folder / f"{job.name}.encoder")
            self.decoder = self.opened(folder / f"{job.name}.decoder")
        else:
            self.kinds = ("none",)
            self.whole = self.opened(folder / job.name)

    def opened(self, path: Path) -> Runner:
        """A file to run.

        Args:
            path: Its place, without the ending of its name.
        """
        return OnnxModel(path.with_name(f"{path.name}.onnx"))

    def same_pixels(self, image: NDArray[np.uint8], ask: Ask) -> NDArray[np.float32]:
        """Logits ``(K, h, w)``, see :class:`samtune.exports.base.Answers`."""
        pixels, geometry = resized(self.model, image)
        size = np.array(geometry.original, np.float32)
        if "box" not in self.kinds:
            return self.whole(pixels, size)[0]
        embedding = self._encoded.get("same", image, lambda: self.encoder(pixels)[0])
        return self.decoder(embedding, *decoder_prompt(self.model, geometry, ask), size)[0][0]

    def as_consumer(self, image: NDArray[np.uint8], ask: Ask) -> None:
        """Nothing: whoever writes the program prepares pixels as the documentation says."""


def decoder_prompt(
    model: FineTuned, geometry: Geometry, ask: Ask
) -> tuple[NDArray[np.float32], ...]:
    """A question as the decoder's four inputs of prompts.

    Args:
        model: Whose decoder is asked.
        geometry: Of the image.
        ask: The question.
    """
    coords, labels = [(0.0, 0.0)], [NOT_A_POINT if ask.point is not None else ABSENT]
    if ask.box is not None:
        coords, labels = [ask.box[:2], ask.box[2:]], [BOX_TOP_LEFT, BOX_BOTTOM_RIGHT]
    if ask.point is not None:
        coords, labels = [ask.point, *coords], [POSITIVE, *labels]
    xy = geometry.to_model(torch.tensor([coords])).numpy()
    has_mask = ask.mask is not None
    mask = np.zeros((1, *model.mask_size), np.float32) if ask.mask is None else ask.mask
    return xy, np.array([labels], np.float32), mask[None], np.array([has_mask], np.float32)
