"""Ways to answer the images of a folder: a model that is asked by prompts, and others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samtune.data import Record
from samtune.data.windows import size_of_raster
from samtune.geometry import InputPolicy
from samtune.inference.answers import Answer, Together, reaches_beyond
from samtune.inference.formats import Predicted, Writer
from samtune.inference.naming import requests_by_name
from samtune.inference.predictor import Predictor
from samtune.inference.progress import identity_of
from samtune.inference.rasters import LARGE, WrittenRaster, predict_raster
from samtune.inference.remarks import Counts
from samtune.inference.requests import Request, check_prompts
from samtune.prompts import Prompts
from samtune.report.classes import Classes, draw_classes
from samtune.report.overlays import draw_overlay


class Answering:
    """The answers to the images of a folder, and how they are drawn.

    Args:
        policy: How images are read.
        classes: The names of the classes, if answers have some.
        count: How many classes there are.
    """

    def __init__(self, policy: InputPolicy, classes: Classes | None, count: int) -> None:
        self.policy, self.classes, self.count = policy, classes, count
        self.masks = 0
        """The number of masks of all images, when all are answered."""

    numbers_objects = False
    """Whether each mask has a number of its own in maps of an image, see :class:`Predicted`."""

    def identity(self, **others: Any) -> str:
        """A digest of everything that affects all answers.

        Args:
            **others: Further settings.
        """
        raise NotImplementedError

    def request(self, record: Record) -> Any:
        """The question about one image, for its key in the journal."""
        return None

    def together(self, records: Sequence[Record]) -> Callable[[Record], Answer]:
        """A function that answers each of some images, which may be read together."""
        raise NotImplementedError

    def is_by_object(self, record: Record) -> bool:
        """Whether each mask of an image is one object, whatever its regions."""
        return True

    def draw(self, answer: Answer) -> NDArray[np.uint8]:
        """The picture of an image with its masks."""
        raise NotImplementedError

    def note(self, answer: Answer, counts: Counts) -> None:
        """Counts what is remarkable of an answer."""

    def rasters(self, records: Sequence[Record], writers: Sequence[Writer]) -> frozenset[str]:
        """The names of images that are answered tile by tile, by :meth:`write_raster`."""
        return frozenset()

    def write_raster(
        self, file: Path, target: Path, tiles: Callable[[int, int], None], identity: str
    ) -> WrittenRaster:
        """Writes the mask of a raster tile by tile.

        Args:
            file: The raster.
            target: The TIFF to write.
            tiles: Called with the number of tiles done and in all.
            identity: See :func:`.rasters.predict_raster`.
        """
        raise NotImplementedError

    def tables(self, results: Callable[[], Iterable[Predicted]]) -> Mapping[str, str]:
        """Texts to write beside the list of all masks, by the names of their files.

        Args:
            results: Gives the images with their masks.
        """
        return {}

    def left_without(self, records: Sequence[Record]) -> int:
        """The number of images that the user's prompts do not name."""
        return 0


class ByPrompts(Answering):
    """Answers to the prompts of each image.

    Args:
        predictor: The predictor of the model.
        records: All images.
        prompts: See :func:`.folder.predict_folder`.
        classes: Names for the pictures of a model that answers with classes.

    Raises:
        InputError: Malformed prompts, or prompts of an image that there is not.
    """

    def __init__(
        self,
        predictor: Predictor,
        records: Sequence[Record],
        prompts: Mapping[str, Any],
        classes: Classes | None,
    ) -> None:
        count = predictor.model.acting.decoder.classes
        of_classes = None if count is None else classes or Classes()
        super().__init__(predictor.model.input, of_classes, count or 0)
        self.predictor, self.is_asked = predictor, bool(prompts)
        self.requests = requests_by_name(check_prompts(prompts, "prompts"), records)

    def identity(self, **others: Any) -> str:
        """A digest of model, threshold and precision too."""
        predictor = self.predictor
        values = {"threshold": predictor.threshold, "precision": predictor.precision}
        return identity_of(predictor.model, **values, **others)

    def request(self, record: Record) -> Request | None:
        """The prompts of an image."""
        return self.requests.get(record.name)

    def together(self, records: Sequence[Record]) -> Callable[[Record], Answer]:
        """The images are encoded together."""
        return Together(self.predictor, records, self.requests).answer

    def is_by_object(self, record: Record) -> bool:
        """Only what was asked by a prompt is one object."""
        return self.classes is None and record.name in self.requests

    def draw(self, answer: Answer) -> NDArray[np.uint8]:
        """A map of classes with a legend, or masks and prompts."""
        if self.classes is not None:
            return draw_classes(answer.image, answer.values, self.classes)
        prompts = answer.prompts or Prompts.of(count=0)
        boxes = [box.tolist() for box in prompts.boxes() if not box.isnan().any()]
        points = _points(answer.request or (), answer.size)
        return draw_overlay(answer.image, answer.numbers, boxes, points)

    def note(self, answer: Answer, counts: Counts) -> None:
        """Counts boxes that reach beyond the edge."""
        counts.beyond += reaches_beyond(answer.prompts, answer.size)

    def rasters(self, records: Sequence[Record], writers: Sequence[Writer]) -> frozenset[str]:
        """Large ones that nothing needs as a whole."""
        maps = self.classes is not None
        tiled = self.policy.tiles == "tiled"
        if not tiled or not writers or not all(writer.streams for writer in writers):
            return frozenset()
        large = set[str]()
        for record in records:
            if isinstance(record.image, Path) and (maps or record.name not in self.requests):
                h, w = size_of_raster(record.image) or (0, 0)
                if h * w > LARGE:
                    large.add(record.name)
        return frozenset(large)

    def write_raster(
        self, file: Path, target: Path, tiles: Callable[[int, int], None], identity: str
    ) -> WrittenRaster:
        """The answer without a prompt, see :func:`.rasters.predict_raster`."""
        return predict_raster(self.predictor, file, target, tiles, identity)

    def left_without(self, records: Sequence[Record]) -> int:
        """Counts images that are asked without a prompt though there are prompts."""
        return len(records) - len(self.requests) if self.is_asked else 0


def _points(requests: Request, size: Sequence[int]) -> list[list[float]]:
    """The points of all objects in pixels, each with its label."""
    return [
        [x * (size[1] if each.relative else 1), y * (size[0] if each.relative else 1), label]
        for each in requests
        for (x, y), label in zip(each.points, each.labels, strict=True)
    ]
