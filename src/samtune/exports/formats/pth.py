"""One official file: what the method learned is in SAM's own weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from samtune.errors import InputError
from samtune.exports.base import FORMATS, Answers, Format, Job
from samtune.exports.merged import CUT_AT_0, PlainAnswers
from samtune.model.merging import merged_state, write_sam
from samtune.sam.weights import from_state, official_names, read_state

ULTRALYTICS = {
    "vit_b": "sam_b.pt",
    "vit_l": "sam_l.pt",
    "vit_h": "sam_h.pt",
    "vit_t": "mobile_sam.pt",
}
"""The endings of file names by which Ultralytics knows the size of a SAM."""


@FORMATS.register("pth")
class Pth(Format):
    """A state dict with the official names, as segment-anything and MobileSAM load it."""

    consumer = "segment-anything, MobileSAM, Ultralytics, samgeo, micro-sam, napari plug-ins"
    writes = "NAME.pth; with format.ultralytics=true NAME_sam_b.pt"
    ignores: ClassVar = {"threshold": f"pth holds {CUT_AT_0}"}

    @dataclass(frozen=True)
    class Config:
        """Settings of the file."""

        ultralytics: bool = False
        """Name the file as Ultralytics needs it, which recognises sizes by the end of the name:
        ``NAME_sam_b.pt``."""

    def check(self, job: Job) -> None:
        """Refuses a name of the file for Ultralytics if it does not know the size of the base.

        Raises:
            InputError: Such a base.
        """
        base = job.model.sam.spec.name
        if job.options["ultralytics"] and base not in ULTRALYTICS:
            raise InputError(
                f"format.ultralytics=true: Ultralytics has {', '.join(ULTRALYTICS)} alone, and "
                f"this is {base}; leave it out"
            )

    def write(self, job: Job, folder: Path) -> Mapping[str, Any]:
        """Writes the file, see :class:`Pth`.

        Raises:
            InputError: The method has no form that SAM's weights can express.
        """
        spec = job.model.sam.spec
        write_sam(spec, merged_state(job.model), folder / _file_name(job))
        return {"model_type": spec.name, "image_size": spec.image_size}

    def advice(self, job: Job) -> str:
        """The way in which SAM's own predictors bring images in."""
        side = job.model.sam.spec.image_size
        return (
            f"programs for SAM bring every image to {side} pixels and pad it; tune at "
            f"input.size={side} with input.resize=longest for them, or export to onnx"
        )

    def answers(self, job: Job, folder: Path) -> Answers:
        """The file, read back strictly."""
        file = folder / _file_name(job)
        state = official_names(read_state(file), file.name)
        return PlainAnswers(job, from_state(job.model.sam.spec, state, file.name))


def _file_name(job: Job) -> str:
    if job.options["ultralytics"]:
        return f"{job.name}_{ULTRALYTICS[job.model.sam.spec.name]}"
    return f"{job.name}.pth"
