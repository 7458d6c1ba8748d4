"""The canvas on which AnyLabeling, and X-AnyLabeling's type ``segment_anything``, put an image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samtune.exports.base import Ask, Job
from samtune.exports.tool_files import (
    SIDE,
    ToolAnswers,
    enlarged,
    points_of,
    scale_to,
    write_decoder,
    write_image_encoder,
    write_yaml,
)
from samtune.exports.tool_graphs import ToolDecoder, ToolEncoder
from samtune.geometry import Geometry

CANVAS = (684, SIDE)
"""Height and width in pixels."""
CANVAS_ADVICE = (
    "the canvas of this tool samples images at places of its own, whatever the model's frame; "
    "--format labelme prepares them as samtune does, and x-anylabeling those that fit the frame"
)
NOT_BLACK = 1e-6
"""The value that stands for black, so that a black pixel counts as the image's."""
STEPS = 32
"""OpenCV rounds the places that it samples to this fraction of a pixel."""


def write_canvas_pair(job: Job, folder: Path) -> Mapping[str, Any]:
    """Writes ``NAME.encoder.onnx``, ``NAME.decoder.onnx`` and ``NAME.yaml``."""
    write_image_encoder(job, folder, ToolEncoder(job.model, "image", has_margins=True))
    write_decoder(job, folder, ToolDecoder(job.model, job.threshold, knows_image=False))
    sizes = {"input_size": SIDE, "max_width": SIDE, "max_height": 682}
    return write_yaml(job, folder, "segment_anything", **sizes)


class CanvasAnswers(ToolAnswers):
    """The image is sampled bilinearly without antialiasing, and the rest of the canvas is black.

    The mask of the canvas is sampled back in the same way.
    """

    def in_frame(self, content: NDArray[np.float32]) -> NDArray[Any]:
        """The pixels, none of them black."""
        return np.maximum(content, NOT_BLACK)

    def ask_frame(
        self, encoded: tuple[Any, ...], geometry: Geometry, ask: Ask
    ) -> NDArray[np.float32]:
        """Asks with points in the resized image, whose size the masks have first."""
        xy, labels = points_of(ask, scale_to(geometry), padded=True)
        return enlarged(self.decode(encoded, (xy, labels), geometry.resized), geometry.original)

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[Any]:
        """The canvas ``(684, 1024, 3)``."""
        scale = _scale((image.shape[0], image.shape[1]))
        return np.rint(_sampled(image.astype(np.float32), CANVAS, 1 / scale))

    def ask_tool(
        self, encoded: tuple[Any, ...], size: tuple[int, int], ask: Ask
    ) -> NDArray[np.float32]:
        """Asks with points on the canvas, and samples the answer back."""
        scale = _scale(size)
        xy, labels = points_of(ask, (scale, scale), padded=True)
        masks = self.decode(encoded, (xy, labels), CANVAS)
        return _sampled(masks.transpose(1, 2, 0), size, scale).transpose(2, 0, 1)


def _scale(size: tuple[int, int]) -> float:
    """The factor from an image of a height and width to the canvas, which it fits."""
    return min(CANVAS[1] / size[1], CANVAS[0] / size[0])


def _sampled(
    pixels: NDArray[np.float32], size: tuple[int, int], step: float
) -> NDArray[np.float32]:
    """Samples ``(h, w, K)`` at multiples of a step, bilinearly; there are zeros around it."""
    values = np.pad(pixels, ((0, 1), (0, 1), (0, 0)))
    for axis in (0, 1):
        at = np.rint(np.arange(size[axis]) * step * STEPS) / STEPS
        last = values.shape[axis] - 1
        before = np.minimum(at.astype(int), last)
        part = np.where(at < last, at - before, 0.0).astype(np.float32)
        part = part[:, None, None] if axis == 0 else part[:, None]
        low, high = (values.take(np.minimum(before + i, last), axis) for i in (0, 1))
        values = low * (1 - part) + high * part
    return values
