"""Programs of ``torch.export``: files that torch alone runs, without samtune."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from samtune.errors import InputError
from samtune.exports.base import FORMATS, Answers, Format, Job
from samtune.exports.formats.onnx import DECODER_AXES, OnnxAnswers, Runner, decoder_inputs
from samtune.exports.graphs import DecoderGraph, EncoderGraph, WholeGraph, check_traceable
from samtune.exports.onnx_files import axes_of, silence
from samtune.exports.onnx_inputs import SIDES, resized_example

PROGRAM = ".pt2"
"""The ending of a program's file."""


@dataclass(frozen=True)
class Traced:
    """A module to trace, with examples of its inputs."""

    module: nn.Module
    inputs: Mapping[str, Tensor]
    axes: Mapping[str, Mapping[int, str]]
    """The axes of any length, by input."""


@FORMATS.register("torch")
class TorchProgram(Format):
    """The graphs of the format ``onnx`` as programs of ``torch.export``."""

    consumer = "torch.export.load, in a process without samtune"
    writes = "NAME.encoder.pt2 and NAME.decoder.pt2, or NAME.pt2 without prompts"

    def check(self, job: Job) -> None:
        """Refuses what has no traced form.

        Raises:
            InputError: A way of resizing without one.
        """
        check_traceable(job.model)

    def write(self, job: Job, folder: Path) -> Mapping[str, Any]:
        """Writes the programs, see :class:`TorchProgram`."""
        for part, traced in _parts(job).items():
            program = _trace(traced, part)
            torch.export.save(program, folder / f"{job.name}{part}{PROGRAM}")
        return {}

    def answers(self, job: Job, folder: Path) -> Answers:
        """The programs of the folder, loaded by torch."""
        return ProgramAnswers(job, folder)


def _parts(job: Job) -> dict[str, Traced]:
    """The modules of a model by what their files' names have between name and ending."""
    model = job.model
    image = {"input_image": resized_example(model)}
    sides = {"input_image": SIDES} if model.input.resize == "longest" else {}
    if not job.is_prompted:
        size = {"orig_im_size": torch.tensor([120.0, 90.0])}
        return {"": Traced(WholeGraph(model, job.threshold), {**image, **size}, sides)}
    decoder = DecoderGraph(model, job.threshold)
    return {
        ".encoder": Traced(EncoderGraph(model), image, sides),
        ".decoder": Traced(decoder, decoder_inputs(model), DECODER_AXES),
    }


@torch.no_grad()
def _trace(traced: Traced, part: str) -> torch.export.ExportedProgram:
    """A program of a module.

    Raises:
        InputError: torch cannot trace it.
    """
    shapes = axes_of(traced.inputs, traced.axes)
    inputs = tuple(traced.inputs.values())
    try:
        with silence():
            return torch.export.export(traced.module.eval(), inputs, dynamic_shapes=shapes)
    except Exception as error:  # the tracer raises many types; each means that there is no program
        raise InputError(
            f"{part.strip('.') or 'model'}: torch cannot trace this model "
            f"({str(error).strip().splitlines()[0]}); samtune predict runs the checkpoint, and so "
            "do the formats cvat and label-studio"
        ) from error


class ProgramAnswers(OnnxAnswers):
    """The programs of a folder at work."""

    def opened(self, path: Path) -> Runner:
        """A program to run."""
        return _runner(path.with_name(f"{path.name}{PROGRAM}"))


def _runner(path: Path) -> Runner:
    """A program that takes arrays in their order and gives all that it returns."""
    loaded = torch.export.load(path).module()

    @torch.no_grad()
    def run(*arrays: NDArray[Any]) -> list[NDArray[np.float32]]:
        answer = loaded(*(torch.as_tensor(np.asarray(each, np.float32)) for each in arrays))
        return [each.numpy() for each in (answer if isinstance(answer, tuple | list) else [answer])]

    return run
