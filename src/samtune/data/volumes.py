"""Volumes and arrays as images: NIfTI, DICOM series, NumPy files, slice by slice."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from samtune.data.arrays import Archive, mapped
from samtune.data.dicom import is_dicom, library, orientation_of_series, read_dicom, windows_of
from samtune.data.problems import remark
from samtune.data.quiet import quiet
from samtune.data.stored import Stored
from samtune.errors import InputError

Role = Literal["image", "mask"]
NIFTI, NUMPY = (".nii", ".nii.gz"), (".npy", ".npz")
_TURNED = ("L", "P", "S")
"""The directions of a NIfTI file's axes after it is turned."""
_TOWARDS = ("LPS", "RAI")
"""The sides towards which rising and falling numbers lead on each axis of the patient."""
_KEYS = {"image": ("image", "img"), "mask": ("mask", "label", "gt")}


@dataclass(frozen=True)
class Slice(Stored):
    """One slice of a volume, with its channels if it has any."""

    role: Role
    axis: int
    """0 for the slices in their own order, 1 and 2 for planes across them."""
    index: int

    def read(self) -> NDArray:
        """``(h, w)`` or ``(h, w, channels)`` as stored."""
        return np.take(load(self.path, self.role), self.index, self.axis)

    def size(self) -> tuple[int, int]:
        """Height and width, without reading a NIfTI or .npy file's values."""
        height, width = np.delete(shape_of(self.path, self.role)[:3], self.axis).tolist()
        return height, width

    def window(self) -> tuple[float, float] | None:
        """The DICOM window of this slice, or of all slices that a plane across intersects."""
        windows = _windows(self.path)
        if self.axis == 0 and windows:
            return windows[self.index]
        if len(set(windows)) > 1:
            raise InputError(
                f"{self.path}: its slices have different windows, so a plane across them has none; "
                "set data.window=[low,high]"
            )
        return windows[0] if windows else None


@dataclass(frozen=True)
class Whole(Stored):
    """A file that is one image."""

    role: Role

    def read(self) -> NDArray:
        """``(h, w)`` or ``(h, w, channels)`` as stored."""
        array = load(self.path, self.role)
        if array.ndim > 3 or (array.ndim == 3 and self.path.name.endswith(NIFTI)):
            raise InputError(
                f"{self.path}: a volume of shape {array.shape} is not a single image; read its "
                "slices with samtune.data.find_images"
            )
        return array

    def size(self) -> tuple[int, int]:
        """Height and width."""
        height, width = shape_of(self.path, self.role)[:2]
        return height, width

    def window(self) -> tuple[float, float] | None:
        """The window of a DICOM file."""
        windows = _windows(self.path)
        return windows[0] if windows else None


def is_volume(path: Path) -> bool:
    """Whether the file, or the folder as a DICOM series, is read by this module."""
    if path.name.lower().endswith((*NIFTI, *NUMPY)):
        return True
    if is_dicom(path):
        return True
    return path.is_dir() and any(is_dicom(file) for file in path.iterdir())


def stem_of(path: Path) -> str:
    """The name without its ending; ``.nii.gz`` counts as one ending."""
    if path.name.lower().endswith(".nii.gz"):
        return path.name[: -len(".nii.gz")]
    named = path.suffix and not path.suffix[1:].isdigit()  # 1.2.840.1 is a name without an ending
    return path.stem if named and not path.is_dir() else path.name


def slices(
    image: Path, mask: Path | None, axis: int = 0, whole: bool = False
) -> list[tuple[Stored, Stored | None]]:
    """The images in a file, each with its mask if there is one.

    A file is one image if its mask has two axes. Without a mask, it is one image if it has two
    axes, or three with up to four channels in the last (any number of channels with ``whole``).

    Args:
        image: NIfTI, ``.npy`` ``(n, h, w)`` or ``(n, h, w, channels)``, or a DICOM series.
        mask: The same forms, without channels.
        axis: 0 for slices as they were acquired, 1 and 2 for planes across.
        whole: Whether an array with three axes is an image with channels.

    Raises:
        InputError: Image and mask differ in shape or orientation, or have too few or too many axes.
    """
    shape = shape_of(image, "image")
    medical = image.name.lower().endswith(NIFTI) or image.is_dir()
    if mask is not None:
        with quiet():
            _check_pair(image, mask, shape)
        single = len(shape_of(mask, "mask")) == 2
    else:
        single = len(shape) == 2 or (len(shape) == 3 and not medical and (whole or shape[-1] <= 4))
    if single:
        return [(Whole(image, "image"), None if mask is None else Whole(mask, "mask"))]
    if len(shape) not in (3, 4):
        raise InputError(
            f"{image}: an array of shape {shape} is not a volume; save it as (slices, height, "
            "width) "
            "or (slices, height, width, channels)"
        )
    if not 0 <= axis < 3:
        raise InputError(f"data.slice_axis={axis}: must be 0, 1 or 2")
    return [
        (Slice(image, "image", axis, i), None if mask is None else Slice(mask, "mask", axis, i))
        for i in range(shape[axis])
    ]


def _check_pair(image: Path, mask: Path, shape: tuple[int, ...]) -> None:
    if not is_volume(mask):
        raise InputError(
            f"{mask}: is a picture, but {image.name} is a volume or array; save the mask in the "
            "same format as the image"
        )
    own = shape_of(mask, "mask")
    if own != shape[: len(own)] or len(own) not in (2, 3) or len(shape) - len(own) > 1:
        raise InputError(
            f"{mask}: the mask has shape {own}, but {image.name} has {shape}; both must have the "
            "same shape, so export the mask again or remove the pair"
        )
    _remark_places(image, mask)
    codes = [_orientation(path) for path in (image, mask)]
    if None in codes:
        codes = [_loaded_axes(path) for path in (image, mask)]
        if None not in codes and codes[0] != codes[1]:
            raise InputError(
                f"{mask}: its axes lie {''.join(codes[1] or ())} when read, those of {image.name} "
                f"{''.join(codes[0] or ())}; convert the series to NIfTI, or resample the mask"
            )
    elif codes[0] != codes[1]:
        raise InputError(
            f"{mask}: its axes point to {''.join(codes[1] or ())}, those of {image.name} to "
            f"{''.join(codes[0] or ())}; copy the image's affine into the mask or resample it"
        )


def _remark_places(image: Path, mask: Path) -> None:
    """Remarks NIfTI files of the same shape at different positions of the patient."""
    if not all(path.name.lower().endswith(NIFTI) for path in (image, mask)):
        return
    nib = library("nibabel", "medical", mask)
    affines = [np.asarray(nib.load(path).affine) for path in (image, mask)]
    steps = [np.linalg.norm(affine[:3, :3], axis=0) for affine in affines]
    legal = "legal: voxels are paired by their numbers; copy the image's affine if that is right"
    if not np.allclose(steps[0], steps[1], rtol=1e-3, atol=1e-6):
        texts = [" x ".join(f"{step:.4g}" for step in each) for each in steps]
        what = f"has voxels of {texts[1]}, but {image.name} of {texts[0]}"
        remark(mask, "other voxel size", what, legal)
        return
    if not np.allclose(affines[0][:3, 3], affines[1][:3, 3], atol=0.1 * float(steps[0].min())):
        texts = [", ".join(f"{place:.4g}" for place in affine[:3, 3]) for affine in affines]
        what = f"has its origin at {texts[1]}, but {image.name} at {texts[0]}"
        remark(mask, "other origin", what, legal)
    elif not np.allclose(affines[0][:3, :3], affines[1][:3, :3], atol=0.01 * float(steps[0].max())):
        remark(mask, "other axes", f"is turned a little against {image.name}", legal)


def load(path: Path, role: Role = "image") -> NDArray:
    """All values of a file, kept in memory for the last few files.

    NIfTI becomes ``(z, y, x)`` with x to the left, y to the back and z to the head, as the patient
    lies in an axial DICOM series; a fourth axis holds channels. DICOM is in its rescaled units.

    Raises:
        InputError: The library that reads it is missing, or it is not a single image or volume.
        OSError: It cannot be read; other usual error types occur too.
    """
    with quiet():
        return _loaded(path, role, path.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _loaded(path: Path, role: Role, modified: int) -> NDArray:
    name = path.name.lower()
    if name.endswith(NIFTI):
        array = _nifti(path)
    elif name.endswith(NUMPY):
        array = _numpy(path, role)
    else:
        array = read_dicom(path)
        array = array if role == "image" else np.ma.getdata(array)
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _windows(path: Path) -> list[tuple[float, float] | None]:
    """The DICOM window of each image of a file or series; empty for other files."""
    if path.name.lower().endswith((*NIFTI, *NUMPY)):
        return []
    with quiet():
        return _windows_of(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _windows_of(path: Path, modified: int) -> list[tuple[float, float] | None]:
    return windows_of(path)


def shape_of(path: Path, role: Role) -> tuple[int, ...]:
    """The shape that :func:`load` returns, from the header if possible.

    Raises:
        InputError: See :func:`load`; or the file cannot be read.
    """
    try:
        if path.name.lower().endswith(NIFTI):
            with quiet():
                image, change = _opened(path)
            stored = list(_nifti_shape(image))
            stored += [len(names)] if (names := image.get_data_dtype().names) else []
            turned = [stored[list(change[:, 0]).index(i)] for i in range(min(3, len(stored)))]
            return (*turned[::-1], *stored[3:])
        if path.suffix.lower() == ".npy":
            return tuple(mapped(path).shape)
        return tuple(load(path, role).shape)
    except InputError:
        raise
    except Exception as error:  # readers raise many types of errors
        reason = " ".join(str(error).split()).replace(str(path), "the file")[:200]
        raise InputError(
            f"{path}: cannot be read ({reason or type(error).__name__}); replace the file, or "
            "remove it and its partner, if it has one"
        ) from error


def partly_read(images: Iterable[Path | Stored]) -> list[tuple[Path, int, int]]:
    """The NIfTI files among images of which some channels are not read, if no bands are chosen.

    Args:
        images: Files, and slices of volumes.

    Returns:
        Each file with the number of its channels and of those that are read.
    """
    paths = {each.path for each in images if isinstance(each, Slice)}
    nifti = sorted(path for path in paths if path.name.lower().endswith(NIFTI))
    shapes = [(path, shape_of(path, "image")) for path in nifti]
    return [(path, n[3], n[3] - 1) for path, n in shapes if len(n) == 4 and n[3] in (2, 4)]


def _opened(path: Path) -> tuple[Any, NDArray]:
    """A NIfTI file, and the permutation of axes that makes them point left, back and up."""
    nib = library("nibabel", "medical", path)
    image = nib.load(path)
    if len(_nifti_shape(image)) > 4:
        raise InputError(
            f"{path}: has the axes {tuple(image.shape)}; a volume has three, and a fourth for "
            "channels"
        )
    orientation = nib.orientations
    to = orientation.axcodes2ornt(("L", "P", "S"))
    return image, orientation.ornt_transform(orientation.io_orientation(image.affine), to)


def _nifti_shape(image: Any) -> tuple[int, ...]:
    """Three axes, and a fourth if it has several channels; further axes of one are dropped."""
    shape = [int(n) for n in image.shape]
    inner, outer = [*shape[:3], 1, 1][: max(3, len(shape[:3]))], shape[3:]
    return (*inner, *(n for n in outer if n != 1))


def _nifti(path: Path) -> NDArray:
    image, change = _opened(path)
    nib = library("nibabel", "medical", path)
    array = np.asanyarray(image.dataobj)
    if array.dtype.names:  # colours
        array = np.stack([array[name] for name in array.dtype.names], axis=-1)
        array = array.reshape(*_nifti_shape(image), array.shape[-1])
    else:
        array = array.reshape(_nifti_shape(image))
    array = nib.orientations.apply_orientation(array, change)
    return np.moveaxis(array, [0, 1, 2], [2, 1, 0])


def as_stored_nifti(path: Path, volume: NDArray) -> tuple[NDArray, NDArray, Any]:
    """A volume of :func:`load`'s axes as a NIfTI file has it, with its affine and header.

    Args:
        path: The NIfTI file that was loaded.
        volume: ``(z, y, x)``, as large as that.
    """
    nib = library("nibabel", "medical", path)
    with quiet():
        image, _ = _opened(path)
    orientation = nib.orientations
    here = orientation.axcodes2ornt(_TURNED)
    back = orientation.ornt_transform(here, orientation.io_orientation(image.affine))
    stored = orientation.apply_orientation(np.moveaxis(volume, [0, 1, 2], [2, 1, 0]), back)
    header = image.header.copy() if isinstance(image.header, nib.nifti1.Nifti1Header) else None
    return np.ascontiguousarray(stored), image.affine, header


def _orientation(path: Path) -> tuple[str, ...] | None:
    if not path.name.lower().endswith(NIFTI):
        return None
    nib = library("nibabel", "medical", path)
    return tuple(nib.aff2axcodes(nib.load(path).affine))


def _loaded_axes(path: Path) -> tuple[str, ...] | None:
    """The directions of x, y and z of the values that :func:`load` returns; ``None`` if unknown."""
    if path.name.lower().endswith(NIFTI):
        return _TURNED
    said = orientation_of_series(path)
    if said is None:
        return None
    x, y = said
    axes = np.stack([x, y, np.cross(x, y)])
    nearest = np.abs(axes).argmax(1).tolist()
    return tuple(_TOWARDS[int(axes[i, at] < 0)][at] for i, at in enumerate(nearest))


def _numpy(path: Path, role: Role) -> NDArray:
    if path.suffix.lower() == ".npy":
        return mapped(path)
    with Archive(path) as archive:
        names = archive.names
        key = names[0] if len(names) == 1 else next((k for k in _KEYS[role] if k in names), None)
        if key is None:
            raise InputError(
                f"{path}: holds the arrays {', '.join(names) or 'none'}; name one of them "
                f"{' or '.join(_KEYS[role])}"
            )
        return archive[key]
