"""Rasters larger than memory: read, answered and written tile by tile.

A row of tiles is blended with the next one in a band of rows, and what no further tile reaches is
kept on disk as a strip. Memory holds that band, whatever the raster's size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samtune.batch import inside
from samtune.data.windows import Windows, opened_windows
from samtune.files import replacing
from samtune.inference.frames import EncodedFrames
from samtune.inference.places import REMEDY, STRIPS
from samtune.inference.predictor import Predictor
from samtune.inference.prompted import AT_ONCE
from samtune.inference.strips import Strips
from samtune.inference.views import OUTSIDE
from samtune.ops.tiling import Window, extent, starts, weights
from samtune.precision import autocast
from samtune.prompts import Prompts

LARGE = 2**26
"""Number of pixels above which a raster is answered tile by tile."""
BAND_BYTES = 2**28
"""Bytes of the logits of a band, about; a wider raster is answered in several columns."""
BLOCK = 512
"""Side of the blocks of a written file."""


class WrittenRaster(NamedTuple):
    """The size and the tiles of a raster whose mask was written."""

    size: tuple[int, int]
    """Height and width."""
    tiles: int
    """Number of tiles."""
    tiles_before: int
    """Number of tiles that an earlier call answered, which was stopped."""


def predict_raster(
    predictor: Predictor,
    source: Path,
    target: Path,
    progress: Callable[[int, int], None],
    identity: str = "",
) -> WrittenRaster:
    """Writes the mask of a raster as a GeoTIFF with the raster's georeference.

    It is the mask that the raster as a whole would have, asked without a prompt: 1 inside, or the
    class of each pixel. After an interruption a call with the same identity goes on after the last
    row of tiles that was done, and gives the same mask.

    Args:
        predictor: The predictor, of a model that cuts images into tiles.
        source: A file whose windows can be read, see :func:`.windows.size_of_raster`.
        target: The file to write.
        progress: Called with the number of tiles done and in all.
        identity: A digest of the source, the model and all settings; an empty one begins anew.

    Raises:
        InputError: It cannot be read; an ``OutputError`` if the mask cannot be written.
    """
    with opened_windows(source, predictor.model.input) as raster:
        tiling = _Tiling.of(predictor, raster)
        beside = target.with_name(f"{target.name}{STRIPS}")
        strips = Strips(beside, tiling.identity(identity), _kind(tiling.classes), REMEDY)
        counts = [len(part.columns) for part in tiling.parts for _ in tiling.rows]
        done = before = sum(counts[: len(strips.windows)])
        total, rows_left = sum(counts), len(strips.windows)
        for part in tiling.parts:
            first, rows_left = rows_left, max(0, rows_left - len(tiling.rows))
            for window, values in _bands(predictor, raster, tiling, part, first):
                strips.add(window, values)
                done += len(part.columns)
                progress(done, total)
        with replacing(target, REMEDY) as partial:
            _write(partial, raster, tiling, strips)
        strips.remove()
        return WrittenRaster(raster.size, total, before)


@dataclass(frozen=True)
class _Part:
    """A range of columns of the raster, and the tiles that reach into it."""

    begin: int
    end: int
    columns: tuple[int, ...]
    """The first column of each tile."""


@dataclass(frozen=True)
class _Tiling:
    """The tiles of a raster, and their weights in each row and column."""

    size: tuple[int, int]
    tile: tuple[int, int]
    rows: tuple[int, ...]
    """The first row of each row of tiles."""
    down: Tensor
    """``(rows of tiles, h)``, see :func:`samtune.ops.tiling.weights`."""
    columns: tuple[int, ...]
    across: Tensor
    classes: int | None
    parts: tuple[_Part, ...]

    def identity(self, of_others: str) -> str:
        """A digest of the tiles and of everything else that affects a mask; empty if unknown."""
        text = f"{of_others} {self.size} {self.tile} {self.rows} {self.classes} {self.parts}"
        return blake2b(text.encode(), digest_size=16).hexdigest() if of_others else ""

    @classmethod
    def of(cls, predictor: Predictor, raster: Windows) -> _Tiling:
        policy, size = predictor.model.input, raster.size
        tile = extent(policy.size, policy.scale, size)
        rows, columns = (starts(n, t, policy.overlap) for n, t in zip(size, tile, strict=True))
        classes = predictor.model.acting.decoder.classes
        wide = max(tile[1], BAND_BYTES // (4 * (classes or 1) * tile[0]))
        parts, begin = [], 0
        while begin < size[1]:
            ends = [x for x in (*columns, size[1]) if begin < x <= begin + wide]
            end = size[1] if begin + wide >= size[1] else max(ends)
            reach = tuple(x for x in columns if x < end and x + tile[1] > begin)
            parts.append(_Part(begin, end, reach))
            begin = end
        down = weights(size[0], tile[0], rows)
        across = weights(size[1], tile[1], columns)
        return cls(size, tile, tuple(rows), down, tuple(columns), across, classes, tuple(parts))


def _bands(
    predictor: Predictor, raster: Windows, tiling: _Tiling, part: _Part, first: int
) -> Iterator[tuple[Window, NDArray[np.integer]]]:
    """The finished rows of a part as windows with their values, from a row of tiles on."""
    h, device, rows = tiling.tile[0], predictor.model.device, tiling.rows
    if first >= len(rows):
        return
    shape = (tiling.classes or 1, h, part.end - part.begin)
    sums = torch.full(shape, OUTSIDE, device=device)
    # rows of tiles that reach into the first one are answered again, since they blend with it
    begin = next((i for i, y in enumerate(rows[:first]) if y + h > rows[first]), first)
    for i, y in enumerate(rows[begin:], begin):
        exclusive = False
        for x, logits, is_exclusive in _answers(predictor, raster, y, part, tiling.tile):
            exclusive = is_exclusive
            left, right = max(x, part.begin), min(x + tiling.tile[1], part.end)
            j = tiling.columns.index(x)
            down = tiling.down[i, y : y + h].to(logits)
            weight = down[:, None] * tiling.across[j, left:right].to(logits)
            there = slice(left - part.begin, right - part.begin)
            sums[:, :, there] += weight * (logits[..., left - x : right - x] - OUTSIDE)
        end = rows[i + 1] if i + 1 < len(rows) else tiling.size[0]
        if i >= first:
            done = inside(sums[None, :, : end - y], exclusive, predictor.threshold)[0]
            yield (y, part.begin, end, part.end), _values(done, tiling.classes)
        rest = sums[:, end - y :].clone()
        sums.fill_(OUTSIDE)
        sums[:, : rest.shape[1]] = rest


def _values(masks: Tensor, classes: int | None) -> NDArray[np.integer]:
    """``(h, w)`` of masks ``(K, h, w)``: the class of each pixel, or 1 inside."""
    if classes is None:
        return masks[0].to(torch.uint8).cpu().numpy()
    return masks.to(torch.uint8).argmax(0).cpu().numpy().astype(_kind(classes))


def _kind(classes: int | None) -> type[np.integer]:
    return np.uint8 if classes is None or classes <= 256 else np.uint16


@torch.no_grad()
def _answers(
    predictor: Predictor, raster: Windows, y: int, part: _Part, tile: tuple[int, int]
) -> Iterator[tuple[int, Tensor, bool]]:
    """The first column, the logits ``(K, h, w)`` and the exclusiveness of each tile of a row."""
    model, (h, w) = predictor.model, tile
    for start in range(0, len(part.columns), AT_ONCE):
        group = part.columns[start : start + AT_ONCE]
        images = [raster.read((y, x, y + h, x + w)) for x in group]
        with autocast(model.device, predictor.precision):
            frames = EncodedFrames.of_images(model, images)
            places = enumerate(frames.geometries)
            asked = [Prompts.of(count=1).to_model(place).at(i) for i, place in places]
            masks = frames.decode(Prompts.cat(asked))
            for i, x in enumerate(group):
                logits = frames.to_original(i, masks.logits[i : i + 1])[0]
                yield x, logits.float(), masks.exclusive


def _write(path: Path, raster: Windows, tiling: _Tiling, strips: Strips) -> None:
    """Writes all strips into a new file."""
    import rasterio

    try:
        with _new_file(path, raster, tiling) as file:
            for (y0, x0, y1, x1), values in strips:
                file.write(values, 1, window=((y0, y1), (x0, x1)))
    except rasterio.errors.RasterioError as error:  # no fault of the raster that is read
        raise OSError(" ".join(str(error).split())) from error


def _new_file(path: Path, raster: Windows, tiling: _Tiling) -> Any:
    """A new file with the raster's size and georeference, opened by rasterio."""
    import rasterio

    h, w = tiling.size
    return rasterio.open(
        path, "w", driver="GTiff", width=w, height=h, count=1, dtype=_kind(tiling.classes),
        crs=raster.raster.crs, transform=raster.raster.transform, tiled=True, blockxsize=BLOCK,
        blockysize=BLOCK, compress="deflate", bigtiff="if_safer",
    )  # fmt: skip
