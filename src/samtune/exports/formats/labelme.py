"""labelme: a pair of files for its engine osam, and a script that starts labelme with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from samtune.errors import InputError
from samtune.exports.base import FORMATS, Answers, Job
from samtune.exports.onnx_files import OPSET
from samtune.exports.tool_files import (
    ToolAnswers,
    ToolFormat,
    normalised,
    write_decoder,
    write_encoder,
)
from samtune.exports.tool_graphs import ToolDecoder, ToolEncoder
from samtune.geometry import resized_bytes

SCRIPT = "start_labelme.py"


@FORMATS.register("labelme")
class Labelme(ToolFormat):
    """An encoder of normalised squares, a decoder with the official names, and a start script.

    labelme has no menu for models of one's own; the script adds one to its list and starts it. See
    docs/export/labelme.md.
    """

    consumer = "labelme"
    writes = f"NAME.encoder.onnx, NAME.decoder.onnx and {SCRIPT}"

    def check(self, job: Job) -> None:
        """Refuses frames that are no squares, besides what all tools refuse.

        Raises:
            InputError: Such a model.
        """
        super().check(job)
        h, w = job.model.input.size
        if h != w:
            raise InputError(
                f"--format=labelme: images enter this model in a frame of {h} x {w}, and labelme "
                "knows squares alone; the formats x-anylabeling and onnx have it"
            )

    def write(self, job: Job, folder: Path) -> Mapping[str, Any]:
        """Writes the files, see :class:`Labelme`."""
        example = torch.ones(1, 3, *job.model.input.size)
        encoder = ToolEncoder(job.model, "normalised", has_margins=True)
        write_encoder(job, folder, encoder, {"x": example}, {})
        write_decoder(job, folder, ToolDecoder(job.model, job.threshold, knows_image=True))
        script = Path(__file__).with_name("labelme_script.txt").read_text("utf-8")
        (folder / SCRIPT).write_text(script.replace("MODEL_NAME", job.name), "utf-8")
        return {"opset": OPSET}

    def answers(self, job: Job, folder: Path) -> Answers:
        """The files in onnxruntime, as osam asks them."""
        return LabelmeAnswers(job, folder)


class LabelmeAnswers(ToolAnswers):
    """Pillow's bilinear resize to the frame's side, SAM's constants, then zeros as padding."""

    def in_frame(self, content: NDArray[np.float32]) -> NDArray[Any]:
        """The pixels, normalised and padded."""
        return normalised(self.model, content, self.model.input.size)

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[Any]:
        """Resizes the image and normalises it."""
        size = self.fitted((image.shape[0], image.shape[1]))
        return self.in_frame(resized_bytes(image, size).astype(np.float32))

    def fitted(self, size: tuple[int, int]) -> tuple[int, int]:
        """The longest side at the frame's, the other rounded half to even."""
        side = self.model.input.size[0]
        h, w = (side if each == max(size) else round(each * side / max(size)) for each in size)
        return h, w
