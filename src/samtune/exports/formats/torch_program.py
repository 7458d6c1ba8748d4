"""Programs of ``torch.export``, and packages of AOTInductor: torch alone runs them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from samtune.exports.base import FORMATS, Answers, Ask, Job
from samtune.exports.formats.onnx import OnnxAnswers, Runner, decoder_prompt
from samtune.exports.graphs import DecoderGraph, WholeGraph
from samtune.exports.onnx_inputs import resized
from samtune.exports.parts import PartsFormat
from samtune.exports.tracing import TracedPart, or_refused
from samtune.files import write_whole
from samtune.inference.places import REMEDY

PROGRAM, PACKAGE = ".pt2", ".aoti.pt2"
"""The endings of a program's file, and of a compiled package's."""


@FORMATS.register("torch")
class TorchProgram(PartsFormat):
    """The graphs of the format ``onnx`` as programs of ``torch.export``.

    Compiled packages answer at the decoder's own resolution: AOTInductor knows no size of an output
    that a number in an input says. See docs/export/torch.md for the few lines that enlarge it.
    """

    consumer = "torch.export.load, in a process without samtune"
    writes = (
        "NAME.encoder.pt2 and NAME.decoder.pt2, or NAME.pt2 without prompts; with "
        "format.aoti=true compiled ones, NAME.encoder.aoti.pt2 ..."
    )

    @dataclass(frozen=True)
    class Config:
        """Settings of the programs."""

        aoti: bool = False
        """Compile them into packages of AOTInductor, for processors like this one. It takes a C++
        compiler and minutes; masks then come at the decoder's resolution."""

    def check(self, job: Job) -> None:
        """Refuses what has no traced form, and to compile without a compiler.

        Raises:
            InputError: A way of resizing without one, or no compiler.
        """
        super().check(job)
        if job.options["aoti"]:
            check_compiler()

    def ending(self, job: Job) -> str:
        """The ending of a file's name."""
        return PACKAGE if job.options["aoti"] else PROGRAM

    def write_part(self, job: Job, name: str, part: TracedPart, path: Path) -> None:
        """Writes a program, see :class:`TorchProgram`."""
        if job.options["aoti"]:
            _compile(at_low_resolution(part).program, path)
        else:
            # a full disk would end the process in torch's own writer
            content = BytesIO()
            torch.export.save(part.program, content)
            write_whole(path, content.getvalue(), REMEDY)

    def notes(self, job: Job) -> Mapping[str, Any]:
        """The kind of the programs."""
        return {"kind": "aoti" if job.options["aoti"] else "program"}

    def answers(self, job: Job, folder: Path) -> Answers:
        """The files of the folder, loaded by torch."""
        return PackageAnswers(job, folder) if job.options["aoti"] else ProgramAnswers(job, folder)


class LowDecoder(nn.Module):
    """The decoder without the image's size: logits of low resolution, and their IoU.

    Args:
        graph: A graph that does not enlarge.
    """

    def __init__(self, graph: DecoderGraph) -> None:
        super().__init__()
        self.within = graph

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Logits ``(B, K, 4H, 4W)`` and ``(B, K)``; see :class:`DecoderGraph` for the inputs."""
        prompts = (point_coords, point_labels, mask_input, has_mask_input)
        _, iou, low = self.within(image_embeddings, *prompts, None)
        return low, iou


class LowWhole(nn.Module):
    """A model without prompts, without the image's size: logits of low resolution.

    Args:
        graph: With the model.
    """

    def __init__(self, graph: WholeGraph) -> None:
        super().__init__()
        self.within = graph

    def forward(self, image: Tensor) -> Tensor:
        """Logits ``(1, K, h, w)``; see :class:`WholeGraph` for the image."""
        return self.within.low(image)


def at_low_resolution(part: TracedPart) -> TracedPart:
    """A part whose outputs have sizes that do not depend on a number in an input."""
    module = part.module
    if isinstance(module, DecoderGraph):
        module = LowDecoder(DecoderGraph(module.model, module.threshold, enlarges=False))
    elif isinstance(module, WholeGraph):
        module = LowWhole(module)
    inputs = {name: each for name, each in part.inputs.items() if name != "orig_im_size"}
    return replace(part, module=module, inputs=inputs)


@torch.no_grad()
def _compile(program: torch.export.ExportedProgram, path: Path) -> None:
    """Writes a package of AOTInductor.

    Raises:
        InputError: It cannot be compiled.
    """
    with TemporaryDirectory() as place:
        package = Path(place, path.name)
        or_refused(
            "format.aoti=true: torch cannot compile this model here ({}); leave it out for "
            "programs of torch.export",
            lambda: torch._inductor.aoti_compile_and_package(program, package_path=str(package)),
        )
        shutil.move(package, path)


def check_compiler() -> None:
    """Refuses a machine without the C++ compiler that torch would use.

    Raises:
        InputError: There is none.
    """
    from torch._inductor.cpp_builder import get_cpp_compiler

    or_refused(
        "format.aoti=true: needs a C++ compiler, and torch knows none here ({}); install g++ or "
        "clang, name one in the variable CXX, or leave it out",
        get_cpp_compiler,
    )


class ProgramAnswers(OnnxAnswers):
    """The programs of a folder at work."""

    def opened(self, path: Path) -> Runner:
        """A program to run."""
        return _runner(torch.export.load(path.with_name(f"{path.name}{PROGRAM}")).module())


class PackageAnswers(OnnxAnswers):
    """The packages of a folder at work, whose masks are enlarged here."""

    def opened(self, path: Path) -> Runner:
        """A package to run."""
        return _runner(torch._inductor.aoti_load_package(str(path.with_name(path.name + PACKAGE))))

    def same_pixels(self, image: NDArray[np.uint8], ask: Ask) -> NDArray[np.float32]:
        """Logits ``(K, h, w)``, see :class:`samtune.exports.base.Answers`."""
        pixels, geometry = resized(self.model, image)
        if "box" not in self.kinds:
            low = self.whole(pixels)[0]
        else:
            embedding = self._encoded.get("same", image, lambda: self.encoder(pixels)[0])
            low = self.decoder(embedding, *decoder_prompt(self.model, geometry, ask))[0]
        whole = self.model.input.way().logits(torch.from_numpy(low), geometry)
        return whole[0].numpy()


def _runner(loaded: Any) -> Runner:
    """A program that takes arrays in their order and gives all that it returns."""

    @torch.no_grad()
    def run(*arrays: NDArray[Any]) -> list[NDArray[np.float32]]:
        # compiled code takes the strides of its examples for granted
        inputs = (np.ascontiguousarray(each, np.float32) for each in arrays)
        answer = loaded(*map(torch.from_numpy, inputs))
        return [each.numpy() for each in (answer if isinstance(answer, tuple | list) else [answer])]

    return run
