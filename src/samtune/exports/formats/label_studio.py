"""Label Studio: a machine learning backend, beside its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from samtune.data.layouts.label_studio import brushed
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

BRUSHES, MODEL, START = "brushes.py", "model.py", "_wsgi.py"


@FORMATS.register("label-studio")
class LabelStudio(LoadingFormat):
    """A backend for Label Studio: keypoints and rectangles in, brush masks out.

    A model without prompts annotates whole images.
    """

    consumer = "Label Studio (label-studio-ml)"
    writes = "model.py, brushes.py, _wsgi.py, labelling.xml, NAME.safetensors and README.md"

    def write(self, job: Job, folder: Path) -> Mapping[str, Any]:
        """Writes the files, see :class:`LabelStudio`."""
        write_checkpoint(job, folder)
        labels = labels_of(job)
        of_masks = None if job.is_prompted else labels
        write_program(job, "label_studio_brushes", folder / BRUSHES, LABELS=of_masks)
        write_program(job, "label_studio_model", folder / MODEL)
        write_program(job, "label_studio_wsgi", folder / START)
        names = [*labels.values()]
        write_whole(folder / "labelling.xml", _interface(names, job.is_prompted), REMEDY)
        write_whole(folder / "README.md", _readme(job), REMEDY)
        return {"labels": names}

    def answers(self, job: Job, folder: Path) -> Answers:
        """The backend, asked with the regions that a person draws."""
        return LabelStudioAnswers(job, folder)


class LabelStudioAnswers:
    """The part of a backend that answers, without label-studio-ml's server around it.

    Args:
        job: The job of the exported model.
        folder: The folder of the export.
    """

    def __init__(self, job: Job, folder: Path) -> None:
        program = load_program(folder / BRUSHES)
        self.brushes = program.Brushes(base=job.model.sam)
        self.threshold = job.threshold
        self.labels = labels_of(job)
        self.count = job.model.acting.decoder.classes or 1
        self.control = program.Control("brush", "image", "image", list(self.labels.values()))
        self.kinds: Sequence[str] = ("box", "point") if job.is_prompted else ("none",)

    @other_prompts()
    def same_pixels(self, image: NDArray[np.uint8], ask: Ask) -> NDArray[np.float32]:
        """Logits of the backend's model, less the threshold."""
        predictor = self.brushes.model.predictor(self.threshold)
        predictor.set_image(image)
        logits, _, _ = predictor.predict(
            point_coords=None if ask.point is None else [ask.point],
            point_labels=None if ask.point is None else [1],
            box=ask.box,
            multimask_output=False,
            return_logits=True,
        )
        return logits - self.threshold

    @other_prompts()
    def as_consumer(self, image: NDArray[np.uint8], ask: Ask) -> NDArray[np.float32]:
        """The masks that a person gets, 1 inside and -1 outside; what has no label is the rest."""
        predictor = self.brushes.model.predictor(self.threshold)
        predictor.set_image(image)
        size = (image.shape[0], image.shape[1])
        masks = np.zeros((self.count, *size), bool)
        numbers = {name: i for i, name in self.labels.items()}
        regions = regions_of(ask, size, self.control.labels[0])
        for stroke in self.brushes.strokes(predictor, self.control, regions):
            value = stroke["value"]
            masks[numbers[value["brushlabels"][0]]] |= brushed(value["rle"], size)
        rest = [i for i in range(self.count) if i not in self.labels]
        masks[rest] = ~masks.any(0)
        return np.where(masks, 1, -1).astype(np.float32)


def regions_of(ask: Ask, size: tuple[int, int], label: str) -> list[dict[str, Any]]:
    """A question as the regions that Label Studio sends, in percent of the image's sides.

    Args:
        ask: The question.
        size: Height and width of the image.
        label: With which the regions were drawn.
    """
    h, w = size
    regions = []
    if ask.point is not None:
        x, y = ask.point
        value = {"x": 100 * x / w, "y": 100 * y / h, "width": 0.3, "keypointlabels": [label]}
        regions.append({"type": "keypointlabels", "is_positive": True, "value": value})
    if ask.box is not None:
        left, top, right, bottom = ask.box
        value = {"x": 100 * left / w, "y": 100 * top / h, "rotation": 0}
        value |= {"width": 100 * (right - left) / w, "height": 100 * (bottom - top) / h}
        regions.append({"type": "rectanglelabels", "value": {**value, "rectanglelabels": [label]}})
    of_image = {"original_width": w, "original_height": h, "image_rotation": 0}
    return [{**of_image, **region} for region in regions]


def _interface(names: Sequence[str], is_prompted: bool) -> str:
    """A labelling interface for the labels: brush strokes, and what prompts them."""
    tools = {"BrushLabels": ("brush", "")}
    if is_prompted:
        tools["KeyPointLabels"] = ("point", ' smart="true"')
        tools["RectangleLabels"] = ("box", ' smart="true"')
    lines = ["<View>", '  <Image name="image" value="$image" zoom="true"/>']
    for tag, (name, smart) in tools.items():
        lines.append(f'  <{tag} name="{name}" toName="image"{smart}>')
        lines += [f"    <Label value={quoteattr(label)}/>" for label in names]
        lines.append(f"  </{tag}>")
    return "\n".join([*lines, "</View>", ""])


def _readme(job: Job) -> str:
    use = "Draw a keypoint or a rectangle with the magic wand on: a brush mask appears."
    if not job.is_prompted:
        use = 'Select tasks and "Retrieve predictions": each image gets its brush masks.'
    return f"""# {job.name} for Label Studio

{weights_note(job)}

    pip install samtune git+https://github.com/HumanSignal/label-studio-ml-backend.git
    export LABEL_STUDIO_URL=http://127.0.0.1:8080 LABEL_STUDIO_API_KEY=...
    python _wsgi.py --port 9090

In the project's settings put `labelling.xml` into "Labeling Interface", and add the model
http://127.0.0.1:9090 under "Model" with interactive preannotations on.
{use}

Variables: `SAMTUNE_DEVICE=cuda`, `SAMTUNE_STRENGTH=0.5`, `SAMTUNE_BASE=FILE`,
`SAMTUNE_CHECKPOINT=FILE`. Annotations do not train the model: export them as JSON, and run
`samtune train data.root=FILE`.
"""
