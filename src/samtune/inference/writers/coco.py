"""COCO's instance annotations: one JSON file with all images, classes and objects."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from samtune.inference.formats import WRITERS, Predicted, Thing, Trouble, Writer


@WRITERS.register("coco")
class Coco(Writer):
    """Polygons; run lengths of an object with holes, which polygons of COCO cannot have."""

    about = "pycocotools, CVAT, FiftyOne: coco/annotations.json with all images and objects"

    def write(self, results: Iterable[Predicted], folder: Path) -> Iterator[Trouble]:
        """Writes the file part by part, since all objects may be more than memory holds."""
        categories = [{"id": i, "name": n} for i, n in enumerate(self.task.names, 1)]
        images: list[dict[str, Any]] = []
        with (folder / "annotations.json").open("w", encoding="ascii") as file:
            info = {"description": f"predicted by samtune on {self.task.source}"}
            file.write(f'{{"info": {json.dumps(info)}, "categories": {json.dumps(categories)}')
            file.write(', "annotations": [')
            number = 0
            for result in results:
                h, w = result.size
                image = len(images) + 1
                images.append({"id": image, "file_name": result.label, "width": w, "height": h})
                for thing in self.things(result):
                    number += 1
                    row = {"id": number, "image_id": image, **self._annotation(thing)}
                    file.write(f"{',' if number > 1 else ''}\n{json.dumps(row)}")
            file.write(f'\n], "images": {json.dumps(images)}}}\n')
        yield from ()

    def _annotation(self, thing: Thing) -> dict[str, Any]:
        """Area and box are those of the mask, whatever the tolerance."""
        from pycocotools import mask as coco

        rle = coco.encode(thing.mask.astype("uint8", order="F"))
        polygons = self.task.outlines.of(thing.mask)
        outline: Any = [each.shell.ravel().tolist() for each in polygons]
        if any(each.holes for each in polygons):
            size = [int(side) for side in rle["size"]]
            outline = {"size": size, "counts": rle["counts"].decode("ascii")}
        return {
            "category_id": thing.category + 1,
            "segmentation": outline,
            "area": int(coco.area(rle)),
            "bbox": [float(v) for v in coco.toBbox(rle)],
            "iscrowd": 0,
            "score": thing.score,
        }
