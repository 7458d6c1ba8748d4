"""Exported files beside the model, on real images: the largest difference and the masks' IoU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from samtune.batch import inside
from samtune.data import read_image
from samtune.data.pictures import pictures_in
from samtune.errors import InputError
from samtune.exports.base import Answers, Ask, Job
from samtune.exports.onnx_files import Precision
from samtune.geometry import InputPolicy
from samtune.inference.prompted import PromptedImage
from samtune.prompts import POSITIVE, Prompts

LOGITS = 1e-3
"""The largest difference of mask logits in fp32."""
LEAST_IOU: dict[Precision, float] = {"fp32": 0.999, "fp16": 0.98, "int8": 0.85}
"""The least IoU of a mask with the model's, by precision, each averaged over the checks."""
ALIKE = 0.999
"""The IoU from which on a consumer's masks count as the model's."""
MOST_IMAGES = 4
"""Images that are checked; each is asked with every kind of prompt in three shapes."""
SHAPES = {"whole": (1.0, 1.0), "portrait": (1.0, 0.4), "panorama": (0.3, 1.0)}
"""The fractions of height and width that are cut out of an image, to have other aspects."""


@dataclass(frozen=True)
class Check:
    """One question to one image."""

    image: str
    shape: tuple[int, int]
    """Height and width in pixels."""
    kind: str
    difference: float
    """The largest difference of logits, with the same pixels."""
    iou: float
    """The IoU of the masks, with the same pixels; 1 if both are empty."""
    consumer_iou: float | None
    """The IoU of the masks, with pixels prepared as the consumer does it."""


@dataclass(frozen=True)
class Findings:
    """All checks of an export."""

    checks: tuple[Check, ...]

    @property
    def difference(self) -> float:
        """The largest difference of logits."""
        return max(check.difference for check in self.checks)

    @property
    def iou(self) -> float:
        """The mean IoU of the masks with the same pixels."""
        return float(np.mean([check.iou for check in self.checks]))

    @property
    def consumer_iou(self) -> float:
        """The mean IoU of the masks as the consumer gets them."""
        ious = [c.iou if c.consumer_iou is None else c.consumer_iou for c in self.checks]
        return float(np.mean(ious))

    def tree(self) -> dict[str, object]:
        """The findings as JSON values."""
        return {
            "largest_logit_difference": self.difference,
            "mean_iou": self.iou,
            "mean_iou_as_consumer": self.consumer_iou,
            "checks": [asdict(check) for check in self.checks],
        }

    def refuse_difference(self, job: Job, what: str) -> None:
        """Refuses files that answer otherwise than the model.

        Raises:
            InputError: The difference is above :data:`LOGITS`, or the IoU below
                :data:`LEAST_IOU`.
        """
        least = LEAST_IOU[job.precision]
        if job.precision == "fp32" and not self.difference <= LOGITS:
            raise InputError(
                f"{what}: logits differ by {self.difference:.2g} from the model's, and at most "
                f"{LOGITS:g} is allowed; nothing was kept, keep the checkpoint"
            )
        if not self.iou >= least:
            raise InputError(
                f"{what}: its masks have IoU {self.iou:.3f} with the model's, and "
                f"{job.precision} must reach {least:g}; nothing was kept, choose --precision fp32"
            )


def check_images(folder: str | Path, policy: InputPolicy) -> list[tuple[str, NDArray[np.uint8]]]:
    """Images to check with, by name: up to :data:`MOST_IMAGES` of a folder, each in three shapes.

    Args:
        folder: A folder of images.
        policy: How files are read.

    Raises:
        InputError: There is no image, or one cannot be read.
    """
    records = pictures_in(str(folder), policy).records[:MOST_IMAGES]
    images = []
    for record in records:
        image = read_image(record.image, policy)
        h, w = image.shape[:2]
        for shape, (down, right) in SHAPES.items():
            part = image[: max(1, round(h * down)), : max(1, round(w * right))]
            images.append((f"{record.name} ({shape})", np.ascontiguousarray(part)))
    return images


def compare(
    job: Job, answers: Answers, images: Sequence[tuple[str, NDArray[np.uint8]]]
) -> Findings:
    """Asks the files and the model alike.

    Args:
        job: The job whose model is the truth.
        answers: The files at work.
        images: By name, ``(h, w, 3)`` RGB.
    """
    return Findings(
        tuple(c for name, image in images for c in _of_image(job, answers, name, image))
    )


def _of_image(job: Job, answers: Answers, name: str, image: NDArray[np.uint8]) -> Iterator[Check]:
    model, shape = job.model, (image.shape[0], image.shape[1])
    reference = Reference(job, image)
    for ask in asks(shape, answers.kinds, reference):
        logits = reference.logits(ask)
        same = np.asarray(answers.same_pixels(image, ask), np.float32)
        as_consumer = answers.as_consumer(image, ask)
        exclusive = model.acting.decoder.classes is not None
        yield Check(
            name,
            shape,
            ask.kind,
            float(np.abs(same - logits).max()),
            iou(same, logits, exclusive),
            None
            if as_consumer is None
            else iou(np.asarray(as_consumer, np.float32), logits, exclusive),
        )


class Reference:
    """The model's own answers about one image, taken whole.

    Args:
        job: With the model.
        image: ``(h, w, 3)`` RGB.
    """

    def __init__(self, job: Job, image: NDArray[np.uint8]) -> None:
        self.job, self._image = job, PromptedImage(job.model, image)

    @torch.no_grad()
    def logits(self, ask: Ask) -> NDArray[np.float32]:
        """Logits ``(K, h, w)`` less the threshold, so that 0 cuts them."""
        return self._answer(ask)[0]

    def low_resolution(self, ask: Ask) -> NDArray[np.float32]:
        """Logits ``(1, 4H, 4W)`` that can be the next prompt."""
        return self._answer(ask)[1]

    @torch.no_grad()
    def _answer(self, ask: Ask) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        masks, low = self._image.answer(prompts_of(ask))
        return (masks.logits[0] - self.job.threshold).numpy(), low[0, :1].numpy()


def prompts_of(ask: Ask) -> Prompts:
    """The prompt that a question stands for, in the image's pixels."""
    point = None if ask.point is None else torch.tensor([[ask.point]])
    return Prompts.of(
        boxes=None if ask.box is None else torch.tensor([ask.box]),
        points=point,
        labels=None if point is None else torch.full((1, 1), POSITIVE),
        masks=None if ask.mask is None else torch.as_tensor(ask.mask)[None],
        count=1,
    )


def asks(shape: tuple[int, int], kinds: Sequence[str], reference: Reference) -> Iterator[Ask]:
    """One question of each kind about an image: its middle.

    Args:
        shape: Height and width of the image.
        kinds: The kinds of prompts to yield.
        reference: Gives the mask that is a prompt.
    """
    h, w = shape
    box = (0.2 * w, 0.25 * h, 0.75 * w, 0.8 * h)
    boxed = Ask("box", box=box)
    by_kind = {
        "box": lambda: boxed,
        "point": lambda: Ask("point", point=(0.5 * w, 0.45 * h)),
        "mask": lambda: Ask("mask", box=box, mask=reference.low_resolution(boxed)),
        "none": lambda: Ask("none"),
    }
    yield from (by_kind[kind]() for kind in kinds)


def iou(one: NDArray[np.float32], other: NDArray[np.float32], exclusive: bool) -> float:
    """The IoU of two masks from logits ``(K, h, w)``, or the mean over K; 1 if both are empty."""
    a, b = (inside(torch.as_tensor(each)[None], exclusive)[0].flatten(1) for each in (one, other))
    overlap, union = (a & b).sum(1).double(), (a | b).sum(1).double()
    return float(torch.where(union > 0, overlap / union.clamp(min=1), 1.0).mean())
