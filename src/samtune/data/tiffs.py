"""TIFF files as their tags say: photometric interpretation, nodata, masks, pages, compression."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from samtune.data.problems import DataError, remark
from samtune.data.quiet import opened_picture, quiet
from samtune.errors import InputError

ORIENTATION = 274
"""The tag that says how a picture is turned."""
_NODATA, _INK_SET = 42113, 332
_CMYK = 1
"""The ink set of four channels without other names."""
_GREY = ("MINISBLACK", "MINISWHITE", "MASK")
_ALPHA = (1, 2)
"""Kinds of extra samples that are transparency, premultiplied or not."""
_FLIPS = {2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False), 7: (1, True),
          8: (1, False)}  # fmt: skip
"""Quarter turns, counterclockwise, and then whether left becomes right, by EXIF orientation."""


class _Decoded(NamedTuple):
    array: NDArray
    axes: str
    """One letter per axis, as in tifffile."""
    converted: bool
    """Whether the values are already grey or red, green and blue."""


def read_tiff(path: Path, colours: bool, pages: bool = True) -> NDArray:
    """``(h, w, channels)``: an image's colours, or a mask's numbers.

    Images that store white as zero are inverted; CMYK, YCbCr, LAB and palettes become red, green
    and blue (a mask keeps its palette's indices). Pixels of an image without data, according to a
    nodata tag, a GDAL mask or an alpha channel, are masked: a ``numpy.ma.MaskedArray``.

    Args:
        path: The file.
        colours: Whether it is an image; otherwise a mask.
        pages: Whether several pages of one size are the bands of an image.

    Raises:
        InputError: There are several images, or the interpretation or compression is unknown.
        OSError: It cannot be read; other usual error types occur too.
    """
    import tifffile

    with tifffile.TiffFile(path) as file:
        page, series = file.pages.first, file.series[0]
        if len(file.series) > 1 and not _only_views(file):
            what = f"holds {len(file.series)} images of different sizes; the first is read"
            remark(path, "several pages", what, "legal; save each image as a separate file")
        decoded = _decoded(path, file, series)
        array = _channels_last(decoded, tuple(series.shape), path, colours, pages)
        blank = _blank(path, file, page, array) if colours else None
        if not decoded.converted:
            array = _interpreted(array, page, path, colours)
        if blank is not None:
            array = _masked(array, blank)
        turn = page.tags.get(ORIENTATION)
        if turn is not None and int(turn.value) in _FLIPS and not page.is_geotiff:
            array = turned(array, int(turn.value))
    return array


def turned(array: NDArray, orientation: int) -> NDArray:
    """Stored rows and columns, turned upright by an EXIF orientation of 2 to 8."""
    quarters, mirror = _FLIPS[orientation]
    array = np.rot90(array, quarters)
    return array[:, ::-1] if mirror else array


def _only_views(file: Any) -> bool:
    """Whether all pages after the first series are smaller views of it, or its mask."""
    first = len(file.series[0].pages)
    return all(page.is_reduced or page.is_mask or page.subfiletype for page in file.pages[first:])


def _decoded(path: Path, file: Any, series: Any) -> _Decoded:
    pages = [page for page in series.pages if page is not None]
    if len(pages) == 2 and pages[1].subfiletype & 4:  # a one-bit image and its mask
        pages = pages[:1]
    for page in pages:
        parts, needed = len(page.dataoffsets), math.prod(page.chunked)
        if parts < needed and not page.is_contiguous:  # tifffile would take the rest as zeros
            what = f"has {parts} of the {needed} parts that its {page.imagelength} rows need"
            raise DataError(path, "cut short", what, "copy or write the file again")
    try:
        if len(pages) == 1:
            return _Decoded(pages[0].asarray(), pages[0].axes, False)
        return _Decoded(series.asarray(), series.axes, False)
    except (ValueError, ImportError) as error:  # the codec is not installed
        if isinstance(error, ValueError) and "imagecodecs" not in str(error):
            raise
    planes = [_by_libtiff(path, page.index, file.pages.first) for page in pages]
    if len(planes) == 1:
        axes = "YX" if planes[0].array.ndim == 2 else "YXS"
        return planes[0]._replace(axes=axes)
    stack = np.stack([plane.array for plane in planes])
    return _Decoded(stack, "IYX" if stack.ndim == 3 else "IYXS", planes[0].converted)


def _by_libtiff(path: Path, index: int, page: Any) -> _Decoded:
    """A page with a compression that needs libtiff: read by GDAL, otherwise by Pillow or OpenCV."""
    try:
        import rasterio
    except ImportError:
        return _by_pictures(path, index, page)
    with quiet():
        try:
            with rasterio.open(f"GTIFF_DIR:{index + 1}:{path}") as file:
                bands = np.moveaxis(file.read(), 0, -1)
                colours = [kind.name for kind in file.colorinterp[:3]]
        except rasterio.errors.RasterioError as error:
            raise ValueError(f"{error}") from error
    kind = getattr(page.photometric, "name", "")
    converted = kind == "YCBCR" or (  # GDAL converts these, and most inks, to colours
        kind not in ("RGB", "PALETTE", *_GREY) and colours == ["red", "green", "blue"]
    )
    bands = bands[..., :3] if converted else bands
    return _Decoded(bands[..., 0] if bands.shape[2] == 1 else bands, "", converted)


def _by_pictures(path: Path, index: int, page: Any) -> _Decoded:
    """A page as read by Pillow or OpenCV, if the tags contain nothing else."""
    with suppress(OSError, ValueError, SyntaxError), opened_picture(path) as opened:
        opened.seek(index)
        if opened.mode in ("YCbCr", "LAB"):
            return _Decoded(np.asarray(rgb_of(opened)), "", True)
        if page.photometric.name == "YCBCR" and opened.mode == "RGB":
            return _Decoded(np.asarray(opened), "", True)
        array = _as_stored(np.asarray(opened), page)
        if array is not None:
            return _Decoded(array, "", False)
    apart = page.planarconfig != 1 and page.samplesperpixel > 1
    plain = page.photometric.name in ("RGB", "MINISBLACK") and not apart
    if index == 0 and plain and page.samplesperpixel in (1, 3, 4) and page.bitspersample >= 8:
        import cv2

        array = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
        if array is not None and array.dtype == page.dtype and _is_whole(array, page):
            array = array[..., [2, 1, 0, *range(3, array.shape[2])]] if array.ndim > 2 else array
            return _Decoded(array, "", False)
    raise InputError(
        f"{path}: has a compression that no installed library can read; pip install 'samtune[geo]' "
        "or "
        "imagecodecs"
    )


def _is_whole(array: NDArray, page: Any) -> bool:
    size = (page.imagelength, page.imagewidth)
    return array.shape[:2] == size and array.size == size[0] * size[1] * page.samplesperpixel


def _as_stored(array: NDArray, page: Any) -> NDArray | None:
    """Pillow's values as stored; ``None`` if it returned fewer bands or bits.

    Pillow inverts images of up to 8 bits that store white as zero, and scales 2 and 4 bits to a
    byte.
    """
    deep, white_is_zero = int(page.bitspersample), page.photometric.name == "MINISWHITE"
    if not _is_whole(array, page):
        return None
    if deep <= 8 and page.photometric.name in _GREY:
        most = 2**deep - 1
        array = array.astype(np.uint8) // (1 if array.dtype == bool else 255 // most)
        array = (most - array).astype(np.uint8) if white_is_zero else array
    if page.dtype.kind == "b" or array.dtype == page.dtype:
        return array
    if array.dtype.itemsize == page.dtype.itemsize and {array.dtype.kind, page.dtype.kind} <= {
        "i", "u",
    }:  # fmt: skip
        return array.view(page.dtype)  # without or with a sign
    narrow = array.astype(page.dtype)
    return narrow if np.array_equal(narrow, array) and array.dtype.itemsize > 1 else None


def rgb_of(image: Image.Image) -> Image.Image:
    """An opened picture in red, green and blue; LAB is converted with the D50 white point."""
    if image.mode != "LAB":
        return image.convert("RGB")
    profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
    assert converted is not None
    return converted


def _channels_last(
    decoded: _Decoded, shape: tuple[int, ...], path: Path, colours: bool, pages: bool
) -> NDArray:
    array, axes = decoded.array, decoded.axes
    for i in reversed(range(len(axes))):
        if array.shape[i] == 1 and axes[i] not in "YX" and array.ndim > 2:
            array, axes = np.take(array, 0, i), axes[:i] + axes[i + 1 :]
    count = array.shape[0]
    if array.ndim == 3 and axes[-1] == "X":
        bands = axes[0] in "SC"
        if colours and not bands and not pages and count <= 4:
            raise DataError(
                path,
                "several pages",
                f"holds {count} pages of one size",
                "choose with data.bands=[i,j,k], counted from 0, if they are bands of one image, "
                "or save each page as a file of its own",
            )
        if colours or (bands and count <= 4):
            array = np.moveaxis(array, 0, -1)
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or (array.shape[2] > 4 and not colours):
        raise DataError(
            path,
            "not one image",
            f"holds an array of shape {shape}, but one image of 1 to 4 channels is needed",
            "save each slice as a file of its own",
        )
    return array


def _interpreted(array: NDArray, page: Any, path: Path, colours: bool) -> NDArray:
    """Stored values as grey, red, green and blue, or a mask's numbers; further channels stay."""
    kind = getattr(page.photometric, "name", str(page.photometric))
    if kind == "PALETTE":
        table = np.moveaxis(np.asarray(page.colormap), 0, -1)
        return (table[array[..., 0]] >> 8).astype(np.uint8) if colours else array
    if kind in _GREY:
        return _grey(array, page, kind == "MINISWHITE", colours)
    if kind == "RGB" or array.shape[2] < 3:
        return array
    ink = page.tags.get(_INK_SET)
    if kind == "SEPARATED" and array.shape[2] > 3 and (ink is None or int(ink.value) == _CMYK):
        return _of_inks(array)
    if kind == "SEPARATED":  # inks with other names are bands
        return array
    with suppress(OSError, ValueError), opened_picture(path) as opened:
        return np.asarray(rgb_of(opened))
    raise DataError(
        path,
        "unknown colours",
        f"its colours have the unsupported kind {kind} (tag PhotometricInterpretation)",
        "save it as RGB",
    )


def _grey(array: NDArray, page: Any, white_is_zero: bool, colours: bool) -> NDArray:
    if array.dtype == bool:
        bits = array != white_is_zero
        return bits.astype(np.uint8) * np.uint8(255 if colours else 1)
    whole, deep = np.issubdtype(array.dtype, np.unsignedinteger), int(page.bitspersample)
    most = 2**deep - 1
    if white_is_zero:
        grey = array[..., :1]
        grey = (most - grey.astype(np.int64)).astype(array.dtype) if whole else -grey
        array = np.concatenate([grey, array[..., 1:]], axis=2)
    if colours and whole and deep < 8:
        return (array.astype(np.uint16) * 255 // most).astype(np.uint8)
    return array


def _of_inks(array: NDArray) -> NDArray:
    """Converts cyan, magenta, yellow and black to RGB, without a colour profile."""
    most = float(np.iinfo(array.dtype).max) if np.issubdtype(array.dtype, np.integer) else 1.0
    inks = array[..., :4].astype(np.float32) / most
    light = (1 - inks[..., :3]) * (1 - inks[..., 3:]) * most
    rgb = np.round(light).astype(array.dtype) if most > 1 else light.astype(array.dtype)
    return np.concatenate([rgb, array[..., 4:]], axis=2)


def _blank(path: Path, file: Any, page: Any, array: NDArray) -> NDArray[np.bool_] | None:
    """``(h, w, channels)`` as stored: true where the file marks pixels without data."""
    blank = np.zeros(array.shape, bool)
    value = _nodata(page, array.dtype)
    if value is not None:
        with np.errstate(all="ignore"):
            blank |= array == value
            if np.issubdtype(array.dtype, np.floating) and np.isfinite(value):
                blank |= np.abs(array - value) <= 1e-6 * abs(value)
    clear = [mask for mask in _masks_of(path, file, page) if mask.shape == array.shape[:2]]
    for mask in clear:
        blank |= (mask == 0)[..., None]
    extra = [int(each) for each in page.extrasamples]
    first = array.shape[2] - len(extra)
    for i, each in enumerate(extra):
        alpha = array[..., first + i]
        if each in _ALPHA and first > 0 and alpha.any():
            blank[..., :first] |= (alpha == 0)[..., None]
            blank[..., first + i] = False
    return blank if blank.any() else None


def _nodata(page: Any, dtype: np.dtype[Any]) -> Any:
    """The value of GDAL's nodata tag in the pixels' type; ``None`` if there is none."""
    tag = page.tags.get(_NODATA)
    try:
        value = float(str(tag.value).strip(" \0\n")) if tag is not None else None
    except ValueError:
        return None
    if value is None or np.isnan(value):  # NaN is always left out
        return None
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        return dtype.type(value) if value.is_integer() and info.min <= value <= info.max else None
    with np.errstate(all="ignore"):
        return dtype.type(value)


def _masks_of(path: Path, file: Any, page: Any) -> list[NDArray]:
    """GDAL's masks of a file: a page of its own, or a file beside it."""
    import tifffile

    masks = []
    for other in file.pages[1:]:
        if other.subfiletype == 4 and other.shape[:2] == page.shape[:2]:
            masks.append(_plane(path, other))
    beside = path.with_name(path.name + ".msk")
    if beside.is_file():
        with tifffile.TiffFile(beside) as inner:
            masks.append(_plane(beside, inner.pages.first))
    return masks


def _plane(path: Path, page: Any) -> NDArray:
    try:
        plane = page.asarray()
    except (ValueError, ImportError):
        plane = _by_libtiff(path, page.index, page).array
    return plane if plane.ndim == 2 else plane[..., 0]


def _masked(array: NDArray, blank: NDArray[np.bool_]) -> NDArray:
    """The image with its blank pixels masked, also if its channels were converted."""
    if blank.shape != array.shape:
        blank = np.broadcast_to(blank.all(2, keepdims=True), array.shape)
    return np.ma.MaskedArray(array, blank)
