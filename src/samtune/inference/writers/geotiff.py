"""GeoTIFF masks that lie on the ground where their images do."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from samtune.data import Record
from samtune.errors import InputError
from samtune.inference.formats import WRITERS, Predicted, Writer
from samtune.inference.georeference import georeference_of


@WRITERS.register("geotiff")
class GeoTiff(Writer):
    """Masks, classes or instances of pixels as numbers, with the source's georeference."""

    about = "QGIS, GDAL: geotiff/NAME.tif in the image's place; large rasters tile by tile"
    needs = ("rasterio",)
    extra = "geo"
    streams = True

    def check(self, records: Sequence[Record]) -> None:
        """Refuses an image without a georeference; one that cannot be read is listed later."""
        for record in records:
            try:
                place = georeference_of(record)
            except InputError:
                continue
            if place is None:
                raise InputError(
                    f"--as geotiff: {record.file} has no georeference; give GeoTIFF files, or use "
                    "--as png"
                )

    def write_one(self, result: Predicted, folder: Path) -> None:
        """Writes the mask of one image, or moves it if it was written tile by tile."""
        import rasterio

        target = folder / f"{result.record.name}.tif"
        target.parent.mkdir(parents=True, exist_ok=True)
        if result.raster is not None:
            try:  # the whole folder may fail yet, and another call then goes on with the mask
                os.link(result.raster, target)
            except OSError:  # not every disk has links
                os.replace(result.raster, target)
            return
        place = georeference_of(result.record)
        if place is None:  # it was checked before
            raise InputError(f"{result.record.file}: has no georeference any more")
        values = result.numbers()
        h, w = values.shape
        with rasterio.open(
            target, "w", driver="GTiff", width=w, height=h, count=1, dtype=values.dtype,
            crs=place.crs, transform=rasterio.Affine(*place.transform), compress="deflate",
        ) as file:  # fmt: skip
            file.write(values, 1)
