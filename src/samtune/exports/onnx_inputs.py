"""Examples and images for the ONNX files of several formats, and the description in them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samtune.data.transforms import fit
from samtune.exports.base import Job
from samtune.geometry import Geometry
from samtune.model.finetuned import FineTuned

SIDES = {0: "image_height", 1: "image_width"}
"""The axes of an image that was resized but not padded."""


def resized_example(model: FineTuned) -> Tensor:
    """An image ``(h, w, 3)`` as the encoder takes it; shorter than the frame if that is padded."""
    h, w = model.input.size
    down = max(2, h * 3 // 4) if model.input.resize == "longest" else h
    return torch.full((down, w, 3), 127.0)


def notes_of(job: Job) -> dict[str, str]:
    """The description in a file, for programs that have nothing else."""
    policy = job.model.input
    return {
        "samtune.prompts": job.model.prompts,
        "samtune.resize": policy.resize,
        "samtune.frame": f"{policy.size[0]},{policy.size[1]}",
        "samtune.classes": ",".join(job.classes),
        "samtune.threshold": f"{job.threshold:g}",
    }


def resized(model: FineTuned, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], Geometry]:
    """An image as an exported encoder takes it, ``(h', w', 3)``, and where it lies in the frame."""
    pixels, geometry = fit(image, replace(model.input, channels="rgb"))
    h, w = geometry.resized
    content = pixels[:, :h, :w].permute(1, 2, 0).float().numpy()
    return content, Geometry(geometry.original, geometry.resized, geometry.model)
