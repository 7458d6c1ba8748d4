"""The formats of labelling tools share this: a pair of files, its yaml, and answers as the tool's.

Tools ask with points and boxes about one image, and prepare its pixels in their own way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from samtune.errors import InputError
from samtune.exports.base import Ask, Format, Job, LastImage
from samtune.exports.graphs import check_traceable
from samtune.exports.onnx_files import OPSET, OnnxModel, reduce_precision, write_onnx
from samtune.exports.onnx_inputs import SIDES, notes_of, resized, resized_example
from samtune.exports.parts import PROMPTS, decoder_inputs, points_example
from samtune.exports.tool_graphs import SIZE_CHANNELS
from samtune.exports.tracing import TracedPart
from samtune.geometry import Geometry
from samtune.model.finetuned import FineTuned
from samtune.prompts import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, NOT_A_POINT, POSITIVE

SIDE = 1024
"""The longest side of images in tools that were made for SAM's own frame, in pixels."""
MASK_SIDE = 256
"""The side of the empty mask that those tools send, whatever the model."""


class ToolFormat(Format):
    """A labelling tool that asks an encoder and a decoder with points and boxes."""

    needs = ("onnx", "onnxscript", "onnxruntime")
    extra = "onnx"
    asks = ("point", "box")
    precisions = ("fp32", "int8")

    def check(self, job: Job) -> None:
        """Refuses models without prompts, and what has no traced form.

        Raises:
            InputError: Such a model.
        """
        if not job.is_prompted:
            raise InputError(
                f"--format={self.name}: {self.consumer} asks with points and boxes, and this model "
                "takes no prompts; the formats onnx and cvat have it"
            )
        check_traceable(job.model)


def write_encoder(
    job: Job,
    folder: Path,
    graph: nn.Module,
    inputs: Mapping[str, Tensor],
    dynamic: Mapping[str, Mapping[int, str]],
    outputs: Sequence[str] = ("image_embeddings",),
) -> None:
    """Writes ``NAME.encoder.onnx``, see :func:`samtune.exports.onnx_files.write_onnx`."""
    path = folder / f"{job.name}.encoder.onnx"
    write_onnx(path, TracedPart(graph, inputs, dynamic, outputs), notes_of(job))
    reduce_precision(path, job.precision)


def write_image_encoder(job: Job, folder: Path, graph: nn.Module) -> None:
    """Writes an encoder of ``input_image (h, w, 3)`` RGB in 0..255, of any height and width."""
    example = resized_example(job.model)[:-1, :-2]  # no side is a constant of the model
    write_encoder(job, folder, graph, {"input_image": example}, {"input_image": SIDES})


def write_decoder(job: Job, folder: Path, graph: nn.Module, low: str = "low_res_masks") -> None:
    """Writes ``NAME.decoder.onnx`` with the official names; no mask enters it.

    Args:
        job: The job of the model to export.
        folder: The folder to write to.
        graph: A :class:`samtune.exports.tool_graphs.ToolDecoder`.
        low: The name of the third output.
    """
    no_mask = torch.zeros(2, 1, MASK_SIDE, MASK_SIDE)
    points = points_example(job.model, SIZE_CHANNELS)
    part = TracedPart(
        graph,
        {**decoder_inputs(job.model), **points, "mask_input": no_mask},
        {
            "point_coords": PROMPTS,
            "point_labels": PROMPTS,
            "mask_input": {0: "num_masks", 2: "mask_height", 3: "mask_width"},
        },
        ["masks", "iou_predictions", low],
    )
    write_onnx(folder / f"{job.name}.decoder.onnx", part, notes_of(job))


def write_yaml(job: Job, folder: Path, kind: str, **more: Any) -> Mapping[str, Any]:
    """Writes ``NAME.yaml``, with which AnyLabeling and X-AnyLabeling load a model.

    Args:
        job: The job of the exported model.
        folder: The folder of the two files.
        kind: The tool's name for the way in which it runs them.
        more: Further keys.

    Returns:
        What ``export.json`` says of it.
    """
    import yaml

    model = job.model
    about = {
        "type": kind,
        "name": job.name,
        "provider": "samtune",
        "display_name": f"{job.name} ({model.adapter.name}, {model.sam.spec.name})",
        "encoder_model_path": f"{job.name}.encoder.onnx",
        "decoder_model_path": f"{job.name}.decoder.onnx",
        **more,
    }
    text = yaml.safe_dump(about, sort_keys=False)
    (folder / f"{job.name}.yaml").write_text(text, "utf-8")
    return {"opset": OPSET, "type": kind}


class ToolAnswers:
    """The two files in onnxruntime, asked as a tool asks.

    A subclass says how the tool brings an image into its frame, and how it asks about it if not
    with the official inputs. An image is encoded once for several questions in a row.

    Args:
        job: The job of the exported model.
        folder: The folder of the files.
    """

    kinds: Sequence[str] = ("box", "point")

    def __init__(self, job: Job, folder: Path) -> None:
        self.model, self.options = job.model, job.options
        self.encoder = OnnxModel(folder / f"{job.name}.encoder.onnx")
        self.decoder = OnnxModel(folder / f"{job.name}.decoder.onnx")
        self._encoded = LastImage[Any]()

    def same_pixels(self, image: NDArray[np.uint8], ask: Ask) -> NDArray[np.float32]:
        """Logits ``(K, h, w)``, see :class:`samtune.exports.base.Answers`."""
        content, geometry = resized(self.model, image)
        encoded = self._encoded.get("same", image, lambda: self.encoder(self.in_frame(content)))
        return self.ask_frame(encoded, geometry, ask)

    def as_consumer(self, image: NDArray[np.uint8], ask: Ask) -> NDArray[np.float32]:
        """Logits ``(K, h, w)``, see :class:`samtune.exports.base.Answers`."""
        encoded = self._encoded.get("tool", image, lambda: self.encoder(self.prepare(image)))
        return self.ask_tool(encoded, (image.shape[0], image.shape[1]), ask)

    def in_frame(self, content: NDArray[np.float32]) -> NDArray[Any]:
        """The encoder's input from pixels ``(h, w, 3)`` that samtune resized for the model."""
        raise NotImplementedError

    def ask_frame(
        self, encoded: tuple[Any, ...], geometry: Geometry, ask: Ask
    ) -> NDArray[np.float32]:
        """Asks with points in the resized image: logits ``(K, h, w)`` of the image's size.

        Args:
            encoded: The encoder's outputs.
            geometry: The place of the image in the tool's frame.
            ask: The question.
        """
        xy, labels = points_of(ask, scale_to(geometry), padded=True)
        return self.decode(encoded, (xy, labels), geometry.original)

    def fitted(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width to which the tool resizes an image of that ``size``."""
        raise NotImplementedError

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[Any]:
        """The encoder's input from an image ``(h, w, 3)`` that the tool resized."""
        raise NotImplementedError

    def ask_tool(
        self, encoded: tuple[Any, ...], size: tuple[int, int], ask: Ask
    ) -> NDArray[np.float32]:
        """Asks as the tool does: logits ``(K, h, w)`` of the image's ``size``."""
        to = self.fitted(size)
        return self.ask_frame(encoded, Geometry(size, to, to), ask)

    def decode(
        self, encoded: tuple[Any, ...], points: tuple[NDArray[Any], NDArray[Any]], size: Any
    ) -> NDArray[np.float32]:
        """The masks ``(K, h, w)`` of a decoder with the official inputs, asked without a mask."""
        no_mask = np.zeros((1, 1, MASK_SIDE, MASK_SIDE), np.float32)
        outputs = self.decoder(encoded[0], *points, no_mask, np.zeros(1), np.array(size))
        return outputs[0][0]


def points_of(ask: Ask, scale: tuple[float, float], padded: bool) -> tuple[NDArray[Any], ...]:
    """A question as ``(1, n, 2)`` xy in the tool's frame and ``(1, n)`` labels.

    Args:
        ask: The question.
        scale: The factors ``(x, y)`` from the image to the tool's frame.
        padded: Whether the tool appends a padding point, whatever the question.
    """
    xy, labels = [], []
    if ask.point is not None:
        xy, labels = [ask.point], [POSITIVE]
    if ask.box is not None:
        xy, labels = [*xy, ask.box[:2], ask.box[2:]], [*labels, BOX_TOP_LEFT, BOX_BOTTOM_RIGHT]
    coords = np.array(xy, np.float64) * scale
    if padded:
        coords, labels = np.concatenate([coords, np.zeros((1, 2))]), [*labels, NOT_A_POINT]
    return coords[None].astype(np.float32), np.array([labels], np.float32)


def scale_to(geometry: Geometry) -> tuple[float, float]:
    """The factors ``(x, y)`` from an image to the content of the model's frame."""
    (h0, w0), (h, w) = geometry.original, geometry.resized
    return w / w0, h / h0


def longest(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Height and width with the longest side at a length, each rounded half up."""
    scale = side / max(size)
    return int(size[0] * scale + 0.5), int(size[1] * scale + 0.5)


def enlarged(logits: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Logits ``(K, h, w)`` of another size, by plain bilinear interpolation."""
    if logits.shape[1:] == size:
        return logits
    values = torch.from_numpy(np.ascontiguousarray(logits))[None]
    return F.interpolate(values, size, mode="bilinear", align_corners=False)[0].numpy()


def normalised(model: FineTuned, pixels: NDArray[Any], frame: tuple[int, int]) -> NDArray[Any]:
    """Pixels ``(h, w, 3)`` as tools of SAM normalise them, ``(1, 3, H, W)``, zero in the padding.

    Args:
        model: With SAM's constants.
        pixels: RGB in 0..255.
        frame: Height and width.
    """
    spec, (h, w) = model.sam.spec, pixels.shape[:2]
    mean, std = (np.array(value, np.float32) for value in (spec.pixel_mean, spec.pixel_std))
    values = (pixels.astype(np.float32) - mean) / std
    return np.pad(values, ((0, frame[0] - h), (0, frame[1] - w), (0, 0))).transpose(2, 0, 1)[None]
