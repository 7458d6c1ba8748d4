"""GeoJSON: a file of polygons for each image, on the ground or in pixels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from samtune.errors import InputError
from samtune.files import write_whole
from samtune.inference.formats import WRITERS, Predicted, Writer
from samtune.inference.georeference import Georeference, georeference_of
from samtune.inference.outlines import Polygon
from samtune.inference.shapes import rings_of


@WRITERS.register("geojson")
class GeoJson(Writer):
    """Polygons with holes, in the coordinates of the source; in pixels if it has no georeference.

    The file says which: ``crs`` names the system, as GDAL and QGIS read it, and ``coordinates`` is
    ``pixels`` or the system's name.
    """

    about = "QGIS, QuPath: geojson/NAME.geojson, in the image's coordinates or its pixels"

    def write_one(self, result: Predicted, folder: Path) -> None:
        """Writes the file of one image."""
        place = georeference_of(result.record)
        features = []
        for thing in self.things(result):
            polygons = self.task.outlines.of(thing.mask)
            about = {"class": self.task.names[thing.category], "score": thing.score}
            features.append({
                "type": "Feature",
                "properties": {**about, "image": result.label},
                "geometry": geometry_of(polygons, place),
            })  # fmt: skip
        lines = ",\n".join(json.dumps(feature) for feature in features)
        head = json.dumps({"type": "FeatureCollection", **_system(place, result)})
        file = folder / f"{result.record.name}.geojson"
        write_whole(file, f'{head[:-1]}, "features": [\n{lines}\n]}}\n')


def _system(place: Georeference | None, result: Predicted) -> dict[str, Any]:
    if place is None:
        return {"coordinates": "pixels"}
    if place.authority is None:
        raise InputError(
            f"{result.record.file}: its coordinate system has no EPSG code, by which GeoJSON names "
            "it; use --as geopackage"
        )
    name, code = place.authority
    urn = f"urn:ogc:def:crs:{name}::{code}"
    return {
        "coordinates": f"{name}:{code}",
        "crs": {"type": "name", "properties": {"name": urn}},
    }


def geometry_of(polygons: Sequence[Polygon], place: Georeference | None) -> dict[str, Any]:
    """The regions of one object as GeoJSON has them."""
    parts = [[ring.tolist() for ring in rings_of(each, place)] for each in polygons]
    if len(parts) == 1:
        return {"type": "Polygon", "coordinates": parts[0]}
    return {"type": "MultiPolygon", "coordinates": parts}
