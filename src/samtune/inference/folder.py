"""Masks for a folder of images: PNG files, overlays, and COCO run lengths."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from samtune.data import Record, find_images, read_image
from samtune.errors import InputError
from samtune.files import write_whole
from samtune.inference.predictor import Outside, Predictor
from samtune.prompts import Prompts
from samtune.report.overlays import draw_overlay

KINDS = ("boxes", "points", "labels")
REMEDY = "free some space or choose another --out"


class _Answer(NamedTuple):
    """A model's answer to the prompts of one image."""

    image: NDArray[np.uint8]
    prompts: Prompts
    masks: NDArray[np.bool_]
    """``(n, h, w)``: one mask per prompt, or per class if the decoder gives classes."""
    scores: list[float]
    of_classes: bool

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self.image.shape[0], self.image.shape[1]


def predict_folder(
    predictor: Predictor,
    source: str,
    out: str | Path,
    *,
    prompts: Mapping[str, Any] | None = None,
    overlays: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Predicts masks for one image or all images of a folder.

    Writes ``NAME.png`` (0 and 255: the union over the prompts; of a model of several classes the
    class of each pixel), ``overlays/NAME.png``, and ``predictions.json``: a list with one entry per
    prompt, COCO's ``segmentation`` (compressed run lengths), ``bbox``, ``area``, and ``score``.

    Args:
        predictor: From ``samtune.load(...).predictor()``.
        source: An image or a folder of images.
        out: Where to write; made when missing.
        prompts: By image name or stem, ``{"boxes": [[x0, y0, x1, y1], ...]}`` or ``{"points":
            [[x, y], ...], "labels": [1, ...]}`` in the image's pixels; the key ``*`` holds for all
            other images. Without an entry an image is answered prompt-free.
        overlays: Whether to write pictures too.
        progress: Called with images done and images in all.

    Returns:
        ``images``, ``failed`` (a list of ``file`` and ``reason``), ``out``, and ``remarks``: lines
        for the reader, with what holds for several images said once.

    Raises:
        InputError: No images, malformed prompts, or an output that cannot be written. Single images
            that cannot be read are listed instead.
    """
    records = find_images(source, predictor.model.input)
    _check_names(records)
    prompts = _by_record(prompts or {}, records)
    folder = Path(out).expanduser()
    entries: list[dict[str, Any]] = []
    failed: list[tuple[str, InputError]] = []
    beyond = 0
    for done, record in enumerate(records, 1):
        entry = prompts.get(record.name)
        try:
            answer = _predict(predictor, record, entry)
        except InputError as error:
            failed.append((str(record.file), error))
        else:
            beyond += _reaches_beyond(answer.prompts, answer.size)
            entries += _entries(record, answer)
            _write_pictures(folder / f"{record.name}.png", answer, entry, overlays)
        if progress is not None:
            progress(done, len(records))
    if len(failed) < len(records):
        write_whole(folder / "predictions.json", json.dumps(entries) + "\n", REMEDY)
    return {
        "images": len(records) - len(failed),
        "failed": [{"file": file, "reason": _reason(file, error)} for file, error in failed],
        "out": str(folder),
        "remarks": _remarks(failed, len(records), beyond),
    }


def _entries(record: Record, answer: _Answer) -> list[dict[str, Any]]:
    count = len(answer.masks)
    classes = range(count) if answer.of_classes else [None] * count
    told = zip(answer.masks, answer.scores, classes, strict=True)
    return [_entry(record, mask, score, answer.size, category) for mask, score, category in told]


def read_prompts(path: str | Path) -> dict[str, Any]:
    """A prompt file: JSON, image name to boxes, points and labels.

    Raises:
        InputError: No such file, or not of this form.
    """
    try:
        loaded = json.loads(Path(path).expanduser().read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: not a readable JSON file; prompts look like "
            '{"image.png": {"boxes": [[x0, y0, x1, y1]]}}'
        ) from error
    return check_prompts(loaded, str(path))


def check_prompts(prompts: Any, origin: str) -> dict[str, Any]:
    """Refuses malformed prompts, naming the entry.

    Raises:
        InputError: Not a mapping of images to boxes, points and labels.
    """
    if not isinstance(prompts, Mapping):
        raise InputError(f"{origin}: must map image names to boxes or points")
    for name, entry in prompts.items():
        if not isinstance(entry, Mapping) or not entry or set(entry) - set(KINDS):
            raise InputError(f"{origin}: {name}: must hold boxes, or points and labels")
        _prompts(entry, f"{origin}: {name}")
    return dict(prompts)


def _predict(predictor: Predictor, record: Record, entry: Any) -> _Answer:
    image = read_image(record.image, predictor.model.input)
    prompts = _prompts(entry, record.name) if entry else Prompts.of(count=1)
    predictor.set_image(image)
    masks, scores, _ = predictor.predict_torch(prompts)
    if predictor.model.acting.decoder.classes is not None:  # the same for every prompt
        return _Answer(image, prompts, masks[0].cpu().numpy(), scores[0].tolist(), True)
    return _Answer(image, prompts, masks[:, 0].cpu().numpy(), scores[:, 0].tolist(), False)


def _reaches_beyond(prompts: Prompts, size: Sequence[int]) -> bool:
    """Whether a box has a corner outside an image of ``(h, w)`` pixels."""
    boxes = prompts.boxes()
    boxes = boxes[~boxes.isnan().any(1)]
    end = torch.tensor([size[1], size[0]] * 2)
    return bool(((boxes < 0) | (boxes > end)).any())


def _reason(file: str, error: InputError) -> str:
    return str(error) if file in str(error) else f"{file}: {error}"


def _remarks(failed: Sequence[tuple[str, InputError]], images: int, beyond: int) -> list[str]:
    """One line for each failure and remark; a prompt outside of several images has one line."""
    alike: dict[str, list[tuple[str, InputError]]] = {}
    for file, error in failed:
        key = error.prompt if isinstance(error, Outside) else file
        alike.setdefault(key, []).append((file, error))
    lines = [
        _reason(*group[0])
        if len(group) == 1
        else f"{prompt}: lies outside {len(group)} of {images} images, {group[0][0]} the first; "
        "give pixels of these images, or --prompts with a box for each"
        for prompt, group in alike.items()
    ]
    if beyond:
        lines.append(
            f"note: boxes reach beyond the edge of {beyond} of {images} images; used as is"
        )
    return lines


def _write_pictures(path: Path, answer: _Answer, entry: Any, overlay: bool) -> None:
    image, masks = answer.image, answer.masks
    values = masks.argmax(0) if answer.of_classes else 255 * np.any(masks, axis=0)
    write_whole(path, _png(values.astype(np.uint8)), REMEDY)
    if overlay:
        boxes = [box.tolist() for box in answer.prompts.boxes() if not box.isnan().any()]
        picture = draw_overlay(image, values > 0, boxes, _points(entry))
        write_whole(path.parent / "overlays" / path.name, _png(picture), REMEDY)


def _entry(
    record: Record,
    mask: NDArray[np.bool_],
    score: float,
    size: Sequence[int],
    category: int | None,
) -> dict[str, Any]:
    from pycocotools import mask as coco

    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {
        "image": record.label,
        "segmentation": {"size": list(size), "counts": encoded["counts"].decode("ascii")},
        "bbox": [float(v) for v in coco.toBbox(encoded)],
        "area": int(coco.area(encoded)),
        "score": round(score, 6),
        **({} if category is None else {"category_id": category}),
    }


def _prompts(entry: Mapping[str, Any], origin: str) -> Prompts:
    """One prompt for each box, and one of all points."""
    parts = []
    try:
        if entry.get("boxes"):
            parts.append(Prompts.of(boxes=torch.tensor(entry["boxes"]).float().reshape(-1, 4)))
        if entry.get("points"):
            points = torch.tensor(entry["points"]).float().reshape(1, -1, 2)
            labels = entry.get("labels") or [1] * points.shape[1]
            parts.append(Prompts.of(points=points, labels=torch.tensor([labels]).reshape(1, -1)))
            if parts[-1].labels.shape[1] != points.shape[1] + 1:
                raise ValueError("as many labels as points")
            if not set(labels) <= {0, 1}:
                raise InputError(f"{origin}: labels {labels}: each must be 0 or 1, 1 inside")
    except InputError:
        raise
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(
            f"{origin}: must be boxes [x0, y0, x1, y1], or points [x, y] with as many labels"
        ) from error
    if not parts:
        raise InputError(f"{origin}: must hold boxes, or points and labels")
    return Prompts.cat(parts)


def _points(entry: Mapping[str, Any] | None) -> list[list[float]]:
    points = (entry or {}).get("points") or []
    labels = (entry or {}).get("labels") or [1] * len(points)
    return [[*point, label] for point, label in zip(points, labels, strict=True)]


def _by_record(prompts: Mapping[str, Any], records: Sequence[Record]) -> dict[str, Any]:
    """The prompts by record name, from file names, stems, or ``*``."""
    by_key = {key: r.name for r in records for key in (r.name, r.label)}
    unknown = [key for key in prompts if key not in by_key and key != "*"]
    if unknown:
        raise InputError(f"prompts for {unknown[0]}: no such image in the source; check its name")
    everywhere = {r.name: prompts["*"] for r in records} if "*" in prompts else {}
    return everywhere | {by_key[key]: entry for key, entry in prompts.items() if key != "*"}


def _check_names(records: Sequence[Record]) -> None:
    by_name: dict[str, Record] = {}
    for record in records:
        if record.name in by_name:
            raise InputError(
                f"{record.file}: its mask would have the name of that of "
                f"{by_name[record.name].file.name}; rename one of the two"
            )
        by_name[record.name] = record


def _png(picture: NDArray[np.uint8]) -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()
