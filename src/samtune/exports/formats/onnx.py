"""ONNX files with the official names: an encoder and a decoder, or one file without prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from samtune.exports.base import FORMATS, Answers, Ask, Job, LastImage
from samtune.exports.onnx_files import OPSET, OnnxModel, reduce_precision, write_onnx
from samtune.exports.onnx_inputs import notes_of, resized
from samtune.exports.parts import DECODER, ENCODER, WHOLE, PartsFormat
from samtune.exports.tracing import TracedPart
from samtune.geometry import Geometry
from samtune.model.finetuned import FineTuned
from samtune.prompts import ABSENT, BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, NOT_A_POINT, POSITIVE

Runner = Callable[..., list[NDArray[np.float32]]]
"""A file at work: arrays in the order of its inputs to its outputs."""


@FORMATS.register("onnx")
class Onnx(PartsFormat):
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
    names_classes = True

    def ending(self, job: Job) -> str:
        """The ending of a file's name."""
        return ".onnx"

    def write_part(self, job: Job, name: str, part: TracedPart, path: Path) -> None:
        """Writes a file, see :class:`Onnx`."""
        write_onnx(path, part, notes_of(job))
        if name != DECODER:  # it is small
            reduce_precision(path, job.precision)

    def notes(self, job: Job) -> Mapping[str, Any]:
        """The opset."""
        return {"opset": OPSET}

    def answers(self, job: Job, folder: Path) -> Answers:
        """The files in onnxruntime."""
        return OnnxAnswers(job, folder)


class OnnxAnswers:
    """The files of a folder in onnxruntime.

    Args:
        job: The job of the exported model.
        folder: The folder of the files.
    """

    def __init__(self, job: Job, folder: Path) -> None:
        self.model = job.model
        self._encoded = LastImage[NDArray[np.float32]]()
        if job.is_prompted:
            self.kinds: Sequence[str] = ("box", "point", "mask", "none")
            self.encoder = self.opened(folder / f"{job.name}{ENCODER}")
            self.decoder = self.opened(folder / f"{job.name}{DECODER}")
        else:
            self.kinds = ("none",)
            self.whole = self.opened(folder / f"{job.name}{WHOLE}")

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
        model: The model whose decoder answers.
        geometry: The geometry of the image.
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
