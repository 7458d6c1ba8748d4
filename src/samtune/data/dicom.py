"""DICOM files and series: their units, their order, and what their greys and colours mean."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samtune.errors import InputError

_ENDINGS = (".dcm", ".dicom", ".dic", ".ima")
_MAGIC = b"DICM"
"""After 128 bytes, in every file that PACS and disks exchange."""


def is_dicom(path: Path) -> bool:
    """Whether a file is one of DICOM: by its ending, or if it has none, by its first bytes."""
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

    Values are in rescaled units, wherever the file says them: for all frames or for each. Of
    MONOCHROME1 the range that can be stored is turned round, so that all slices are alike.

    Raises:
        InputError: Several series or sizes, an unknown order, or a compression that is not known.
    """
    pydicom = library("pydicom", "medical", path)
    files = dicom_files(path)
    if not path.is_dir():
        return _values(pydicom, pydicom.dcmread(path), path)
    read = [(pydicom.dcmread(file), file) for file in files]
    parts = [(part, file) for part, file in read if "Rows" in part]  # others are reports and lists
    if not parts:
        raise InputError(f"{path}: none of its DICOM files holds an image; give the image series")
    series = {str(part.get("SeriesInstanceUID", "")) for part, _ in parts}
    if len(series) > 1:
        raise InputError(
            f"{path}: holds files of {len(series)} series; put each into a folder of its own"
        )
    if len(parts) == 1:
        alone = _values(pydicom, *parts[0])
        several = int(parts[0][0].get("NumberOfFrames") or 1) > 1
        return alone if several else alone[None]
    order = sorted(parts, key=lambda each: _place(*each))
    values = [_values(pydicom, part, file) for part, file in order]
    shapes = sorted({value.shape for value in values})
    if len(shapes) > 1:
        raise InputError(
            f"{path}: holds slices of the sizes {', '.join(map(str, shapes))}; keep those of one"
        )
    return np.stack(values)


def orientation_of_series(path: Path) -> tuple[NDArray, NDArray] | None:
    """The directions of rows and columns of a series or file; ``None`` if they are not said."""
    files = dicom_files(path)
    if not files or not is_dicom(files[0]):
        return None
    pydicom = library("pydicom", "medical", path)
    try:
        header = pydicom.dcmread(files[0], stop_before_pixels=True)
        group = _in_groups(header, "PlaneOrientationSequence", 0) or header
        x, y = np.array(group.ImageOrientationPatient, float).reshape(2, 3)
    except Exception:  # what cannot be read is refused when its values are
        return None
    return x, y


def library(name: str, extra: str, path: Path) -> Any:
    """A package that reading a file needs.

    Raises:
        InputError: It is not installed; the extra that brings it.
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
            f"{file}: compressed as no installed library can read; pip install pylibjpeg "
            "pylibjpeg-libjpeg pylibjpeg-openjpeg, or decompress it"
        ) from error
    kind = str(part.get("PhotometricInterpretation", ""))
    if kind == "PALETTE COLOR":
        return _bytes(pydicom.pixels.apply_color_lut(values, part))
    if kind == "MONOCHROME1":  # white is the least value that can be stored
        bits, signed = int(part.BitsStored), int(part.get("PixelRepresentation") or 0)
        low = -(1 << bits - 1) if signed else 0
        values = (2 * low + (1 << bits) - 1 - values.astype(np.int64)).astype(values.dtype)
    if part.get("ModalityLUTSequence"):
        return pydicom.pixels.apply_modality_lut(values, part).astype(np.float32)
    frames = int(part.get("NumberOfFrames") or 1)
    scales = [_rescale(part, i) for i in range(frames)]
    if all(scale == (1.0, 0.0) for scale in scales):
        return values
    if len(set(scales)) == 1 or frames == 1:
        slope, shift = scales[0]
        return (values * slope + shift).astype(np.float32)
    return np.stack(
        [
            (frame * slope + shift).astype(np.float32)
            for frame, (slope, shift) in zip(values, scales, strict=True)
        ]
    )


def _bytes(colours: NDArray) -> NDArray[np.uint8]:
    """Colours of a palette, which are mostly of 16 bits, as bytes."""
    return (colours >> 8).astype(np.uint8) if colours.dtype == np.uint16 else colours


def _rescale(part: Any, frame: int) -> tuple[float, float]:
    """Slope and intercept of a frame: of its own group, the shared group, or the file itself."""
    groups = [_in_groups(part, "PixelValueTransformationSequence", frame), part]
    found = []
    for key, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0)):
        said = (group.get(key) for group in groups if group is not None)
        found.append(next((float(each) for each in said if each not in (None, "")), default))
    return found[0], found[1]


def _in_groups(part: Any, name: str, frame: int) -> Any:
    """A group of attributes of a frame, of its own or shared by all; ``None`` without one."""
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
    """Where a slice lies along the normal of its plane; by its number if that is not said."""
    place = _in_groups(part, "PlanePositionSequence", 0) or part
    plane = _in_groups(part, "PlaneOrientationSequence", 0) or part
    if place.get("ImagePositionPatient") and plane.get("ImageOrientationPatient"):
        axes = np.array(plane.ImageOrientationPatient, float)
        normal = np.cross(axes[:3], axes[3:])
        return float(normal @ np.array(place.ImagePositionPatient, float))
    if part.get("InstanceNumber") in (None, ""):
        raise InputError(
            f"{file}: says neither its position nor its number, so the order of the series is not "
            "known; export the series again"
        )
    return float(part.InstanceNumber)
