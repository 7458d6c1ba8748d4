"""X-AnyLabeling: a pair of files and the yaml that loads them, by the type that fits the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from samtune.errors import InputError
from samtune.exports.base import FORMATS, Answers, Ask, Job
from samtune.exports.canvas import CANVAS_ADVICE, CanvasAnswers, write_canvas_pair
from samtune.exports.onnx_files import write_onnx
from samtune.exports.onnx_inputs import notes_of, resized_example
from samtune.exports.parts import PROMPTS, points_example
from samtune.exports.tool_files import (
    ToolAnswers,
    ToolFormat,
    enlarged,
    longest,
    normalised,
    points_of,
    scale_to,
    write_encoder,
    write_yaml,
)
from samtune.exports.tool_graphs import (
    SIZE_CHANNELS,
    SquareDecoder,
    StretchedDecoder,
    StretchedEncoder,
    ToolEncoder,
)
from samtune.exports.tracing import TracedPart
from samtune.geometry import Geometry
from samtune.model.finetuned import FineTuned
from samtune.options import Count

Type = Literal["auto", "edge_sam", "segment_anything", "segment_anything_2"]


@FORMATS.register("x-anylabeling")
class XAnylabeling(ToolFormat):
    """Two files for one of X-AnyLabeling's ways of running a SAM.

    See docs/export/x-anylabeling.md for what each of them does with an image.
    """

    consumer = "X-AnyLabeling"
    writes = "NAME.yaml, NAME.encoder.onnx and NAME.decoder.onnx"

    @dataclass(frozen=True)
    class Config:
        """Options of :class:`XAnylabeling`."""

        type: Type = "auto"
        """The tool's way of running the model. auto: ``segment_anything_2`` if images are stretched
        to the model's frame, else ``edge_sam``."""
        target_length: Count | None = None
        """Longest side in pixels to which the tool resizes an image with ``edge_sam``; by
        default that of the frame. The tool leaves pixels out, so that a larger number helps if
        photographs are several times larger than the frame."""

    def check(self, job: Job) -> None:
        """Refuses a type that does not fit the model, besides what all tools refuse.

        Raises:
            InputError: Such a type, a name that the tool does not take, or another model.
        """
        super().check(job)
        policy, kind = job.model.input, type_of(job)
        if not job.name.isascii():
            raise InputError(
                f"--name={job.name}: X-AnyLabeling takes the letters a to z, digits and - _ . alone"
            )
        if kind == "segment_anything_2" and policy.resize != "stretch":
            raise InputError(
                "format.type=segment_anything_2: X-AnyLabeling stretches images there, and this "
                f"model has input.resize={policy.resize}; leave it out for edge_sam"
            )
        if kind == "edge_sam" and not policy.antialias:
            raise InputError(
                "format.type=edge_sam: the tool rounds resized pixels there, and this model has "
                "input.antialias=false, which does not; choose format.type=segment_anything"
            )
        length = job.options["target_length"]
        if length is not None and kind != "edge_sam":
            raise InputError(
                f"format.target_length={length}: X-AnyLabeling has none with the type {kind}; "
                "leave it out"
            )
        if length is not None and length < max(policy.size):
            raise InputError(
                f"format.target_length={length}: must be at least {max(policy.size)}, the longest "
                "side of the model's frame"
            )

    def write(self, job: Job, folder: Path) -> Mapping[str, Any]:
        """Writes the files, see :class:`XAnylabeling`."""
        kind = type_of(job)
        if kind == "segment_anything":
            return write_canvas_pair(job, folder)
        if kind == "segment_anything_2":
            _write_stretched_pair(job, folder)
            return write_yaml(job, folder, kind)
        side = target_length(job.model, job.options)
        _write_square_pair(job, folder, side)
        return write_yaml(job, folder, kind, target_length=side)

    def advice(self, job: Job) -> str:
        """Images that the tool need not shrink, or another tool."""
        kind, side = type_of(job), max(job.model.input.size)
        if kind == "segment_anything":
            return CANVAS_ADVICE
        if kind == "segment_anything_2":
            return (
                "X-AnyLabeling rounds shrunk pixels once, and samtune twice; --format labelme "
                "prepares them as samtune does"
            )
        if target_length(job.model, job.options) != side:
            return f"leave format.target_length out for images of at most {side} pixels"
        return (
            f"X-AnyLabeling leaves pixels out where it shrinks an image to {side}; give it smaller "
            "images, try format.target_length=1024, or export to labelme"
        )

    def answers(self, job: Job, folder: Path) -> Answers:
        """The files in onnxruntime, as X-AnyLabeling asks them."""
        answers: dict[str, type[ToolAnswers]] = {
            "segment_anything": CanvasAnswers,
            "segment_anything_2": StretchedAnswers,
            "edge_sam": SquareAnswers,
        }
        return answers[type_of(job)](job, folder)


def type_of(job: Job) -> str:
    """X-AnyLabeling's type for a model, as it is set or as it fits."""
    policy = job.model.input
    if job.options["type"] != "auto":
        return str(job.options["type"])
    if policy.resize == "stretch":
        return "segment_anything_2"
    return "edge_sam" if policy.antialias else "segment_anything"


def target_length(model: FineTuned, options: Mapping[str, Any]) -> int:
    """The longest side to which the type ``edge_sam`` resizes an image, in pixels."""
    return int(options["target_length"] or max(model.input.size))


def _write_square_pair(job: Job, folder: Path, side: int) -> None:
    image = resized_example(job.model)[:-1, :-2].byte().permute(2, 0, 1)[None]
    sides = {2: "image_height", 3: "image_width"}
    encoder = ToolEncoder(job.model, "planes")
    write_encoder(job, folder, encoder, {"image": image}, {"image": sides})
    part = TracedPart(
        SquareDecoder(job.model, job.threshold, side),
        points_example(job.model, SIZE_CHANNELS),
        {"point_coords": PROMPTS, "point_labels": PROMPTS},
        ["scores", "masks"],
    )
    write_onnx(folder / f"{job.name}.decoder.onnx", part, notes_of(job))


def _write_stretched_pair(job: Job, folder: Path) -> None:
    encoder = StretchedEncoder(job.model)
    features = ("high_res_feats_0", "high_res_feats_1", "image_embed")
    image = torch.ones(1, 3, *job.model.input.size)
    write_encoder(job, folder, encoder, {"image": image}, {}, features)
    example = points_example(job.model)
    part = TracedPart(
        StretchedDecoder(job.model, job.threshold),
        {
            "image_embed": example["image_embeddings"],
            "high_res_feats_0": torch.zeros(1, 1, 1, 1),
            "high_res_feats_1": torch.zeros(1, 1, 1, 1),
            "point_coords": example["point_coords"],
            "point_labels": example["point_labels"],
            "mask_input": torch.zeros(2, 1, 16, 24),  # of the tool's own size
            "has_mask_input": torch.zeros(1),
        },
        {
            "point_coords": PROMPTS,
            "point_labels": PROMPTS,
            "mask_input": {0: "num_prompts", 2: "mask_height", 3: "mask_width"},
        },
        ["masks", "iou_predictions"],
    )
    write_onnx(folder / f"{job.name}.decoder.onnx", part, notes_of(job))


class SquareAnswers(ToolAnswers):
    """The type ``edge_sam``: bilinear to the longest side, without antialiasing and padding.

    The decoder answers in a square of that side, which is cut to the image and enlarged.
    """

    def in_frame(self, content: NDArray[np.float32]) -> NDArray[Any]:
        """The pixels as bytes, ``(1, 3, h, w)``."""
        return np.rint(content).astype(np.uint8).transpose(2, 0, 1)[None]

    def ask_frame(
        self, encoded: tuple[Any, ...], geometry: Geometry, ask: Ask
    ) -> NDArray[np.float32]:
        """Asks with points in the resized image."""
        xy, labels = points_of(ask, scale_to(geometry), padded=False)
        h, w = geometry.resized
        return enlarged(self.decoder(encoded[0], xy, labels)[1][0, :, :h, :w], geometry.original)

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[Any]:
        """Resizes the image."""
        size = self.fitted((image.shape[0], image.shape[1]))
        values = enlarged(image.transpose(2, 0, 1).astype(np.float32), size)
        return self.in_frame(values.transpose(1, 2, 0))

    def fitted(self, size: tuple[int, int]) -> tuple[int, int]:
        """The longest side at the length that the yaml states."""
        return longest(size, target_length(self.model, self.options))


class StretchedAnswers(ToolAnswers):
    """The type ``segment_anything_2``: Pillow's bilinear resize of floats to the encoder's input.

    Inputs go by position.
    """

    def in_frame(self, content: NDArray[np.float32]) -> NDArray[Any]:
        """The pixels, normalised."""
        return normalised(self.model, content, self.model.input.size)

    def ask_frame(
        self, encoded: tuple[Any, ...], geometry: Geometry, ask: Ask
    ) -> NDArray[np.float32]:
        """Asks with points in the frame."""
        xy, labels = points_of(ask, scale_to(geometry), padded=False)
        first, second, embedding = encoded
        h, w = self.model.input.size
        no_mask = np.zeros((1, 1, h // 4, w // 4))
        masks = self.decoder(embedding, first, second, xy, labels, no_mask, np.zeros(1))[0][0]
        return enlarged(masks, geometry.original)

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[Any]:
        """Stretches the image."""
        h, w = self.model.input.size
        channels = [
            np.asarray(Image.fromarray(plane).resize((w, h), Image.Resampling.BILINEAR))
            for plane in image.astype(np.float32).transpose(2, 0, 1)
        ]
        return self.in_frame(np.stack(channels, -1))

    def fitted(self, size: tuple[int, int]) -> tuple[int, int]:
        """The frame."""
        return self.model.input.size
