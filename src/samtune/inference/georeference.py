"""The georeference of GeoTIFF files: places of pixels on the ground."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samtune.data import Record
from samtune.data.quiet import quiet
from samtune.data.reading import TIFF
from samtune.errors import InputError, is_installed


@dataclass(frozen=True)
class Georeference:
    """A coordinate reference system, and the way from pixels to it."""

    crs: Any
    """The system, as rasterio has it."""
    transform: tuple[float, ...]
    """``a, b, c, d, e, f``: pixel x and y become ``ax + by + c`` and ``dx + ey + f``."""

    def on_ground(self, corners: NDArray) -> NDArray[np.float64]:
        """Corners ``(n, 2)`` xy in pixels as coordinates ``(n, 2)`` of the system."""
        a, b, c, d, e, f = self.transform
        x, y = corners[:, 0].astype(np.float64), corners[:, 1].astype(np.float64)
        return np.stack([a * x + b * y + c, d * x + e * y + f], 1)

    @property
    def authority(self) -> tuple[str, str] | None:
        """The list in which the system stands, as EPSG, and its code there; or ``None``."""
        known = self.crs.to_authority()
        return None if known is None else (str(known[0]), str(known[1]))

    @property
    def wkt(self) -> str:
        """The system in words."""
        return str(self.crs.to_wkt())


def georeference_of(record: Record) -> Georeference | None:
    """The georeference of an image; ``None`` if it has none, or is no TIFF file.

    Raises:
        InputError: It has one, and rasterio is not installed; or it cannot be read.
    """
    source = record.image
    if not isinstance(source, Path) or source.suffix.lower() not in TIFF:
        return None
    if not is_installed("rasterio"):
        if _is_geotiff(source):
            raise InputError(
                f"{source}: reading where it lies needs rasterio; pip install 'samtune[geo]'"
            )
        return None
    with opened_raster(source) as raster:
        if raster.crs is None or raster.transform.is_identity:
            return None
        return Georeference(raster.crs, tuple(raster.transform)[:6])


@contextmanager
def opened_raster(path: Path) -> Iterator[Any]:
    """A raster, opened by rasterio, which is silent about files without a georeference.

    Raises:
        InputError: It cannot be opened.
    """
    import rasterio

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        warnings.simplefilter("ignore", PendingDeprecationWarning)  # rasterio's own, of affine
        try:
            raster = rasterio.open(path)
        except rasterio.errors.RasterioError as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{path}: cannot be read as a raster ({reason})") from error
        with raster:
            yield raster


def _is_geotiff(path: Path) -> bool:
    import tifffile

    try:
        with quiet(), tifffile.TiffFile(path) as file:
            return bool(file.pages.first.is_geotiff)
    except Exception:  # a damaged file is told of where it is read
        return False
