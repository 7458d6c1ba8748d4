"""Windows of a large raster, read one by one: the same bytes as of the whole image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samtune.data.intensity import DEVIATIONS, PERCENTILES, default_limits, in_bytes
from samtune.data.quiet import quiet
from samtune.data.tiffs import ORIENTATION
from samtune.errors import InputError
from samtune.geometry import InputPolicy

VALUES_AT_ONCE = 2**24
"""Values that are read at once while the whole raster is measured."""
CACHE = 256
"""MiB of decoded blocks that GDAL keeps."""
_BINS = 2**16
Limits = tuple[float, float]


def size_of_raster(path: Path) -> tuple[int, int] | None:
    """Height and width of a TIFF file whose windows can be read; ``None`` for any other file."""
    import tifffile

    if find_spec("rasterio") is None:
        return None
    try:
        with quiet(), tifffile.TiffFile(path) as file:
            page = file.pages.first
            turned = ORIENTATION in page.tags and not page.is_geotiff
            kind = getattr(page.photometric, "name", "")
            plain = kind in ("MINISBLACK", "RGB", "YCBCR") and int(page.bitspersample) >= 8
            alone = len(file.series[0].pages) == 1
            if turned or not plain or not alone or page.imagedepth > 1:
                return None
            return int(page.imagelength), int(page.imagewidth)
    except Exception:  # a damaged file is told of where it is read
        return None


class Windows:
    """A raster whose windows are read as RGB bytes, scaled by the values of the whole raster.

    Args:
        raster: The file, opened by rasterio.
        policy: The bands, and the conversion of their values to bytes.
        path: The file, for messages.

    Raises:
        InputError: A band does not exist, or the policy does not fit the values.
    """

    def __init__(self, raster: Any, policy: InputPolicy, path: Path) -> None:
        self.raster, self.policy, self.path = raster, policy, path
        self.size = (int(raster.height), int(raster.width))
        count, self._apart = int(raster.count), policy.bands is not None
        if policy.bands is None and count > 4:
            raise InputError(f"{path}: has {count} bands; choose with data.bands=[i,j,k]")
        self.bands = tuple(policy.bands or (range(3) if count > 2 else range(1)))
        if max(self.bands) >= count:
            raise InputError(
                f"{path}: has {count} bands, 0 to {count - 1}, but data.bands={list(self.bands)}"
            )
        self.dtype = np.result_type(*(raster.dtypes[band] for band in self.bands))
        self._limits = self._all_limits()

    def read(self, window: tuple[int, int, int, int]) -> NDArray[np.uint8]:
        """The pixels ``(h, w, 3)`` of a window ``(y0, x0, y1, x1)``."""
        values, blank = self._values(window)
        if self._limits is None:
            rgb = values.astype(np.uint8)
        else:
            bands = enumerate(self._limits)
            parts = [in_bytes(values[..., i].astype(np.float32), *limits) for i, limits in bands]
            rgb = np.stack(parts, axis=2)
        rgb[blank] = 0
        return np.ascontiguousarray(rgb if rgb.shape[2] == 3 else rgb.repeat(3, axis=2))

    def _values(self, window: tuple[int, int, int, int]) -> tuple[NDArray, NDArray[np.bool_]]:
        """The values ``(h, w, bands)`` of a window, and where there are none."""
        y0, x0, y1, x1 = window
        bands = [band + 1 for band in self.bands]
        read = self.raster.read(bands, window=((y0, y1), (x0, x1)), masked=True)
        values = np.moveaxis(np.ma.getdata(read), 0, -1)
        blank = np.moveaxis(np.ma.getmaskarray(read), 0, -1)
        if np.issubdtype(values.dtype, np.inexact):
            blank = blank | ~(np.abs(values) <= np.finfo(np.float32).max)
            values = np.where(blank, 0, values)
        elif not self._apart:
            blank = np.broadcast_to(blank.all(2, keepdims=True), values.shape)
        return values, blank

    def _all_limits(self) -> list[Limits] | None:
        """The values that become 0 and 255, for each band; ``None`` if bytes stay."""
        kind, policy = self.policy.intensity, self.policy
        if kind == "percentile" and self.dtype == np.uint8:
            return None
        if kind in ("window", "fixed"):
            limits = policy.limits or default_limits(policy, np.zeros(1, self.dtype), self.path)
            return [limits] * len(self.bands)
        measure: Callable[[list[int]], Limits] = (
            self._deviations if kind == "zscore" else self._percentiles
        )
        everything = list(range(len(self.bands)))
        if not self._apart:
            return [measure(everything)] * len(self.bands)
        return [measure([i]) for i in everything]

    def _parts(self, bands: list[int]) -> Iterator[NDArray[np.float64]]:
        """All values of some bands, a few rows at a time."""
        h, w = self.size
        rows = max(1, VALUES_AT_ONCE // (w * len(self.bands)))
        for y in range(0, h, rows):
            values, blank = self._values((y, 0, min(y + rows, h), w))
            yield values[..., bands][~blank[..., bands]].astype(np.float64)

    def _deviations(self, bands: list[int]) -> Limits:
        count, total, squares = 0, 0.0, 0.0
        for part in self._parts(bands):
            count, total = count + part.size, total + float(part.sum())
        mean = total / max(count, 1)
        for part in self._parts(bands):
            squares += float(((part - mean) ** 2).sum())
        spread = math.sqrt(squares / max(count, 1))
        return mean - DEVIATIONS * spread, mean + DEVIATIONS * spread

    def _percentiles(self, bands: list[int]) -> Limits:
        """The percentiles as numpy has them: on a straight line between two neighbours in order."""
        ends = [(p.min(), p.max(), p.size) for p in self._parts(bands) if p.size]
        if not ends:
            return 0.0, 0.0
        low, high = float(min(e[0] for e in ends)), float(max(e[1] for e in ends))
        count = sum(int(e[2]) for e in ends)
        places = [percent / 100 * (count - 1) for percent in PERCENTILES]
        ranks = sorted({math.floor(p) for p in places} | {math.ceil(p) for p in places})
        by_rank = {rank: self._at_rank(bands, rank, low, high) for rank in ranks}
        limits = [
            by_rank[math.floor(p)] + (p % 1) * (by_rank[math.ceil(p)] - by_rank[math.floor(p)])
            for p in places
        ]
        return (limits[0], limits[1]) if limits[1] > limits[0] else (low, high)

    def _at_rank(self, bands: list[int], rank: int, low: float, high: float) -> float:
        """The value at a place of their order: a cell of a histogram, and then of that one's."""
        while high > low:
            width = (high - low) / _BINS
            sums = np.cumsum(self._histogram(bands, low, width))
            cell = int(np.searchsorted(sums, rank, side="right"))
            first = int(sums[cell - 1]) if cell else 0
            parts = (part[_cells(part, low, width) == cell] for part in self._parts(bands))
            if sums[cell] - first <= VALUES_AT_ONCE:
                return float(np.sort(np.concatenate(list(parts)))[rank - first])
            ends = [(part.min(), part.max()) for part in parts if part.size]
            low, high = float(min(end[0] for end in ends)), float(max(end[1] for end in ends))
            rank -= first
        return low

    def _histogram(self, bands: list[int], low: float, width: float) -> NDArray[np.int64]:
        """The numbers of values in cells of a width, the first of which begins at ``low``."""
        counts = np.zeros(_BINS, np.int64)
        for part in self._parts(bands):
            cells = _cells(part, low, width)
            counts += np.bincount(cells[cells >= 0], minlength=_BINS)
        return counts


def _cells(values: NDArray[np.float64], low: float, width: float) -> NDArray[np.int64]:
    """The cell of each value; -1 outside of all. The last cell has the greatest value too."""
    cells = np.floor((values - low) / width)
    cells[(cells == _BINS) & (values <= low + _BINS * width)] = _BINS - 1
    return np.where((cells >= 0) & (cells < _BINS), cells, -1).astype(np.int64)


@contextmanager
def opened_windows(path: Path, policy: InputPolicy) -> Iterator[Windows]:
    """A raster for as long as its windows are read, see :class:`Windows`."""
    import warnings

    import rasterio

    with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=CACHE):
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        warnings.simplefilter("ignore", PendingDeprecationWarning)  # rasterio's own, of affine
        try:
            with rasterio.open(path) as raster:
                yield Windows(raster, policy, path)
        except rasterio.errors.RasterioError as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{path}: cannot be read as a raster ({reason})") from error
