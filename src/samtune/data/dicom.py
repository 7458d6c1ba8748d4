"""DICOM files and series: their units, their order, and the meaning of greys and colours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samtune.errors import InputError

_ENDINGS = (".dcm", ".dicom", ".dic", ".ima")
_MAGIC = b"DICM"
"""The marker after 128 bytes in every file that PACS and disks exchange."""


def is_dicom(path: Path) -> bool:
    """Whether a file is a DICOM file: by its ending, or without one by its first bytes."""
    name = path.name.lower()
    if name.endswith(_ENDINGS):
        return not path.is_dir()
    bare = "." not in name[1:] or path.suffix[1:].isdigit()  # IM0001, or 1.2.840.113619.2.5
    if not bare or name.startswith(".") or name == "dicomdir" or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == _MAGIC


def dicom_files(path: Path) -> list[Path]:
    """The files of a series, or the one file."""
    return sorted(p for p in path.iterdir() if is_dicom(p)) if path.is_dir() else [path]


def read_dicom(path: Path) -> NDArray:
    """A file as ``(h, w)``, ``(h, w, 3)`` or ``(n, h, w)``; a folder as ``(n, h, w)``.

    Slices and frames are ordered by their positions along the normal of their plane; frames without
    positions, or with positions in several directions, keep the file's order. Values are in
    rescaled units, whether the file defines them for all frames or for each. MONOCHROME1 is
    inverted within the range that can be stored, or that of the table of units, so all slices have
    the same sense. Pixels with the padding value are masked (``numpy.ma``).

    Raises:
        InputError: There are several series or sizes, or the order or the compression is unknown.
    """
    pydicom = library("pydicom", "medical", path)
    parts = _parts(pydicom, path)
    values = [_values(pydicom, part, file) for part, file in parts]
    for i, (part, _) in enumerate(parts):
        values[i] = values[i][_order(part)] if _frames(part) > 1 else values[i]
    if len(parts) == 1:
        return values[0] if not path.is_dir() or _frames(parts[0][0]) > 1 else values[0][None]
    shapes = sorted({value.shape for value in values})
    if len(shapes) > 1:
        raise InputError(
            f"{path}: holds slices of the sizes {', '.join(map(str, shapes))}; keep those of one "
            "size"
        )
    return np.ma.stack(values) if any(map(np.ma.isMaskedArray, values)) else np.stack(values)


def windows_of(path: Path) -> list[tuple[float, float] | None]:
    """The display window (values of black and of white) of each image of a file or series.

    The window is the first one (PS3.3 C.11.2.1.2) in the frame's own group, in the shared group, or
    in the file itself, in the units and the order of :func:`read_dicom`; ``None`` if there is none.

    Raises:
        InputError: See :func:`read_dicom`; or the window is not linear.
    """
    parts = _parts(library("pydicom", "medical", path), path, pixels=False)
    return [_window(part, i, file) for part, file in parts for i in _order(part)]


def source_images(path: Path) -> tuple[list[Any], list[int]]:
    """The headers of a file or series in the order of :func:`read_dicom`, and those of its frames.

    Returns:
        A data set for each slice of a series, or the one of a file; and for each slice the number
        of the image or frame, counted from 0 in the order of these.

    Raises:
        InputError: See :func:`read_dicom`.
    """
    parts = [part for part, _ in _parts(library("pydicom", "medical", path), path, pixels=False)]
    return parts, _order(parts[0]) if len(parts) == 1 else list(range(len(parts)))


def _parts(pydicom: Any, path: Path, pixels: bool = True) -> list[tuple[Any, Path]]:
    """The file, or the images of a series ordered by position, each with its file."""
    if not path.is_dir():
        return [(pydicom.dcmread(path, stop_before_pixels=not pixels), path)]
    files = dicom_files(path)
    read = [(pydicom.dcmread(file, stop_before_pixels=not pixels), file) for file in files]
    parts = [
        (part, file) for part, file in read if "Rows" in part
    ]  # other files are reports and lists
    if not parts:
        raise InputError(f"{path}: none of its DICOM files holds an image; give the image series")
    series = {str(part.get("SeriesInstanceUID", "")) for part, _ in parts}
    if len(series) > 1:
        raise InputError(
            f"{path}: holds files of {len(series)} series; put each into its own folder"
        )
    return parts if len(parts) == 1 else sorted(parts, key=lambda each: _place(*each))


def orientation_of_series(path: Path) -> tuple[NDArray, NDArray] | None:
    """The directions of rows and columns of a series or file; ``None`` if unknown."""
    files = dicom_files(path)
    if not files or not is_dicom(files[0]):
        return None
    pydicom = library("pydicom", "medical", path)
    try:
        header = pydicom.dcmread(files[0], stop_before_pixels=True)
        group = _in_groups(header, "PlaneOrientationSequence", 0) or header
        x, y = np.array(group.ImageOrientationPatient, float).reshape(2, 3)
    except Exception:  # unreadable files are refused when their values are read
        return None
    return x, y


def library(name: str, extra: str, path: Path) -> Any:
    """Imports a package that reading a file needs.

    Raises:
        InputError: It is not installed; the message names the extra to install.
    """
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"{path}: reading it needs {name}; pip install 'samtune[{extra}]'"
        ) from error


def _values(pydicom: Any, part: Any, file: Path) -> NDArray:
    try:
        values = pydicom.pixels.pixel_array(part)  # colours of YBR become red, green and blue
    except (RuntimeError, NotImplementedError) as error:
        raise InputError(
            f"{file}: has a compression that no installed library can read; pip install pylibjpeg "
            "pylibjpeg-libjpeg pylibjpeg-openjpeg, or decompress it"
        ) from error
    kind = str(part.get("PhotometricInterpretation", ""))
    if kind == "PALETTE COLOR":
        return _bytes(pydicom.pixels.apply_color_lut(values, part))
    padding = _padding(part, values)
    tabled, negative = bool(part.get("ModalityLUTSequence")), kind == "MONOCHROME1"
    if tabled:
        values = pydicom.pixels.apply_modality_lut(values, part).astype(np.float32)
        values = np.float32(_sum_of_units(part, 0)) - values if negative else values
    elif negative:  # white is the least value that can be stored
        values = (_mirror(part) - values.astype(np.int64)).astype(values.dtype)
    if padding is not None:
        values = np.ma.MaskedArray(values, padding)
    return values if tabled else _rescaled(part, values)


def _rescaled(part: Any, values: NDArray) -> NDArray:
    scales = [_rescale(part, i) for i in range(_frames(part))]
    if all(scale == (1.0, 0.0) for scale in scales):
        return values
    if len(set(scales)) == 1:
        slope, shift = scales[0]
        return (values * slope + shift).astype(np.float32)
    slopes, shifts = np.array(scales).T[:, :, None, None]
    return (values * slopes + shifts).astype(np.float32)


def _frames(part: Any) -> int:
    return int(part.get("NumberOfFrames") or 1)


def _mirror(part: Any) -> int:
    """The sum of the least and the greatest value that can be stored."""
    bits, signed = int(part.BitsStored), int(part.get("PixelRepresentation") or 0)
    low = -(1 << bits - 1) if signed else 0
    return 2 * low + (1 << bits) - 1


def _sum_of_units(part: Any, frame: int) -> float:
    """The sum of the units at the ends of the stored range, or at the ends of a table."""
    if not part.get("ModalityLUTSequence"):
        slope, shift = _rescale(part, frame)
        return slope * _mirror(part) + 2 * shift
    from pydicom.pixels import apply_modality_lut

    count, first = (int(each) for each in part.ModalityLUTSequence[0].LUTDescriptor[:2])
    units = apply_modality_lut(np.arange(first, first + (count or 1 << 16)), part)
    return float(units.min()) + float(units.max())


def _padding(part: Any, values: NDArray) -> NDArray[np.bool_] | None:
    """A mask of stored values outside of the scanner's field of view (PS3.3 C.7.5.1.1.2)."""
    ends = [part.get("PixelPaddingValue"), part.get("PixelPaddingRangeLimit")]
    if ends[0] in (None, "") or int(part.get("SamplesPerPixel") or 1) > 1:
        return None
    known = [int(end) for end in ends if end not in (None, "")]
    if values.dtype.kind == "i":  # some scanners write a negative value without its sign
        known = [int(np.array(end).astype(values.dtype)) for end in known]
    padding = (values >= min(known)) & (values <= max(known))
    return padding if padding.any() else None


def _window(part: Any, frame: int, file: Path) -> tuple[float, float] | None:
    group = _in_groups(part, "FrameVOILUTSequence", frame) or part
    numbers = [group.get(key) for key in ("WindowCenter", "WindowWidth")]
    if any(number in (None, "") for number in numbers):
        return None
    centre, width = (
        float(number if isinstance(number, int | float | str) else number[0]) for number in numbers
    )
    function = str(group.get("VOILUTFunction") or "LINEAR")
    if function not in ("LINEAR", "LINEAR_EXACT") or width <= 0:
        raise InputError(
            f"{file}: its window (centre {centre:g}, width {width:g}, {function}) is not linear; "
            "set data.window=[low,high]"
        )
    half = width / 2
    if function == "LINEAR":  # of whole numbers; the window contains this many of them
        centre, half = centre - 0.5, (width - 1) / 2
    low, high = centre - half, centre + half
    if part.get("PhotometricInterpretation") == "MONOCHROME1":
        turned = _sum_of_units(part, frame)
        low, high = turned - high, turned - low
    return low, high


def _bytes(colours: NDArray) -> NDArray[np.uint8]:
    """Converts the colours of a palette, which mostly have 16 bits, to bytes."""
    return (colours >> 8).astype(np.uint8) if colours.dtype == np.uint16 else colours


def _rescale(part: Any, frame: int) -> tuple[float, float]:
    """Slope and intercept of a frame: from its own group, the shared group, or the file itself."""
    groups = [_in_groups(part, "PixelValueTransformationSequence", frame), part]
    found = []
    for key, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0)):
        said = (group.get(key) for group in groups if group is not None)
        found.append(next((float(each) for each in said if each not in (None, "")), default))
    return found[0], found[1]


def _in_groups(part: Any, name: str, frame: int) -> Any:
    """A group of a frame's attributes, its own or the shared one; ``None`` if there is neither."""
    for group in _groups(part, frame):
        inner = group.get(name)
        if inner:
            return inner[0]
    return None


def _groups(part: Any, frame: int) -> Iterator[Any]:
    own = part.get("PerFrameFunctionalGroupsSequence")
    if own and frame < len(own):
        yield own[frame]
    shared = part.get("SharedFunctionalGroupsSequence")
    if shared:
        yield shared[0]


def _place(part: Any, file: Path) -> float:
    """The position of a slice along the normal of its plane; its number if that is missing."""
    known = _plane(part, 0)
    if known is not None:
        return known[1]
    if part.get("InstanceNumber") in (None, ""):
        raise InputError(
            f"{file}: has neither a position nor a number, so the order of the series is unknown; "
            "export the series again"
        )
    return float(part.InstanceNumber)


def _order(part: Any) -> list[int]:
    """The frames of a file by position; as stored if positions are missing or not parallel."""
    frames = list(range(_frames(part)))
    planes = [_plane(part, frame) for frame in frames] if len(frames) > 1 else []
    known = [plane for plane in planes if plane is not None]
    if not known or len(known) < len(planes):
        return frames
    if not all(np.allclose(normal, known[0][0], atol=1e-3) for normal, _ in known):
        return frames
    return sorted(frames, key=lambda frame: round(known[frame][1], 3))  # of mm: films stay in time


def _plane(part: Any, frame: int) -> tuple[NDArray, float] | None:
    """The normal of a frame's plane and its position along it; ``None`` if they are missing."""
    place = _in_groups(part, "PlanePositionSequence", frame) or part
    plane = _in_groups(part, "PlaneOrientationSequence", frame) or part
    if not (place.get("ImagePositionPatient") and plane.get("ImageOrientationPatient")):
        return None
    axes = np.array(plane.ImageOrientationPatient, float)
    normal = np.cross(axes[:3], axes[3:])
    return normal, float(normal @ np.array(place.ImagePositionPatient, float))
