"""The parts of a model for programs of one's own, with what a tracer must know of each.

The formats ``onnx`` and ``torch`` write the same parts, each in its own kind of file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from samtune.exports.base import Format, Job
from samtune.exports.graphs import (
    DecoderGraph,
    EncoderGraph,
    WholeGraph,
    check_traceable,
    packed_widths,
)
from samtune.exports.onnx_inputs import SIDES, resized_example
from samtune.exports.tracing import TracedPart
from samtune.model.finetuned import FineTuned

ENCODER, DECODER, WHOLE = ".encoder", ".decoder", ""
"""The parts, by what their files' names have between the model's name and the ending."""
PROMPTS = {0: "num_prompts", 1: "num_points"}
"""The axes of points and of their labels."""


class PartsFormat(Format):
    """A format that writes each part of a model as one file."""

    def check(self, job: Job) -> None:
        """Refuses what has no traced form.

        Raises:
            InputError: A way of resizing without one.
        """
        check_traceable(job.model)

    def write(self, job: Job, folder: Path) -> Mapping[str, Any]:
        """Writes one file for each part."""
        for name, part in traced_parts(job).items():
            self.write_part(job, name, part, folder / f"{job.name}{name}{self.ending(job)}")
        return self.notes(job)

    def ending(self, job: Job) -> str:
        """The ending of a file's name."""
        raise NotImplementedError(f"{self.name} does not define ending")

    def write_part(self, job: Job, name: str, part: TracedPart, path: Path) -> None:
        """Writes a file.

        Args:
            job: The job of the model to export.
            name: The part, as :func:`traced_parts` names it.
            part: The same, to trace.
            path: The file.
        """
        raise NotImplementedError(f"{self.name} does not define write_part")

    def notes(self, job: Job) -> Mapping[str, Any]:
        """Further entries of ``export.json``, see :meth:`samtune.exports.base.Format.write`."""
        return {}


def traced_parts(job: Job) -> dict[str, TracedPart]:
    """The parts of a model: encoder and decoder, or one without prompts."""
    model = job.model
    image = {"input_image": resized_example(model)}
    sides = {"input_image": SIDES} if model.input.resize == "longest" else {}
    if not job.is_prompted:
        whole = WholeGraph(model, job.threshold)
        return {WHOLE: TracedPart(whole, {**image, "orig_im_size": _SIZE}, sides, ("logits",))}
    return {
        ENCODER: TracedPart(EncoderGraph(model), image, sides, ("image_embeddings",)),
        DECODER: TracedPart(
            DecoderGraph(model, job.threshold),
            decoder_inputs(model),
            {"point_coords": PROMPTS, "point_labels": PROMPTS, "mask_input": {0: "num_prompts"}},
            ("masks", "iou_predictions", "low_res_masks"),
        ),
    }


def decoder_inputs(model: FineTuned) -> dict[str, Tensor]:
    """Examples of a decoder's inputs: two prompts of three points each."""
    return {
        **points_example(model),
        "mask_input": torch.zeros(2, 1, *model.mask_size),
        "has_mask_input": torch.zeros(1),
        "orig_im_size": _SIZE,
    }


def points_example(model: FineTuned, extra: int = 0) -> dict[str, Tensor]:
    """Examples of an embedding, and of two prompts of three points each.

    Args:
        model: The model whose decoder it is.
        extra: Channels that its encoder adds to the embedding.
    """
    channels, (h, w) = sum(packed_widths(model)) + extra, model.mask_size
    return {
        "image_embeddings": torch.full((1, channels, h // 4, w // 4), 64.0),
        "point_coords": torch.full((2, 3, 2), 8.0),
        "point_labels": torch.ones(2, 3),
    }


_SIZE = torch.tensor([120.0, 90.0])
