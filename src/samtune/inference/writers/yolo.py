"""YOLO segmentation: a text file for each image, with an outline per line, and ``data.yaml``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import yaml

from samtune.data.reading import SUFFIXES, read_image
from samtune.files import write_whole
from samtune.inference.formats import WRITERS, Predicted, Thing, Trouble, Writer
from samtune.inference.outlines import as_one_ring


@WRITERS.register("yolo")
class Yolo(Writer):
    """One outline per object: its holes and regions are joined by lines without any width.

    Such a file has one outline for an object, and nothing else can say that it has a hole.
    """

    about = "Ultralytics YOLO: yolo/data.yaml, labels/NAME.txt, and links to the images"

    def write(self, results: Iterable[Predicted], folder: Path) -> Iterator[Trouble]:
        """Writes the labels of all images, links to them, and the names."""
        yield from super().write(results, folder)
        images = sorted(p for p in (folder / "images").rglob("*") if not p.is_dir())
        paths = (path.relative_to(folder).as_posix() for path in images)
        write_whole(folder / "images.txt", "".join(f"./{path}\n" for path in paths))
        tree = {"path": ".", "train": "images.txt", "val": "images.txt"}
        names = dict(enumerate(self.task.names))
        text = yaml.safe_dump({**tree, "names": names}, sort_keys=False, allow_unicode=True)
        write_whole(folder / "data.yaml", text)

    def write_one(self, result: Predicted, folder: Path) -> None:
        """Writes the labels of one image; an empty file if nothing is there."""
        lines = [self._line(thing, result.size) for thing in self.things(result)]
        place = folder / "labels" / f"{result.record.name}.txt"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("".join(f"{line}\n" for line in lines), "ascii")
        self._place_image(result, folder / "images")

    def _line(self, thing: Thing, size: tuple[int, int]) -> str:
        h, w = size
        corners = as_one_ring(self.task.outlines.of(thing.mask))
        numbers = " ".join(f"{x / w:.7g} {y / h:.7g}" for x, y in corners.tolist())
        return f"{thing.category} {numbers}"

    def _place_image(self, result: Predicted, folder: Path) -> None:
        """A link to the image; a copy if the system has no links, or what was read of a volume."""
        from PIL import Image

        source = result.record.image
        picture = isinstance(source, Path) and source.suffix.lower() in SUFFIXES
        ending = source.suffix if isinstance(source, Path) and picture else ".png"
        place = folder / f"{result.record.name}{ending}"
        place.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(source, Path) or not picture:
            Image.fromarray(read_image(source, self.task.policy)).save(place)
            return
        with suppress(OSError, NotImplementedError):
            os.symlink(source.resolve(), place)
            return
        shutil.copyfile(source, place)
