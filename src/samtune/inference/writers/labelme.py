"""LabelMe's JSON files, one for each image."""

from __future__ import annotations

import base64
import io
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samtune.data.quiet import opened_picture
from samtune.data.reading import SUFFIXES, TIFF, read_image
from samtune.files import write_whole
from samtune.inference.formats import WRITERS, Predicted, Thing, Writer

_DEEP = ("I;16", "I;16B", "I", "F")
VERSION = "5.5.0"
"""The version of LabelMe's files: this one knows shapes that are masks, and later ones read it."""


@WRITERS.register("labelme")
class LabelMe(Writer):
    """Polygons; a mask for an object with holes, which polygons of LabelMe cannot have.

    The regions of one object have one ``group_id``.
    """

    about = "LabelMe: labelme/NAME.json, which names the image where it lies"

    def write_one(self, result: Predicted, folder: Path) -> None:
        """Writes the file of one image."""
        place = folder / f"{result.record.name}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        shapes = list[dict[str, Any]]()
        for number, thing in enumerate(self.things(result), 1):
            shapes += self._shapes(thing, number)
        h, w = result.size
        image = self._image(result, place, folder)
        tree = {"version": VERSION, "flags": {}, "shapes": shapes, **image}
        text = json.dumps({**tree, "imageHeight": h, "imageWidth": w}, indent=1)
        write_whole(place, f"{text}\n", lasting=False)

    def _shapes(self, thing: Thing, number: int) -> list[dict[str, Any]]:
        label = self.task.names[thing.category]
        common = {"label": label, "description": f"score {thing.score:.3f}", "flags": {}}
        polygons = self.task.outlines.of(thing.mask)
        if any(each.holes for each in polygons):
            return [{**common, "group_id": None, "shape_type": "mask", **_mask_shape(thing.mask)}]
        group = number if len(polygons) > 1 else None
        rows = [each.shell.astype(float).tolist() for each in polygons]
        shape = {**common, "group_id": group, "shape_type": "polygon", "mask": None}
        return [{**shape, "points": points} for points in rows]

    def _image(self, result: Predicted, place: Path, folder: Path) -> dict[str, Any]:
        """The path of the image from its JSON file, and its pixels if LabelMe cannot open it."""
        source, path = result.record.image, f"{place.stem}.png"
        if isinstance(source, Path) and source.suffix.lower() in SUFFIXES:
            final = place.parent.resolve().relative_to(folder.resolve())
            start = folder.resolve().parent / self.name / final  # where it will lie
            path = Path(os.path.relpath(source.resolve(), start)).as_posix()
            if _is_opened(source):
                return {"imagePath": path, "imageData": None}
        content = base64.b64encode(_png(read_image(source, self.task.policy))).decode("ascii")
        return {"imagePath": path, "imageData": content}


def _is_opened(path: Path) -> bool:
    """Whether LabelMe opens a picture itself: not in CMYK, a deep PNG, or a palette but in PNG."""
    with suppress(OSError), opened_picture(path) as opened:
        if opened.mode in ("1", "L", "LA", "RGB", "RGBA"):
            return True
        ending = path.suffix.lower()
        return ending == ".png" if opened.mode == "P" else opened.mode in _DEEP and ending in TIFF
    return False


def _mask_shape(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """The corners of a mask, both within it, and its part of the image as PNG."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    (y0, y1), (x0, x1) = ((int(each[0]), int(each[-1])) for each in (ys, xs))
    picture = _png(mask[y0 : y1 + 1, x0 : x1 + 1].astype(np.uint8) * 255)
    corners = [[float(x0), float(y0)], [float(x1), float(y1)]]
    return {"points": corners, "mask": base64.b64encode(picture).decode("ascii")}


def _png(picture: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()
