"""DICOM-SEG: a segmentation object for each series, which refers to its images."""

from __future__ import annotations

import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samtune.data import Record
from samtune.data.dicom import is_dicom, source_images
from samtune.errors import InputError
from samtune.inference.formats import WRITERS
from samtune.inference.volume_writers import VolumeWriter


@WRITERS.register("dicom-seg")
class DicomSeg(VolumeWriter):
    """A segment for each class but the background, in the patient and study of the source."""

    about = "PACS, OHIF, 3D Slicer: dicom-seg/NAME.dcm, which refers to the images of its series"
    needs = ("highdicom", "pydicom")
    extra = "dicom-seg"

    def check_one(self, record: Record) -> None:
        """Refuses what is no DICOM file or series."""
        file = record.file
        series = file.is_dir() and any(is_dicom(each) for each in file.iterdir())
        if not series and not is_dicom(file):
            raise InputError(
                f"--as dicom-seg: {file} is no DICOM; give a series' folder or its files, or use "
                "--as png"
            )

    def write_volume(self, record: Record, volume: NDArray[np.integer], folder: Path) -> None:
        """Writes ``NAME.dcm``; segments have numbers from 1 in the order of the classes."""
        sources, order = source_images(record.file)
        categories = [1 if value is None else value for value in self.task.categories]
        segments = np.zeros(volume.shape, np.uint8 if len(categories) < 256 else np.uint16)
        for number, value in enumerate(categories, 1):
            segments[volume == value] = number
        stored = np.empty_like(segments)
        stored[order] = segments  # as the source has its frames
        place = folder / f"{record.group or record.name}.dcm"
        place.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # highdicom's, about what sources lack
            try:
                _segmentation(sources, stored, self.task.names).save_as(place)
            except (AttributeError, ValueError, TypeError, KeyError) as error:
                reason = " ".join(str(error).split())
                raise InputError(
                    f"{record.file}: lacks what a DICOM segmentation refers to ({reason}); use "
                    "--as nifti or png"
                ) from error


def _segmentation(sources: list[Any], segments: NDArray[np.integer], names: list[str]) -> Any:
    """A binary segmentation, whose segments are tissue: what it is says only the label."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    method = hd.AlgorithmIdentificationSequence(
        name="samtune", version=version("samtune"), family=codes.DCM.ArtificialIntelligence
    )
    descriptions = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=name[:64],
            segmented_property_category=codes.SCT.Tissue,
            segmented_property_type=codes.SCT.Tissue,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=method,
        )
        for number, name in enumerate(names, 1)
    ]
    return hd.seg.Segmentation(
        source_images=sources,
        pixel_array=segments,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=descriptions,
        series_instance_uid=hd.UID(),
        series_number=1000,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="samtune",
        manufacturer_model_name="samtune",
        software_versions=version("samtune"),
        device_serial_number="0",
        content_label="SAMTUNE",
        series_description="samtune predict",
    )
