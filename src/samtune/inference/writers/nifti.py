"""NIfTI: a label volume for each volume, in its place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from samtune.data import Record
from samtune.data.volumes import NIFTI, Slice, as_stored_nifti, shape_of, stem_of
from samtune.errors import InputError
from samtune.inference.formats import WRITERS, Predicted, Task, Trouble, Writer


@WRITERS.register("nifti")
class Nifti(Writer):
    """1 where any mask is, or the class of each voxel, with the source's affine and axes."""

    about = "3D Slicer, ITK-SNAP, MONAI: nifti/NAME.nii.gz, all slices of a volume in one"
    needs = ("nibabel",)
    extra = "medical"

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._counts: dict[Path, int] = {}

    def check(self, records: Sequence[Record]) -> None:
        """Refuses what is no NIfTI file."""
        for record in records:
            if not record.file.name.lower().endswith(NIFTI) or not isinstance(record.image, Slice):
                raise InputError(
                    f"--as nifti: {record.file} is no NIfTI file; give .nii or .nii.gz files, or "
                    "use --as png"
                )
            self._counts[record.file] = self._counts.get(record.file, 0) + 1

    def write(self, results: Iterable[Predicted], folder: Path) -> Iterator[Trouble]:
        """Writes each volume of which all slices are there."""
        for file, group in groupby(results, lambda result: result.record.file):
            slices = [(result, result.labels()) for result in group]
            lost = self._counts[file] - len(slices)
            if lost:
                error = InputError(
                    f"{file}: {lost} of its {self._counts[file]} slices failed, so its volume is "
                    "not written"
                )
                yield slices[0][0], error
                continue
            self._write_volume(file, slices, folder)

    def _write_volume(
        self, file: Path, slices: Sequence[tuple[Predicted, NDArray[np.integer]]], folder: Path
    ) -> None:
        import nibabel as nib

        first = slices[0][0].record
        kind = np.result_type(*(labels.dtype for _, labels in slices))
        volume = np.zeros(shape_of(file, "image")[:3], kind)
        for result, labels in slices:
            part = result.record.image
            assert isinstance(part, Slice)
            at: list[slice | int] = [slice(None)] * 3
            at[part.axis] = part.index
            volume[tuple(at)] = labels
        stored, affine, header = as_stored_nifti(file, volume)
        place = folder / Path(str(first.group)).parent / f"{stem_of(file)}.nii.gz"
        place.parent.mkdir(parents=True, exist_ok=True)
        image = nib.nifti1.Nifti1Image(stored, affine, header)
        image.header.set_slope_inter(1, 0)
        image.set_data_dtype(kind)
        nib.save(image, place)
