"""The prompts of images, answered: masks as run lengths, and as one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from samtune.data import Record, read_image
from samtune.errors import InputError
from samtune.inference.naming import label_of
from samtune.inference.predictor import Predictor
from samtune.inference.prompted import LOGIT_BYTES, PromptedImage
from samtune.inference.requests import Request, prompts_of
from samtune.prompts import Prompts

_IN_A_BYTE = 256
"""Number of classes that fit into eight bits."""


class Answer(NamedTuple):
    """A model's answer to the prompts of one image."""

    image: NDArray[np.uint8]
    request: Request | None
    prompts: Prompts | None
    """``None`` if there is nothing to predict."""
    entries: list[dict[str, Any]]
    """One entry per mask, as in ``predictions.json``."""
    values: NDArray[np.integer]
    """``(h, w)``: 255 where any mask is, or the class if the decoder gives classes."""
    numbers: NDArray[np.integer] | None = None
    """``(h, w)``: the number of the prompt of each pixel's mask, from 1, and 0 for none; of several
    masks the last. ``None`` if the decoder gives classes."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self.image.shape[0], self.image.shape[1]


class Together:
    """Images that are read and encoded together, and then answer one after another.

    Those that are cut into tiles or crops are encoded where they are asked, each alone.

    Args:
        predictor: The predictor that answers.
        records: The images. What is wrong with one is told where it is asked for.
        requests: The prompts by name; an image without an entry is asked without a prompt.
    """

    def __init__(
        self, predictor: Predictor, records: Sequence[Record], requests: Mapping[str, Request]
    ) -> None:
        self.predictor, self.requests = predictor, requests
        self._errors: dict[str, InputError] = {}
        self._images: dict[str, NDArray[np.uint8]] = {}
        self._encoded: dict[str, PromptedImage] = {}
        for record in records:
            try:
                self._images[record.name] = read_image(record.image, predictor.model.input)
            except InputError as error:
                self._errors[record.name] = error
        asked = {n: image for n, image in self._images.items() if requests.get(n) != ()}
        encoded = predictor.encode_together(list(asked.values()))
        self._encoded = dict(zip(asked, encoded, strict=True))

    def answer(self, record: Record) -> Answer:
        """The answer of one of the images, which is given up then.

        Raises:
            InputError: It could not be read, or a prompt lies outside of it.
        """
        if record.name in self._errors:
            raise self._errors[record.name]
        image, request = self._images.pop(record.name), self.requests.get(record.name)
        if request != ():
            self.predictor.take(self._encoded.pop(record.name))
        return _answered(self.predictor, record, image, request)


def _answered(
    predictor: Predictor, record: Record, image: NDArray[np.uint8], request: Request | None
) -> Answer:
    size = (image.shape[0], image.shape[1])
    entries, values = list[dict[str, Any]](), np.zeros(size, np.uint8)
    if request == ():
        return Answer(image, request, None, entries, values, values)
    prompts = prompts_of(request, size)
    if predictor.model.acting.decoder.classes is not None:  # the same for every prompt
        masks, scores, _ = predictor.answer(prompts)
        of_classes = masks[0].cpu().numpy()
        rows = enumerate(zip(of_classes, scores[0].tolist(), strict=True))
        entries = [entry_of(record, mask, score, size, number) for number, (mask, score) in rows]
        kind = np.uint8 if len(of_classes) <= _IN_A_BYTE else np.uint16
        return Answer(image, request, prompts, entries, of_classes.argmax(0).astype(kind))
    numbers = np.zeros(size, np.int32)
    at_once = max(1, LOGIT_BYTES // (4 * size[0] * size[1]))
    for part in torch.arange(len(prompts)).split(at_once):
        masks, scores, _ = predictor.answer(prompts.only(part))
        for mask, score in zip(masks[:, 0].cpu().numpy(), scores[:, 0].tolist(), strict=True):
            entries.append(entry_of(record, mask, score, size, None))
            values[mask], numbers[mask] = 255, len(entries)
    return Answer(image, request, prompts, entries, values, numbers)


def reaches_beyond(prompts: Prompts | None, size: Sequence[int]) -> bool:
    """Whether a box has a corner outside an image of ``(h, w)`` pixels."""
    if prompts is None:
        return False
    boxes = prompts.boxes()
    boxes = boxes[~boxes.isnan().any(1)]
    end = torch.tensor([size[1], size[0]] * 2)
    return bool(((boxes < 0) | (boxes > end)).any())


def entry_of(
    record: Record,
    mask: NDArray[np.bool_],
    score: float,
    size: Sequence[int],
    category: int | None,
) -> dict[str, Any]:
    """A mask as ``predictions.json`` has it.

    Args:
        record: The image.
        mask: ``(h, w)``.
        score: The IoU that the model expects.
        size: Height and width.
        category: The class, if the model has some.
    """
    from pycocotools import mask as coco

    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {
        "image": label_of(record),
        "segmentation": {"size": list(size), "counts": encoded["counts"].decode("ascii")},
        "bbox": [float(v) for v in coco.toBbox(encoded)],
        "area": int(coco.area(encoded)),
        "score": round(score, 6),
        **({} if category is None else {"category_id": category}),
    }
