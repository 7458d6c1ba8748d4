"""All objects of the images of a folder, written as files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samtune.data import Record, read_image
from samtune.data.pictures import Paths
from samtune.errors import InputError
from samtune.inference.answering import Answering
from samtune.inference.answers import Answer
from samtune.inference.everything.counts import COUNTS, check_counts, counts_table
from samtune.inference.everything.instances import InstanceGenerator, Instances
from samtune.inference.everything.nothing import remedy_if_nothing
from samtune.inference.folder import answer_folder
from samtune.inference.formats import PNG, Predicted
from samtune.inference.naming import label_of
from samtune.inference.outlines import TOLERANCE
from samtune.inference.progress import identity_of
from samtune.report.classes import Classes
from samtune.report.instances import draw_instances

MOST = np.iinfo(np.uint16).max
"""Instances that a PNG can number."""


class Everything(Answering):
    """All objects of each image.

    Args:
        generator: The generator that finds them.
        classes: Names of the classes, if instances have some.
        count: How many classes there are.
        numbers: Whether instances are numbered in a PNG.
    """

    numbers_objects = True

    def __init__(
        self,
        generator: InstanceGenerator,
        classes: Classes | None = None,
        count: int = 0,
        numbers: bool = True,
    ) -> None:
        super().__init__(generator.model.input, classes, count)
        self.generator, self.numbers = generator, numbers

    def identity(self, **others: Any) -> str:
        """A digest of model, generator and settings."""
        how = {"generator": type(self.generator).__name__, **vars(self.generator.config)}
        precision = self.generator.precision
        return identity_of(self.generator.model, everything=how, precision=precision, **others)

    def together(self, records: Sequence[Record]) -> Callable[[Record], Answer]:
        """Images are read and answered one by one."""
        return self._answer

    def draw(self, answer: Answer) -> NDArray[np.uint8]:
        """Outlines in colours, the largest instance first, and how many there are."""
        instances = Instances.of_entries(answer.entries, answer.size)
        order = np.argsort(-instances.areas, kind="stable").tolist()
        parts = ((instances.box(i)[:2], instances.part(i)) for i in order)
        return draw_instances(answer.image, parts)

    def tables(self, results: Callable[[], Iterable[Predicted]]) -> Mapping[str, str]:
        """The number of objects of each image."""
        return {COUNTS: counts_table(results())}

    def _answer(self, record: Record) -> Answer:
        image = read_image(record.image, self.policy)
        instances = self.generator(image)
        entries = instances.entries(label_of(record))
        if self.classes is None:
            entries = [{k: v for k, v in row.items() if k != "category_id"} for row in entries]
        if not self.numbers:
            return Answer(image, None, None, entries, np.zeros((0, 0), np.uint16))
        if len(instances) > MOST:
            raise InputError(
                f"{record.file}: {len(instances)} instances, and a PNG numbers {MOST}; give --as "
                "coco or geojson without png"
            )
        return Answer(image, None, None, entries, instances.label_map().astype(np.uint16))


def everything_folder(
    generator: InstanceGenerator,
    source: Paths,
    out: str | Path,
    *,
    classes: Classes | None = None,
    class_count: int = 0,
    overlays: bool = True,
    progress: Callable[[int, int], None] | None = None,
    sources: Sequence[str | Path | None] = (),
    formats: Sequence[str] = (PNG,),
    tolerance: float = TOLERANCE,
) -> dict[str, Any]:
    """Finds all objects of one image, or of all images of a folder and its subfolders.

    Writes ``NAME.png`` (16 bits: the number of the instance of each pixel, see
    :meth:`Instances.label_map`), ``overlays/NAME.png``, ``predictions.json`` with an entry for each
    instance, and ``counts.csv`` with a row for each image (:mod:`.counts`). All else is that of
    :func:`.folder.predict_folder`.

    Args:
        generator: A generator, as ``samtune.MaskGenerator(model)``.
        source: An image or a folder of images, or several of them.
        out: The output folder; it is created if missing.
        classes: Names of the classes, if instances have some.
        class_count: How many classes there are.
        overlays: Whether to write overlays too.
        progress: Called with the number of images done and in all.
        sources: Other input files, which must not be overwritten.
        formats: The files to write besides ``predictions.json``, see docs/predict.md.
        tolerance: How far a polygon may be from the edges of the pixels, in pixels.

    Returns:
        As :func:`.folder.predict_folder`, and ``instances``, how many there are in all; of none, a
        remark says which thresholds were in force, and what to do.

    Raises:
        InputError: See :func:`.folder.predict_folder`.
    """
    check_counts(out)
    answering = Everything(generator, classes, class_count, PNG in formats)
    result = answer_folder(
        lambda records: answering,
        generator.model.input,
        source,
        out,
        overlays=overlays,
        progress=progress,
        sources=sources,
        formats=formats,
        tolerance=tolerance,
    )
    if not answering.masks and result["images"]:
        result["remarks"] = [*result["remarks"], remedy_if_nothing(generator)]
    return {**result, "instances": answering.masks}
