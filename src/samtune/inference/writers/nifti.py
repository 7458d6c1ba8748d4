"""NIfTI: a label volume for each volume, in its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from samtune.data import Record
from samtune.data.volumes import NIFTI, Slice, as_stored_nifti, stem_of
from samtune.errors import InputError
from samtune.inference.formats import WRITERS
from samtune.inference.volume_writers import VolumeWriter


@WRITERS.register("nifti")
class Nifti(VolumeWriter):
    """1 where any mask is, or the class of each voxel, with the source's affine and axes."""

    about = "3D Slicer, ITK-SNAP, MONAI: nifti/NAME.nii.gz, all slices of a volume in one"
    needs = ("nibabel",)
    extra = "medical"

    def check_one(self, record: Record) -> None:
        """Refuses what is no NIfTI file."""
        if not record.file.name.lower().endswith(NIFTI) or not isinstance(record.image, Slice):
            raise InputError(
                f"--as nifti: {record.file} is no NIfTI file; give .nii or .nii.gz files, or use "
                "--as png"
            )

    def write_volume(self, record: Record, volume: NDArray[np.integer], folder: Path) -> None:
        """Writes ``NAME.nii.gz`` with the affine, the axes and the units of the source."""
        import nibabel as nib

        stored, affine, header = as_stored_nifti(record.file, volume)
        place = folder / Path(str(record.group)).parent / f"{stem_of(record.file)}.nii.gz"
        place.parent.mkdir(parents=True, exist_ok=True)
        image = nib.nifti1.Nifti1Image(stored, affine, header)
        image.header.set_slope_inter(1, 0)
        image.set_data_dtype(volume.dtype)
        nib.save(image, place)
