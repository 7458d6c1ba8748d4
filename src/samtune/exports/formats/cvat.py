"""CVAT: one function file that an agent or an auto-annotation loads, beside its checkpoint.

With ``format.nuclio=true`` the same for nuclio, which older servers run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from samtune.exports.base import FORMATS, Answers, Ask, Job
from samtune.exports.folders import (
    REMEDY,
    LoadingFormat,
    labels_of,
    load_program,
    other_prompts,
    weights_note,
    write_checkpoint,
    write_program,
)
from samtune.files import write_whole

FUNCTION = "cvat_function.py"
HANDLER, DEPLOYMENT = "main.py", "function.yaml"
"""The files that nuclio reads."""


@FORMATS.register("cvat")
class Cvat(LoadingFormat):
    """A function file for CVAT's agents, and for auto-annotation of a task.

    A model with prompts becomes an interaction function, one without a detection function.
    """

    consumer = "CVAT (cvat-cli and its agents)"
    writes = (
        "cvat_function.py, NAME.safetensors and README.md; with format.nuclio=true function.yaml "
        "and main.py too"
    )
    needs = ("cvat_sdk",)
    extra = "cvat"

    @dataclass(frozen=True)
    class Config(LoadingFormat.Config):
        """Options of :class:`Cvat`."""

        nuclio: bool = False
        """Write the files of a nuclio function too, for servers that have no agents."""

    def write(self, job: Job, folder: Path) -> Mapping[str, Any]:
        """Writes the files, see :class:`Cvat`."""
        write_checkpoint(job, folder)
        if job.is_prompted:
            points, boxes = prompts_needed(job)
            write_program(
                job, "cvat_interaction", folder / FUNCTION, MIN_POINTS=points, MIN_BOXES=boxes
            )
            notes: dict[str, Any] = {"kind": "interaction"}
        else:
            labels = labels_of(job)
            write_program(job, "cvat_detection", folder / FUNCTION, LABELS=labels)
            notes = {"kind": "detection", "labels": list(labels.values())}
        if job.options["nuclio"]:
            _write_nuclio(job, folder)
        write_whole(folder / "README.md", _readme(job), REMEDY)
        return notes

    def answers(self, job: Job, folder: Path) -> Answers:
        """The function, called as cvat-cli calls it."""
        return Interaction(job, folder) if job.is_prompted else Detection(job, folder)


def prompts_needed(job: Job) -> tuple[int, int | None]:
    """Points and boxes that a model needs, in CVAT's words, from what it was trained for.

    A model of points alone takes no boxes (``None``); one of boxes alone needs one, and takes
    points that correct its mask.
    """
    kinds = job.model.prompt_modes.kinds
    if "point" in kinds and "box" not in kinds and job.model.trainable():
        return 1, None
    only_boxes = "point" not in kinds and job.model.trainable() > 0
    return 0, int(only_boxes)


def _write_nuclio(job: Job, folder: Path) -> None:
    """Writes the handler, and how nuclio builds and CVAT shows it."""
    import yaml

    labels = None if job.is_prompted else labels_of(job)
    write_program(job, "cvat_nuclio", folder / HANDLER, LABELS=labels)
    about: dict[str, Any] = {"name": job.name, "type": "interactor", "spec": ""}
    if labels is None:
        points, boxes = prompts_needed(job)
        way = {None: {}, 0: {"startswith_box_optional": True}, 1: {"startswith_box": True}}[boxes]
        about |= {
            # servers that know no box alone ask for a click
            "min_pos_points": max(points, 1 - (boxes or 0)),
            "min_neg_points": 0,
            **way,
            "help_message": f"{job.model.adapter.name} on {job.model.sam.spec.name}, by samtune",
            "animated_gif": "",
        }
    else:
        rows = [{"id": i, "name": name, "type": "mask"} for i, name in labels.items()]
        about |= {"type": "detector", "spec": json.dumps(rows, indent=1)}
    slug = re.sub("[^a-z0-9]+", "-", job.name.lower()).strip("-")
    steps = [
        {"kind": "WORKDIR", "value": "/opt/nuclio"},
        {"kind": "RUN", "value": "pip install --no-cache-dir samtune"},
    ]
    tree = {
        "metadata": {"name": f"samtune-{slug}", "namespace": "cvat", "annotations": about},
        "spec": {
            "description": f"{job.name}, tuned with samtune",
            "runtime": "python:3.11",
            "handler": "main:handler",
            "eventTimeout": "30s",
            "build": {
                "image": f"cvat.samtune.{slug}",
                "baseImage": "python:3.11-slim",
                "directives": {"preCopy": steps},
            },
            "triggers": {
                "myHttpTrigger": {
                    "numWorkers": 1,
                    "kind": "http",
                    "workerAvailabilityTimeoutMilliseconds": 10000,
                    "attributes": {"maxRequestBodySize": 2**25},
                }
            },
            "platform": {
                "attributes": {
                    "restartPolicy": {"name": "always", "maximumRetryCount": 3},
                    "mountMode": "volume",
                }
            },
        },
    }
    write_whole(folder / DEPLOYMENT, yaml.safe_dump(tree, sort_keys=False), REMEDY)


@dataclass(frozen=True)
class Clicks:
    """Prompts as CVAT hands them over, in the image's pixels."""

    pos_points: Sequence[tuple[float, float]] = ()
    neg_points: Sequence[tuple[float, float]] = ()
    bounding_box: tuple[tuple[float, float], tuple[float, float]] | None = None

    @staticmethod
    def of(ask: Ask) -> Clicks:
        """A question of a check."""
        points = () if ask.point is None else (ask.point,)
        return Clicks(points, (), ask.box and (ask.box[:2], ask.box[2:]))


class Interaction:
    """The interaction function of a folder.

    Args:
        job: The job of the exported model.
        folder: The folder of the export.
    """

    def __init__(self, job: Job, folder: Path) -> None:
        self.function = load_program(folder / FUNCTION).create(base=job.model.sam)
        self.threshold = job.threshold
        spec = self.function.spec
        takes = {"box": spec.min_bounding_boxes is not None, "point": spec.min_bounding_boxes != 1}
        self.kinds: Sequence[str] = [kind for kind, can in takes.items() if can]

    @other_prompts()
    def same_pixels(self, image: NDArray[np.uint8], ask: Ask) -> NDArray[np.float32]:
        """Logits of the function's model, less the threshold."""
        predictor = self.function.preprocess_image(None, Image.fromarray(image))
        point = None if ask.point is None else [ask.point]
        logits, _, _ = predictor.predict(
            point,
            None if point is None else [1],
            ask.box,
            multimask_output=False,
            return_logits=True,
        )
        return logits - self.threshold

    @other_prompts()
    def as_consumer(self, image: NDArray[np.uint8], ask: Ask) -> NDArray[np.float32]:
        """The mask that CVAT gets, 1 inside and -1 outside."""
        from cvat_sdk.masks import decode_mask

        picture = self.function.preprocess_image(None, Image.fromarray(image))
        h, w = image.shape[:2]
        mask = np.zeros((h, w), bool)
        for shape in self.function.detect(None, picture, Clicks.of(ask)):
            mask |= decode_mask(shape.points, image_width=w, image_height=h)
        return np.where(mask, 1, -1).astype(np.float32)[None]


@dataclass(frozen=True)
class Wishes:
    """The wishes that CVAT has of a detection."""

    frame_name: str = "image"
    conf_threshold: float | None = None
    conv_mask_to_poly: bool = False


class Detection:
    """The detection function of a folder.

    Args:
        job: The job of the exported model.
        folder: The folder of the export.
    """

    kinds: Sequence[str] = ("none",)

    def __init__(self, job: Job, folder: Path) -> None:
        self.function = load_program(folder / FUNCTION).create(base=job.model.sam)
        self.classes = job.model.acting.decoder.classes
        self.threshold = job.threshold

    @other_prompts()
    def same_pixels(self, image: NDArray[np.uint8], ask: Ask) -> NDArray[np.float32]:
        """Logits of the function's model, less the threshold."""
        predictor = self.function.predictor
        predictor.set_image(Image.fromarray(image))
        logits, _, _ = predictor.predict(multimask_output=False, return_logits=True)
        return logits - self.threshold

    @other_prompts()
    def as_consumer(self, image: NDArray[np.uint8], ask: Ask) -> NDArray[np.float32]:
        """The masks that CVAT gets, 1 inside and -1 outside; what has no label is the rest."""
        from cvat_sdk.masks import decode_mask

        h, w = image.shape[:2]
        masks = np.zeros((self.classes or 1, h, w), bool)
        for shape in self.function.detect(Wishes(), Image.fromarray(image)):
            masks[shape.label_id] |= decode_mask(shape.points, image_width=w, image_height=h)
        labels = {label.id for label in self.function.spec.labels}
        rest = [i for i in range(len(masks)) if i not in labels]
        masks[rest] = ~masks.any(0)
        return np.where(masks, 1, -1).astype(np.float32)


def _readme(job: Job) -> str:
    if job.is_prompted:
        what = "An interaction function: clicks and a box in, a mask out."
        more = ""
    else:
        what = f"A detection function with the labels {', '.join(labels_of(job).values())}."
        more = f"""
Or annotate a whole task, which has labels of these names:

    cvat-cli task auto-annotate TASK --function-file {FUNCTION} --allow-unmatched-labels
"""
    return f"""# {job.name} for CVAT

{what}
{weights_note(job)}

    pip install samtune cvat-cli
    cvat-cli function create-native "{job.name}" --function-file {FUNCTION}
    cvat-cli function run-agent ID --function-file {FUNCTION} -p device=str:cuda

ID is the number that the second command prints; the agent answers for as long as it runs.
{more}
Parameters of both: `-p checkpoint=str:FILE`, `-p base=str:FILE`, `-p device=str:cuda`,
`-p strength=float:0.5`.
{_nuclio_note(job)}"""


def _nuclio_note(job: Job) -> str:
    if not job.options["nuclio"]:
        return ""
    return """
On a server without agents, nuclio runs `main.py` as `function.yaml` says:

    nuctl deploy --project-name cvat --path . --platform local
"""
