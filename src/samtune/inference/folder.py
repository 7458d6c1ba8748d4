"""Masks for a folder of images: PNG files, overlays, and COCO run lengths."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from samtune.data import Record, read_image
from samtune.data.pairing import nfc
from samtune.data.pictures import Paths, pictures_in
from samtune.data.reading import image_size
from samtune.data.stored import Stored
from samtune.errors import InputError
from samtune.files import write_whole
from samtune.inference.places import REMEDY, Places, signed_png
from samtune.inference.predictor import Outside, Predictor, check_places
from samtune.inference.progress import Journal, identity_of, key_of
from samtune.inference.prompted import LOGIT_BYTES
from samtune.inference.requests import EVERY, Request, check_prompts, prompts_of
from samtune.prompts import Prompts
from samtune.report.classes import Classes, draw_classes
from samtune.report.overlays import draw_overlay
from samtune.report.quantities import counted

_IN_A_BYTE = 256
"""Number of classes that fit into eight bits."""


@dataclass
class _Counts:
    """Counts over all images for the remarks."""

    beyond: int = 0
    """Number of images with a box that reaches beyond the edge."""
    earlier: int = 0
    """Number of images that an interrupted earlier call has finished."""
    not_in_prompts: int = 0
    """Number of images that the prompts do not name."""


class _Answer(NamedTuple):
    """A model's answer to the prompts of one image."""

    image: NDArray[np.uint8]
    request: Request | None
    prompts: Prompts | None
    """``None`` if there is nothing to predict."""
    entries: list[dict[str, Any]]
    """One entry per mask, see :func:`predict_folder`."""
    values: NDArray[np.integer]
    """``(h, w)``: 255 where any mask is, or the class if the decoder gives classes."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self.image.shape[0], self.image.shape[1]


def predict_folder(
    predictor: Predictor,
    source: Paths,
    out: str | Path,
    *,
    prompts: Mapping[str, Any] | None = None,
    overlays: bool = True,
    classes: Classes | None = None,
    progress: Callable[[int, int], None] | None = None,
    sources: Sequence[str | Path | None] = (),
) -> dict[str, Any]:
    """Predicts masks for one image, or for all images of a folder and its subfolders.

    Writes ``NAME.png`` (0 and 255: the union over the prompts; for a model of several classes the
    class of each pixel), ``overlays/NAME.png``, and ``predictions.json``: an entry for each prompt
    with COCO's ``segmentation`` (run lengths), ``bbox``, ``area``, and ``score``. Results are
    written image by image; after an interruption the same call continues with the missing images.

    Args:
        predictor: From ``samtune.load(...).predictor()``.
        source: An image or a folder of images, or several of them; what are plainly masks of the
            images in a folder is left out.
        out: The output folder; it is created if missing.
        prompts: By image name, ``{"boxes": [[x0, y0, x1, y1], ...]}`` or ``{"points": [[x, y],
            ...], "labels": [1, ...]}`` in pixels, see docs/prompts.md; the key ``*`` holds for all
            other images. An image without an entry is asked without a prompt.
        overlays: Whether to write overlays too.
        classes: Names for the pictures of a model that answers with classes.
        progress: Called with the number of images done and in all.
        sources: Other input files, which must not be overwritten.

    Returns:
        ``images``, ``failed`` (``file`` and ``reason``), ``out``, ``left_out`` (masks among the
        images), and ``remarks``, one per kind for several images.

    Raises:
        InputError: There are no images, prompts are malformed, or the output cannot be written or
            contains files that no prediction wrote. Unreadable single images are listed in
            ``failed`` instead.
    """
    pictures = pictures_in(source, predictor.model.input)
    records = _checked_names(pictures.records)
    requests = _by_record(check_prompts(prompts or {}, "prompts"), records)
    places = Places.of(out, source, [each.name for each in records], sources, overlays)
    how = identity_of(predictor, overlays=overlays, precision=predictor.precision)
    journal = Journal(places.journal, how, REMEDY)
    keys = {each.name: key_of(each, requests.get(each.name)) for each in records}
    failed = list[tuple[str, InputError]]()
    maps = predictor.model.acting.decoder.classes is not None
    of_classes = (classes or Classes()) if maps else None
    counts = _Counts(not_in_prompts=len(records) - len(requests) if prompts else 0)
    for done, record in enumerate(records, 1):
        if keys[record.name] in journal and places.are_written(record.name):
            counts.earlier += 1
        else:
            try:
                answer = _predict(predictor, record, requests)
            except InputError as error:
                failed.append((str(record.file), error))
            else:
                counts.beyond += _reaches_beyond(answer.prompts, answer.size)
                _write_pictures(places, record.name, answer, of_classes)
                journal.add(keys[record.name], answer.entries)
        (progress or _silent)(done, len(records))
    journal.finish(places.entries, list(keys.values()))
    return _summary(places, len(records), pictures.masks, failed, counts)


def refuse_outside(source: Paths, prompts: Mapping[str, Any]) -> None:
    """Refuses prompts that lie outside the one image that they are for, by its header.

    It needs no model, so that somebody who mistook the size hears of it at once.

    Args:
        source: See :func:`predict_folder`; of several images the prediction tells which failed.
        prompts: See :func:`predict_folder`.

    Raises:
        InputError: There is no image, the prompts are malformed, or the image does not hold them.
    """
    records = pictures_in(source).records
    requests = _by_record(check_prompts(prompts, "prompts"), records)
    if len(records) != 1 or isinstance(records[0].image, Stored):
        return
    try:
        size = image_size(records[0].image)
        check_places(prompts_of(requests.get(records[0].name), size), size)
    except Outside as error:
        raise InputError(_reason(str(records[0].file), error)) from error


def _summary(
    places: Places,
    images: int,
    masks: Sequence[Path],
    failed: Sequence[tuple[str, InputError]],
    counts: _Counts,
) -> dict[str, Any]:
    """The result of :func:`predict_folder`."""
    return {
        "images": images - len(failed),
        "failed": [{"file": file, "reason": _reason(file, error)} for file, error in failed],
        "out": str(places.folder),
        "left_out": [str(mask) for mask in masks],
        "remarks": _remarks(failed, images, counts, masks),
    }


def _silent(done: int, total: int) -> None:
    """Shows no progress."""


def _predict(predictor: Predictor, record: Record, requests: Mapping[str, Request]) -> _Answer:
    image = read_image(record.image, predictor.model.input)
    size, mine = (image.shape[0], image.shape[1]), requests.get(record.name)
    entries, values = list[dict[str, Any]](), np.zeros(size, np.uint8)
    if mine == ():
        return _Answer(image, mine, None, entries, values)
    prompts = prompts_of(mine, size)
    predictor.set_image(image)
    if predictor.model.acting.decoder.classes is not None:  # the same value for every prompt
        masks, scores, _ = predictor.answer(prompts)
        of_classes = masks[0].cpu().numpy()
        rows = enumerate(zip(of_classes, scores[0].tolist(), strict=True))
        entries = [_entry(record, mask, score, size, number) for number, (mask, score) in rows]
        kind = np.uint8 if len(of_classes) <= _IN_A_BYTE else np.uint16
        return _Answer(image, mine, prompts, entries, of_classes.argmax(0).astype(kind))
    at_once = max(1, LOGIT_BYTES // (4 * size[0] * size[1]))
    for part in torch.arange(len(prompts)).split(at_once):
        masks, scores, _ = predictor.answer(prompts.only(part))
        for mask, score in zip(masks[:, 0].cpu().numpy(), scores[:, 0].tolist(), strict=True):
            entries.append(_entry(record, mask, score, size, None))
            values[mask] = 255
    return _Answer(image, mine, prompts, entries, values)


def _reaches_beyond(prompts: Prompts | None, size: Sequence[int]) -> bool:
    """Whether a box has a corner outside an image of ``(h, w)`` pixels."""
    if prompts is None:
        return False
    boxes = prompts.boxes()
    boxes = boxes[~boxes.isnan().any(1)]
    end = torch.tensor([size[1], size[0]] * 2)
    return bool(((boxes < 0) | (boxes > end)).any())


def _reason(file: str, error: InputError) -> str:
    return str(error) if file in str(error) else f"{file}: {error}"


def _remarks(
    failed: Sequence[tuple[str, InputError]], images: int, counts: _Counts, masks: Sequence[Path]
) -> list[str]:
    """One line per failure and remark; a prompt outside of several images gets one line."""
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
    of_all = f"of {counted(images, 'image')}"
    if counts.beyond:
        lines.append(
            f"note: boxes reach beyond the edge of {counts.beyond} {of_all}; they are used as is"
        )
    if counts.earlier:
        verb = "was" if counts.earlier == 1 else "were"
        lines.append(
            f"note: {counts.earlier} {of_all} {verb} done by an earlier call that was stopped; "
            "they stay as it left them"
        )
    if counts.not_in_prompts:
        verb = "is" if counts.not_in_prompts == 1 else "are"
        lines.append(
            f"note: {counts.not_in_prompts} {of_all} {verb} not in the prompts, and answered "
            'without one; give "boxes": [] for an image with nothing in it'
        )
    if masks:
        shown = ", ".join(mask.name for mask in masks[:3]) + (", ..." if len(masks) > 3 else "")
        verb = "is left out as a mask" if len(masks) == 1 else "are left out as masks"
        lines.append(
            f"note: {counted(len(masks), 'file')} {verb} of these images ({shown}); give one as "
            "the source to predict on it"
        )
    return lines


def _write_pictures(places: Places, name: str, answer: _Answer, classes: Classes | None) -> None:
    write_whole(places.mask(name), signed_png(answer.values), REMEDY)
    if places.overlays and classes is not None:
        picture = draw_classes(answer.image, answer.values, classes)
        write_whole(places.overlay(name), signed_png(picture), REMEDY)
    elif places.overlays:
        mine = answer.request or ()
        prompts = answer.prompts or Prompts.of(count=0)
        boxes = [box.tolist() for box in prompts.boxes() if not box.isnan().any()]
        points = _points(mine, answer.size)
        picture = draw_overlay(answer.image, answer.values > 0, boxes, points)
        write_whole(places.overlay(name), signed_png(picture), REMEDY)


def _points(requests: Request, size: Sequence[int]) -> list[list[float]]:
    """The points of all objects in pixels, each with its label."""
    return [
        [x * (size[1] if each.relative else 1), y * (size[0] if each.relative else 1), label]
        for each in requests
        for (x, y), label in zip(each.points, each.labels, strict=True)
    ]


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
        "image": _label(record),
        "segmentation": {"size": list(size), "counts": encoded["counts"].decode("ascii")},
        "bbox": [float(v) for v in coco.toBbox(encoded)],
        "area": int(coco.area(encoded)),
        "score": round(score, 6),
        **({} if category is None else {"category_id": category}),
    }


def _by_record(prompts: Mapping[str, Request], records: Sequence[Record]) -> dict[str, Request]:
    """The prompts by record name, from paths below the source, file names, stems, or ``*``."""
    by_key: dict[str, set[str]] = defaultdict(set)
    for record in records:
        label = _label(record)
        for key in (record.name, label, Path(label).name, Path(record.name).name):
            by_key[nfc(key)].add(record.name)
    requests = {record.name: prompts[EVERY] for record in records} if EVERY in prompts else {}
    keys: dict[str, str] = {}
    for key, entry in prompts.items():
        if key == EVERY:
            continue
        names = by_key.get(nfc(key)) or by_key.get(nfc(Path(key).name), set())
        if not names:
            raise InputError(f"prompts for {key}: no such image in the source; check its name")
        if len(names) > 1:
            raise InputError(
                f"prompts for {key}: {len(names)} images have this name ({min(names)}, ...); "
                "give the folder before it too"
            )
        (name,) = names
        if name in keys:
            raise InputError(f"prompts for {key} and {keys[name]}: are of one image; join them")
        keys[name], requests[name] = key, entry
    return requests


def _label(record: Record) -> str:
    """The name of an image in files: its path below the source, or for a slice its own name."""
    return record.name if record.group else str(Path(record.name).with_name(record.file.name))


def _checked_names(records: Sequence[Record]) -> Sequence[Record]:
    """The records, whose output files must differ."""
    by_name: dict[str, Record] = {}
    for record in records:
        if record.name in by_name:
            raise InputError(
                f"{record.file}: its mask would have the name of that of "
                f"{by_name[record.name].file.name}; rename one of the two"
            )
        by_name[record.name] = record
    return records
