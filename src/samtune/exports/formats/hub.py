"""A folder as a repository of the Hugging Face hub: checkpoint, header, card and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from samtune.exports.base import FORMATS, Answers, Ask, Format, Job
from samtune.exports.checks import Reference
from samtune.model.checkpoint import load


@FORMATS.register("hub")
class Hub(Format):
    """Everything that a reader of the hub expects; ``hf upload`` puts it there."""

    keeps_checkpoint = cuts = names_classes = True
    ignores: ClassVar = {
        "threshold": "the checkpoint holds none; leave it out, and say --threshold to samtune "
        "predict or threshold= to model.predictor()"
    }
    consumer = "the Hugging Face hub, and samtune.load on hf:owner/name"
    writes = "samtune.safetensors, config.json, README.md (the model's card)"

    @dataclass(frozen=True)
    class Config:
        """Settings of the card."""

        licence: str = ""
        """The licence of the weights, as ``apache-2.0``."""
        data: str = ""
        """The data that it was trained on, in words or as the id of a data set on the hub."""
        data_licence: str = ""
        """The licence of the data."""
        base_model: str = ""
        """The hub id of the base, as ``facebook/sam-vit-base``."""

    def write(self, job: Job, folder: Path) -> Mapping[str, Any]:
        """Writes the folder, see :class:`Hub`."""
        model = copy(job.model)
        model.about = about_with(model.about or {}, job.classes)
        model.save_pretrained(folder, name=job.name, picture="check.png", **job.options)
        return {}

    def answers(self, job: Job, folder: Path) -> Answers:
        """The checkpoint of the folder beside the same base."""
        return LoadedAnswers(replace(job, model=load(folder, job.model.sam)))


def about_with(about: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """The entries of a checkpoint's header, with names of the classes, if there are any."""
    if not classes:
        return dict(about)
    names: dict[str, Any] = {"classes": list(classes)}
    if isinstance(config := about.get("config"), Mapping):  # predict reads them there
        names["config"] = {**config, "data": {**config["data"], "class_names": list(classes)}}
    return {**about, **names}


class LoadedAnswers:
    """A checkpoint at work.

    Args:
        job: With the model as it was loaded.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self.kinds: Sequence[str] = (
            ("box", "point", "mask", "none") if job.is_prompted else ("none",)
        )

    def same_pixels(self, image: NDArray[np.uint8], ask: Ask) -> NDArray[np.float32]:
        """Logits ``(K, h, w)``, see :class:`samtune.exports.base.Answers`."""
        return Reference(self._job, image).logits(ask)

    def as_consumer(self, image: NDArray[np.uint8], ask: Ask) -> None:
        """Nothing: samtune prepares the pixels."""
