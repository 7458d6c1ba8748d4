"""Image and mask files become arrays: any bit depth, grey, colour or palette."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from samtune.data.intensity import to_rgb
from samtune.data.problems import DataError
from samtune.data.stored import Stored, path_of
from samtune.data.volumes import Whole, is_volume
from samtune.errors import InputError
from samtune.geometry import InputPolicy

SUFFIXES = frozenset({
    ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pbm", ".pgm", ".ppm",
})  # fmt: skip
TIFF = frozenset({".tif", ".tiff"})
LOSSY = frozenset({".jpg", ".jpeg"})
_ORIENTATION, _TURNED = 0x0112, range(5, 9)
_JPEG_CHANNEL_NOISE = 8
_END = {".png": b"IEND", ".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9"}
_BROKEN = (
    OSError, ValueError, IndexError, KeyError, SyntaxError, EOFError, MemoryError, TypeError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip


def read_image(source: Path | Stored, policy: InputPolicy | None = None) -> NDArray[np.uint8]:
    """Reads an image as ``(h, w, 3)`` uint8 RGB, upright as its EXIF orientation says.

    Alpha is dropped and grey repeated. Values of more than 8 bits are scaled by the image's
    percentiles, or as the policy says; see :func:`samtune.data.intensity.to_rgb`.

    Args:
        source: A file, or a part of one.
        policy: Which bands, and how their values become bytes, as a model's ``input`` says.

    Raises:
        InputError: The file is missing, broken, no single image, of more than 4 channels without a
            choice of bands, or against the policy.
    """
    return to_rgb(read_channels(source), policy, path_of(source))


def read_channels(source: Path | Stored) -> NDArray:
    """Reads an image as ``(h, w, channels)`` with its values as stored; palettes as colours.

    Raises:
        InputError: The file is missing, broken, or no single image.
    """
    with _clear_errors(path_of(source), "image"):
        return _stored(source) if isinstance(source, Stored) else _pixels(source, colours=True)


def read_mask(source: Path | Stored) -> NDArray[np.integer]:
    """Reads a mask as an ``(h, w)`` map of integers: palette indices, grey values as stored.

    Raises:
        InputError: The file is broken, or its colours are no grey values.
    """
    path = path_of(source)
    with _clear_errors(path, "mask"):
        array = _stored(source) if isinstance(source, Stored) else _pixels(source, colours=False)
        if array.shape[2] > 2 and not _is_grey(array, is_lossy(source)):
            raise DataError(
                path,
                "coloured mask",
                "the mask is coloured, but a mask holds one number per pixel",
                "save it as grey or palette PNG with one index per object or class",
            )
        return _integers(np.ascontiguousarray(array[..., 0]), path)


def image_size(source: Path | Stored) -> tuple[int, int]:
    """``(height, width)`` as :func:`read_image` returns the image, from the header if possible.

    A file that does not end as its format should is decoded, so that truncation is found here.

    Raises:
        InputError: The file cannot be read.
    """
    if isinstance(source, Stored):
        with _clear_errors(source.path, "image"):
            return source.size()
    path = source
    with _clear_errors(path, "image"):
        end = _END.get(path.suffix.lower())
        if end is None or end not in _tail(path):
            height, width = read_channels(path).shape[:2]
            return height, width
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION, 1) in _TURNED
        return (width, height) if turned else (height, width)


def is_lossy(source: Path | Stored) -> bool:
    """Whether the format changes values, as JPEG does."""
    return source.lossy if isinstance(source, Stored) else source.suffix.lower() in LOSSY


def has_palette(source: Path | Stored) -> bool:
    """Whether a readable mask file's numbers are indices into a table of colours."""
    if isinstance(source, Stored):
        return False
    with suppress(OSError), Image.open(source) as opened:  # some TIFFs are tifffile's alone
        return opened.mode in ("P", "PA")
    return False


def _stored(source: Stored) -> NDArray:
    array = source.read()
    return array[..., None] if array.ndim == 2 else array


def _tail(path: Path, count: int = 64) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - count))
        return file.read()


def _pixels(path: Path, colours: bool) -> NDArray:
    """``(h, w, channels)`` as stored; palettes as colours or as indices."""
    if path.suffix.lower() in TIFF:
        return _tiff(path, colours)
    if is_volume(path):
        return _stored(Whole(path, "image" if colours else "mask"))
    with Image.open(path) as opened:
        if "16" in str(opened.tile[0][3] if opened.tile else "") and opened.mode[:3] == "RGB":
            return _opencv(path)  # Pillow would keep only the upper byte of each channel
        return pillow_pixels(opened, colours)


def pillow_pixels(opened: Image.Image, colours: bool) -> NDArray:
    """An opened image as ``(h, w, channels)``, upright; palettes as colours or as indices."""
    image = ImageOps.exif_transpose(opened)
    if image.mode == "P" and colours:
        image = image.convert("RGB")
    elif image.mode == "1" and colours:
        image = image.convert("L")
    elif image.mode in ("CMYK", "YCbCr", "LAB", "HSV", "PA", "RGBX", "La", "RGBa"):
        image = image.convert("RGB")
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array


def _opencv(path: Path) -> NDArray:
    import cv2

    array = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise ValueError("the content is no image")
    if array.ndim == 2:
        return array[..., None]
    return array[..., [2, 1, 0]] if array.shape[2] > 2 else array


def _tiff(path: Path, colours: bool) -> NDArray:
    import tifffile

    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        palette = page.colormap if page.photometric == tifffile.PHOTOMETRIC.PALETTE else None
        axes, shape = file.series[0].axes, file.series[0].shape
        try:
            array = file.asarray()
        except ValueError as error:
            if "imagecodecs" not in str(error) or len(file.pages) > 1:
                raise
            # Pillow's and OpenCV's libtiff know the compressions that tifffile leaves to a plugin
            array = np.asarray(Image.open(path)) if palette is not None else _by_libtiff(path)
            axes = "YX" if array.ndim == 2 else "YXS"
    if array.ndim == 3 and axes[-1] == "X" and (colours or shape[0] in (1, 3, 4)):
        array = np.moveaxis(array, 0, -1)
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or (array.shape[2] > 4 and not colours):
        raise DataError(
            path,
            "not one image",
            f"holds an array of shape {tuple(shape)}, but one image of 1 to 4 channels is needed",
            "save each slice as a file of its own",
        )
    if palette is not None and colours:
        array = (np.moveaxis(palette, 0, -1)[array[..., 0]] >> 8).astype(np.uint8)
    return array


def _by_libtiff(path: Path) -> NDArray:
    """Pixels in a compression that needs libtiff: GDAL's where there is one, for any bands."""
    try:
        import rasterio
    except ImportError:
        with suppress(ValueError):
            return _opencv(path)
        raise InputError(
            f"{path}: compressed as OpenCV cannot read; pip install 'samtune[geo]'"
        ) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path) as file:
            return np.moveaxis(file.read(), 0, -1)


def _is_grey(array: NDArray, lossy: bool) -> bool:
    first, rest = array[..., 0], (array[..., 1], array[..., 2])
    if all(np.array_equal(first, other) for other in rest):
        return True
    gaps = [np.abs(other.astype(np.int16) - first).max() for other in rest] if lossy else []
    return lossy and max(gaps) <= _JPEG_CHANNEL_NOISE


def _integers(array: NDArray, path: Path) -> NDArray[np.integer]:
    if array.dtype == bool:
        return array.astype(np.uint8)
    if not np.issubdtype(array.dtype, np.integer):
        whole = np.round(array)
        if not np.array_equal(whole, array):
            raise DataError(
                path,
                "fractional mask",
                "the mask holds fractions, but a mask holds whole numbers",
                "threshold it and save it as 0 and 255",
            )
        return whole.astype(np.int64)
    return array


@contextmanager
def _clear_errors(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise DataError(path, f"missing {what}", f"no such {what} file", "check the path") from None
    except _BROKEN as error:
        reason = " ".join(str(error).split()).replace(str(path), "the file")
        raise DataError(
            path,
            f"unreadable {what}",
            f"cannot be read as {what} ({reason or type(error).__name__})",
            "replace the file, or remove it and its partner",
        ) from error
