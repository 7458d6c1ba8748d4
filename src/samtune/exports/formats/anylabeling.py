"""AnyLabeling: a pair of files and the yaml that loads them as a custom model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from samtune.exports.base import FORMATS, Answers, Job
from samtune.exports.canvas import CANVAS_ADVICE, CanvasAnswers, write_canvas_pair
from samtune.exports.tool_files import ToolFormat


@FORMATS.register("anylabeling")
class Anylabeling(ToolFormat):
    """Two files for AnyLabeling's canvas of 1024 x 684 pixels, which it fills up with black.

    The encoder finds the image on the canvas and brings it into the model's frame, so that frames
    of any size and both ways of resizing work. See docs/export/anylabeling.md.
    """

    consumer = "AnyLabeling"
    writes = "NAME.yaml, NAME.encoder.onnx and NAME.decoder.onnx"

    def write(self, job: Job, folder: Path) -> Mapping[str, Any]:
        """Writes the files, see :class:`Anylabeling`."""
        return write_canvas_pair(job, folder)

    def advice(self, job: Job) -> str:
        """Another tool: no frame has the pixels of the canvas."""
        return CANVAS_ADVICE

    def answers(self, job: Job, folder: Path) -> Answers:
        """The files in onnxruntime, as AnyLabeling asks them."""
        return CanvasAnswers(job, folder)
