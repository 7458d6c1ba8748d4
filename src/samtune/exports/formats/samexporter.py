"""samexporter: a pair of files for its runner, and for programs that copy it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samtune.exports.base import FORMATS, Answers, Job
from samtune.exports.onnx_files import OPSET
from samtune.exports.tool_files import (
    SIDE,
    ToolAnswers,
    ToolFormat,
    longest,
    write_decoder,
    write_image_encoder,
)
from samtune.exports.tool_graphs import ToolDecoder, ToolEncoder
from samtune.geometry import resized_bytes


@FORMATS.register("samexporter")
class Samexporter(ToolFormat):
    """An encoder of images whose longest side is 1024, and a decoder with the official names.

    The runner is told by the names of outputs whether it may enlarge masks itself, which is right
    for one frame alone; the decoder does it, and has other names. See docs/export/samexporter.md.
    """

    consumer = "samexporter"
    writes = "NAME.encoder.onnx and NAME.decoder.onnx"

    def write(self, job: Job, folder: Path) -> Mapping[str, Any]:
        """Writes the files, see :class:`Samexporter`."""
        write_image_encoder(job, folder, ToolEncoder(job.model, "image"))
        decoder = ToolDecoder(job.model, job.threshold, knows_image=True)
        write_decoder(job, folder, decoder, low="low_res_logits")
        return {"opset": OPSET}

    def advice(self, job: Job) -> str:
        """A frame of 1024, to which the runner always resizes."""
        if max(job.model.input.size) == SIDE:
            return ""
        return (
            f"samexporter resizes every image to {SIDE} pixels, and this model's frame has "
            f"{max(job.model.input.size)}; a model tuned at input.size={SIDE} gets the same pixels"
        )

    def answers(self, job: Job, folder: Path) -> Answers:
        """The files in onnxruntime, as samexporter's runner asks them."""
        return SamexporterAnswers(job, folder)


class SamexporterAnswers(ToolAnswers):
    """Pillow's bilinear resize to a longest side of 1024, no padding."""

    def in_frame(self, content: NDArray[np.float32]) -> NDArray[Any]:
        """The pixels as they are."""
        return content

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[Any]:
        """Resizes the image."""
        return resized_bytes(image, self.fitted((image.shape[0], image.shape[1])))

    def fitted(self, size: tuple[int, int]) -> tuple[int, int]:
        """The longest side at 1024."""
        return longest(size, SIDE)
