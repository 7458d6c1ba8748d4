"""Regions of Label Studio go in, the brush strokes of a tuned SAM come out.

It needs samtune; the checkpoint lies beside it. Places are percent of the image's sides.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from samtune import Predictor

CHECKPOINT = "model.safetensors"
"""The file beside this one; the variable ``SAMTUNE_CHECKPOINT`` names another."""
BASE = ""
"""The weights of its base, if they lie beside this file too; else ``SAMTUNE_BASE`` names them."""
THRESHOLD = 0.0
"""Logits above it are inside, if the model does not tell classes apart."""
LABELS: dict[int, str] | None = None
"""The names of the masks of a model without prompts, by their number; a class without one, as the
background, is left out."""
IMAGES = 8
"""The number of images that stay encoded, so that the next click on one is quick."""


@dataclass(frozen=True)
class Control:
    """The place of brush strokes in a labelling interface."""

    from_name: str
    """The name of its ``<BrushLabels>``."""
    to_name: str
    """The name of its ``<Image>``."""
    key: str
    """The entry of a task's data that has the image's address."""
    labels: Sequence[str]
    """The labels that can be drawn."""

    @staticmethod
    def of(interface: Mapping[str, Any]) -> Control:
        """The first one in an interface, as Label Studio parses its XML.

        Raises:
            ValueError: There is none.
        """
        for name, tag in interface.items():
            if tag["type"] == "BrushLabels" and tag["inputs"][0]["type"] == "Image":
                return Control(name, tag["to_name"][0], tag["inputs"][0]["value"], tag["labels"])
        raise ValueError("the labelling interface has no <BrushLabels> for an <Image>; add one")

    def label(self, name: str | None) -> str | None:
        """The label of a mask: the one of this name, or the only one that there is."""
        alike = [each for each in self.labels if name and each.lower() == name.lower()]
        if name in self.labels:
            return name
        return alike[0] if alike else self.labels[0] if len(self.labels) == 1 else None


class Brushes:
    """A model that answers with brush strokes; several threads may ask it.

    Args:
        base: The weights of its base, if not as the constants and variables above say.
    """

    def __init__(self, base: Any = None) -> None:
        import samtune

        here = Path(__file__).parent
        checkpoint = Path(os.environ.get("SAMTUNE_CHECKPOINT") or here / CHECKPOINT)
        beside = here / BASE if BASE and (here / BASE).is_file() else None
        strength = os.environ.get("SAMTUNE_STRENGTH")
        self.model = samtune.load(
            checkpoint,
            base or os.environ.get("SAMTUNE_BASE") or beside,
            device=os.environ.get("SAMTUNE_DEVICE") or "cpu",
            strength=strength or None,
        )
        self.version = f"{checkpoint.stem}-{sha256(checkpoint.read_bytes()).hexdigest()[:8]}"
        self._predictors: OrderedDict[tuple[str, int], Predictor] = OrderedDict()
        self._lock = Lock()

    def prediction(
        self, path: str, control: Control, regions: Sequence[Mapping[str, Any]] = ()
    ) -> dict[str, Any] | None:
        """The prediction that Label Studio shows for an image, or ``None`` without any stroke.

        Args:
            path: The image.
            control: The control to which the strokes belong.
            regions: The keypoints and rectangles that were drawn; a model without prompts answers
                without any.
        """
        with self._lock:
            strokes = self.strokes(self._encoded(path), control, regions)
        if not strokes:
            return None
        score = sum(stroke["score"] for stroke in strokes) / len(strokes)
        return {"result": strokes, "model_version": self.version, "score": score}

    def strokes(
        self, predictor: Predictor, control: Control, regions: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        """One stroke for each mask that is not empty.

        Args:
            predictor: With the image.
            control: See :meth:`prediction`.
            regions: See :meth:`prediction`.
        """
        size = predictor.original_size
        if LABELS is not None:
            masks, scores, _ = predictor.predict(multimask_output=False)
            labels = {i: control.label(name) for i, name in LABELS.items()}
        else:
            prompt = prompt_of(regions, size)
            if not prompt:
                return []
            masks, scores, _ = predictor.predict(**prompt, multimask_output=False)
            labels = {0: control.label(label_of(regions))}
        return [
            stroke(masks[i], float(scores[min(i, len(scores) - 1)]), control, label)
            for i, label in labels.items()
            if label is not None and masks[i].any()
        ]

    def _encoded(self, path: str) -> Predictor:
        """A predictor that has encoded an image; those of the last images are kept."""
        key = (path, os.stat(path).st_mtime_ns)
        if key not in self._predictors:
            predictor = self.model.predictor(THRESHOLD)
            predictor.set_image(path)
            self._predictors[key] = predictor
        self._predictors.move_to_end(key)
        while len(self._predictors) > IMAGES:
            self._predictors.popitem(last=False)
        return self._predictors[key]


def prompt_of(regions: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> dict[str, Any]:
    """The arguments of ``predict``: all keypoints, and the last rectangle.

    Other regions, as strokes and polygons that are there already, ask for nothing.

    Args:
        regions: The regions as Label Studio sends them.
        size: Height and width of the image.
    """
    h, w = size
    points, labels, box = [], [], None
    for region in regions:
        kind, value = region["type"], region.get("value", {})
        if kind.startswith("rectangle"):
            box = box_around(value, size)
        elif kind.startswith("keypoint"):
            points.append([value["x"] * w / 100, value["y"] * h / 100])
            labels.append(int(bool(region.get("is_positive", True))))
    prompt: dict[str, Any] = {"point_coords": points, "point_labels": labels} if points else {}
    return prompt | ({"box": box} if box else {})


def box_around(value: Mapping[str, Any], size: tuple[int, int]) -> list[float]:
    """The box ``x0, y0, x1, y1`` in pixels of a rectangle, which may be turned about its corner."""
    h, w = size
    x, y = value["x"] * w / 100, value["y"] * h / 100
    sides = np.array([value["width"] * w / 100, value["height"] * h / 100])
    turn = np.deg2rad(value.get("rotation", 0))
    axes = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) * sides @ axes + (x, y)
    least, most = corners.min(0), corners.max(0)
    inside = [*np.clip(least, 0, (w, h)), *np.clip(most, 0, (w, h))]
    return [float(each) for each in inside]


def label_of(regions: Sequence[Mapping[str, Any]]) -> str | None:
    """The label with which the last region was drawn."""
    for region in reversed(regions):
        value = region.get("value", {})
        names = value.get(region["type"]) or value.get("labels")
        if names:
            return str(names[0])
    return None


def stroke(mask: NDArray[np.bool_], score: float, control: Control, label: str) -> dict[str, Any]:
    """A mask ``(h, w)`` as a region of Label Studio."""
    h, w = mask.shape
    return {
        "id": uuid4().hex[:10],
        "from_name": control.from_name,
        "to_name": control.to_name,
        "original_width": w,
        "original_height": h,
        "image_rotation": 0,
        "type": "brushlabels",
        "value": {"format": "rle", "rle": run_lengths(mask), "brushlabels": [label]},
        "score": min(max(score, 0.0), 1.0),
        "readonly": False,
    }


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """A mask ``(h, w)`` in the bytes of Label Studio's code for pictures with four channels.

    The bits are: 32 for the number of values, 5 for the bits of a value less 1, 4 times 4 for the
    sizes of counts less 1; then for each run a 1, 2 for which size its count has, the count less 1
    and the value.
    """
    flat = np.repeat(mask.ravel(), 4)
    ends = np.flatnonzero(np.append(flat[1:] != flat[:-1], True)) + 1
    sizes = (3, 4, 8, 16)
    bits = [f"{len(flat):032b}", f"{7:05b}", *(f"{size - 1:04b}" for size in sizes)]
    start = 0
    for end in ends.tolist():
        value = f"{255 * int(flat[start]):08b}"
        while start < end:
            count = min(end - start, 1 << sizes[-1])
            kind = next(i for i, size in enumerate(sizes) if count <= 1 << size)
            bits.append(f"1{kind:02b}{count - 1:0{sizes[kind]}b}{value}")
            start += count
    packed = np.packbits(np.frombuffer("".join(bits).encode(), np.uint8) - ord("0"))
    return list(packed.tolist())
