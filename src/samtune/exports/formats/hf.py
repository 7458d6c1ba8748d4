"""A folder of transformers: what the method learned is in ``SamModel``'s weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from samtune.exports.base import FORMATS, Answers, Format, Job
from samtune.exports.merged import CUT_AT_0
from samtune.exports.transformers_sam import (
    TransformersAnswers,
    check_expressible,
    quietly,
    sam_model,
    write_processor,
)
from samtune.model.merging import merged_state


@FORMATS.register("hf")
class HuggingFace(Format):
    """A folder for ``SamModel.from_pretrained`` and ``SamProcessor.from_pretrained``."""

    consumer = "transformers' SamModel and its mask-generation pipeline"
    writes = "config.json, model.safetensors, preprocessor_config.json"
    needs = ("transformers",)
    extra = "hf"
    ignores: ClassVar = {
        "threshold": f"hf holds {CUT_AT_0}",
        "name": "SamModel.from_pretrained demands the names of the files; leave it out",
    }

    def check(self, job: Job) -> None:
        """Refuses another encoder than the ViT and a frame that is no square.

        Raises:
            InputError: One of these.
        """
        check_expressible(job.model, "hf", self.needs)

    def write(self, job: Job, folder: Path) -> Mapping[str, Any]:
        """Writes the folder, see :class:`HuggingFace`.

        Raises:
            InputError: The method has no form that SAM's weights can express.
        """
        built: Any = sam_model(job.model, merged_state(job.model, normalised=False))
        with quietly():
            built.save_pretrained(folder)
        write_processor(job.model, folder)
        return {}

    def answers(self, job: Job, folder: Path) -> Answers:
        """The folder, read back by transformers."""
        from transformers import SamModel

        with quietly():
            built = SamModel.from_pretrained(folder, local_files_only=True).eval()
        return TransformersAnswers(job, built, folder)
