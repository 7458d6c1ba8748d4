"""Image and mask files become arrays: any bit depth, grey, colour or palette."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from samtune.data.colours import ColourTable
from samtune.data.intensity import to_rgb
from samtune.data.problems import DataError, remark
from samtune.data.quiet import opened_picture, quiet
from samtune.data.stored import Stored, as_source, path_of
from samtune.data.tiffs import read_tiff, rgb_of
from samtune.data.volumes import Whole, is_volume
from samtune.errors import InputError
from samtune.geometry import InputPolicy

SUFFIXES = frozenset({
    ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pbm", ".pgm", ".ppm",
})  # fmt: skip
TIFF = frozenset({".tif", ".tiff"})
LOSSY = frozenset({".jpg", ".jpeg"})
_ORIENTATION, _SWAPPED = 0x0112, range(5, 9)
_JPEG_CHANNEL_NOISE = 8
_OF_THE_MACHINE = frozenset({
    errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM, getattr(errno, "ESTALE", errno.EIO),
})  # fmt: skip
"""Errors that say nothing about the file."""
_END = {".png": b"IEND", ".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9"}


def read_image(source: str | Path | Stored, policy: InputPolicy | None = None) -> NDArray[np.uint8]:
    """Reads an image as ``(h, w, 3)`` uint8 RGB, upright as its EXIF orientation says.

    Alpha is dropped and grey repeated. Values of more than 8 bits are scaled by the image's
    percentiles or by the policy; see :func:`samtune.data.intensity.to_rgb`.

    Args:
        source: A file, or a part of one.
        policy: The bands, and the conversion of their values to bytes, as in a model's ``input``.

    Raises:
        InputError: The file is missing, broken or not a single image, has more than 4 channels
            without a choice of bands, or does not fit the policy.
    """
    source = as_source(source)
    chosen = policy is not None and policy.bands is not None
    values = read_channels(source, pages=chosen)
    if policy is not None and policy.intensity == "window" and policy.limits is None:
        policy = replace(policy, limits=_window(source))
    return to_rgb(values, policy, path_of(source))


def _window(source: Path | Stored) -> tuple[float, float] | None:
    """The display window (values of black and of white) stored in a file, as in DICOM."""
    if not isinstance(source, Stored):
        source = Whole(source, "image") if is_volume(source) else source
    with _clear_errors(path_of(source), "image"):
        return source.window() if isinstance(source, Stored) else None


def read_channels(source: str | Path | Stored, pages: bool = True) -> NDArray:
    """Reads an image as ``(h, w, channels)`` with its values as stored; palettes as colours.

    Pixels without data, as marked in a GeoTIFF, are masked (``numpy.ma``).

    Args:
        source: A file, or an image within one.
        pages: Whether several pages of a TIFF file are bands of one image.

    Raises:
        InputError: The file is missing, broken, or not a single image.
    """
    source = as_source(source)
    with _clear_errors(path_of(source), "image"):
        if isinstance(source, Stored):
            return _real(_stored(source), source.path, "image")
        return _real(_pixels(source, colours=True, pages=pages), source, "image")


def read_mask(source: str | Path | Stored, table: ColourTable | None = None) -> NDArray[np.integer]:
    """Reads a mask as an ``(h, w)`` map of integers: palette indices, or grey values as stored.

    If all its colours are the same but its transparency varies, the transparency is the mask.

    Args:
        source: A file, or a part of one.
        table: The meaning of the mask's colours, if they have one.

    Raises:
        InputError: The file is broken, or its colours are not grey and not in the table.
    """
    source = as_source(source)
    path = path_of(source)
    with _clear_errors(path, "mask"):
        if table is not None and not isinstance(source, Stored):
            array, indexed = _coloured(source), has_palette(source)
            known = not indexed or table.knows(array)
            if known and (array.shape[2] > 2 or table.has_greys(array)):
                return table.numbers(array, path, is_lossy(source))
        array = _stored(source) if isinstance(source, Stored) else _pixels(source, colours=False)
        array = _real(array, path, "mask")
        return _integers(np.ascontiguousarray(_plane(array, path, is_lossy(source))), path)


def _plane(array: NDArray, path: Path, lossy: bool) -> NDArray:
    """The one channel that holds the mask."""
    colours, alpha = array, None
    if array.shape[2] in (2, 4):
        colours, alpha = array[..., :-1], array[..., -1]
    shaped = alpha is not None and bool((alpha != alpha.flat[0]).any())
    if alpha is not None and shaped and bool((colours == colours[:1, :1]).all()):
        remark(
            path,
            "mask in alpha",
            "has one colour everywhere, so its transparency is read as the mask",
            "legal; export masks as grey PNG to be sure",
        )
        return alpha
    if colours.shape[2] > 2 and not _is_grey(colours, lossy):
        more = ", with a shape in its alpha channel too" if shaped else ""
        raise DataError(
            path,
            "coloured mask",
            f"the mask is coloured{more}, but a mask holds one number per pixel",
            "say what its colours mean, as in data.colors={road: [128,64,128]}, or save it as grey "
            "or palette PNG with one index per object or class",
        )
    return colours[..., 0]


def _coloured(path: Path) -> NDArray:
    """``(h, w, channels)`` of a mask in the colours of its palette, if it has one."""
    if path.suffix.lower() in TIFF or is_volume(path):
        return _pixels(path, colours=has_palette(path))
    with opened_picture(path) as opened:
        if opened.mode in ("P", "PA"):
            return pillow_pixels(opened, colours=True)
        return pillow_pixels(opened, colours=False)


def image_size(source: str | Path | Stored) -> tuple[int, int]:
    """``(height, width)`` as :func:`read_image` returns the image, from the header if possible.

    A file without its format's end marker is decoded, so that truncation is detected here.

    Raises:
        InputError: The file cannot be read.
    """
    source = as_source(source)
    path = path_of(source)
    with _clear_errors(path, "image"):
        if isinstance(source, Stored):
            return source.size()
        end = _END.get(path.suffix.lower())
        if end is None or end not in _tail(path):
            height, width = read_channels(path).shape[:2]
            return height, width
        with opened_picture(path) as image:
            width, height = image.size
            swapped = image.getexif().get(_ORIENTATION, 1) in _SWAPPED
        return (width, height) if swapped else (height, width)


def orientation_of(source: Path | Stored) -> int:
    """The EXIF orientation that turns a readable picture upright; 1 if there is none."""
    if isinstance(source, Stored) or source.suffix.lower() in TIFF or is_volume(source):
        return 1  # a TIFF image and its mask each have their own tag
    with suppress(Exception), opened_picture(source) as opened:
        found = opened.getexif().get(_ORIENTATION, 1)
        return found if found in range(2, 9) else 1
    return 1


def is_lossy(source: Path | Stored) -> bool:
    """Whether the format changes values, as JPEG does."""
    return source.lossy if isinstance(source, Stored) else source.suffix.lower() in LOSSY


def has_palette(source: Path | Stored) -> bool:
    """Whether the numbers in a readable mask file are indices into a colour table."""
    if isinstance(source, Stored):
        return False
    # only tifffile reads some TIFFs
    with suppress(OSError), opened_picture(source) as opened:
        return opened.mode in ("P", "PA")
    return False


def _stored(source: Stored) -> NDArray:
    array = source.read()
    return array[..., None] if array.ndim == 2 else array


def _tail(path: Path, count: int = 64) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - count))
        return file.read()


def _pixels(path: Path, colours: bool, pages: bool = True) -> NDArray:
    """``(h, w, channels)`` as stored; palettes as colours or as indices."""
    if path.suffix.lower() in TIFF:
        return read_tiff(path, colours, pages)
    if is_volume(path):
        return _stored(Whole(path, "image" if colours else "mask"))
    with opened_picture(path) as opened:
        _check_memory(opened, path)
        if "16" in str(opened.tile[0][3] if opened.tile else "") and opened.mode[:3] == "RGB":
            return _opencv(path)  # Pillow would keep only the upper byte of each channel
        return pillow_pixels(opened, colours)


def _check_memory(opened: Image.Image, path: Path) -> None:
    """Refuses a file that is larger than the machine's memory, before decoding it."""
    if not hasattr(os, "sysconf"):  # Windows has another way to ask
        return
    width, height = opened.size
    needed = width * height * len(opened.getbands())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise DataError(
            path,
            "larger than memory",
            f"{width}x{height} pixels need {needed >> 30} GiB, and this machine has {memory >> 30}",
            "cut the image into parts, or check that the file is not damaged",
        )


def pillow_pixels(opened: Image.Image, colours: bool) -> NDArray:
    """An opened image as ``(h, w, channels)``, upright; palettes as colours or as indices."""
    opened.load()  # PNG may have its orientation behind the pixels
    turned = opened.getexif().get(_ORIENTATION) in range(2, 9)
    image = ImageOps.exif_transpose(opened) if turned else opened  # it would copy others too
    if image.mode in ("P", "PA") and colours:
        image = image.convert("RGB")
    elif image.mode == "1" and colours:
        image = image.convert("L")
    elif image.mode in ("CMYK", "YCbCr", "LAB", "HSV", "RGBX", "La", "RGBa"):
        image = rgb_of(image)
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array


def _opencv(path: Path) -> NDArray:
    import cv2

    array = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise ValueError("the content is not an image")
    if array.ndim == 2:
        return array[..., None]
    return array[..., [2, 1, 0]] if array.shape[2] > 2 else array


def _is_grey(array: NDArray, lossy: bool) -> bool:
    first, rest = array[..., 0], (array[..., 1], array[..., 2])
    if all(np.array_equal(first, other) for other in rest):
        return True
    gaps = [np.abs(other.astype(np.int16) - first).max() for other in rest] if lossy else []
    return lossy and max(gaps) <= _JPEG_CHANNEL_NOISE


def _real(array: NDArray, path: Path, what: str) -> NDArray:
    """Refuses complex numbers, texts and dates, which NumPy would turn into something else."""
    if array.dtype.kind not in "biuf":
        message = f"the {what} holds values of type {array.dtype}"
        raise DataError(path, f"unreadable {what}", message, "save it as whole or real numbers")
    return array


def _integers(array: NDArray, path: Path) -> NDArray[np.integer]:
    if array.dtype == bool:
        return array.astype(np.uint8)
    if not np.issubdtype(array.dtype, np.integer):
        if not bool(np.isfinite(array).all()):
            raise DataError(
                path,
                "mask without numbers",
                "the mask holds NaN or infinity, but a mask holds whole numbers",
                "save the pixels without meaning as a number, and name it with data.ignore",
            )
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
        with quiet():
            yield
    except InputError:
        raise
    except FileNotFoundError:
        raise DataError(path, f"missing {what}", f"no such {what} file", "check the path") from None
    except MemoryError:
        raise
    except Exception as error:  # readers of damaged files raise almost any type
        if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
            raise
        denied = isinstance(error, PermissionError)
        reason = " ".join(str(error).split()).replace(str(path), "the file")
        raise DataError(
            path,
            f"unreadable {what}",
            f"cannot be read as {what} ({reason or type(error).__name__})",
            f"{'change its permissions' if denied else 'replace the file'}, or remove it and its "
            f"{'mask, if it has one' if what == 'image' else 'partner'}",
        ) from error
