import numpy as np
import pytest
from predictions import H, W, pictures, predicted, shapes, written

from samtune.data.pictures import find_images
from samtune.geometry import InputPolicy
from samtune.inference.formats import WRITERS, Task
from samtune.report.classes import Classes

pydicom = pytest.importorskip("pydicom")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def series(folder, count=4, **lacking):
    """A CT series whose files are named against their order."""
    folder.mkdir(parents=True)
    values = np.random.default_rng(0).integers(0, 900, (count, H, W)).astype(np.uint16)
    for i in range(count):
        part = pydicom.Dataset()
        about = {
            "SOPClassUID": pydicom.uid.CTImageStorage, "SOPInstanceUID": f"1.2.3.{i + 1}",
            "StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.9",
            "Modality": "CT", "PatientID": "p", "PatientName": "A^B", "PatientBirthDate": "",
            "PatientSex": "", "StudyDate": "20200101", "StudyTime": "101010", "StudyID": "1",
            "AccessionNumber": "", "ReferringPhysicianName": "", "SeriesNumber": 1,
            "InstanceNumber": i + 1, "Rows": H, "Columns": W, "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16, "BitsStored": 16,
            "HighBit": 15, "PixelRepresentation": 0, "PixelSpacing": [0.7, 0.7],
            "SliceThickness": 2.0, "ImagePositionPatient": [0.0, 0.0, 2.0 * i],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelData": values[i].tobytes(),
        }  # fmt: skip
        for key, value in {**about, **lacking}.items():
            if value is not None:
                setattr(part, key, value)
        part.file_meta = pydicom.dataset.FileMetaDataset()
        part.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        part.file_meta.MediaStorageSOPClassUID = part.SOPClassUID
        part.file_meta.MediaStorageSOPInstanceUID = part.SOPInstanceUID
        part.save_as(folder / f"{count - i}.dcm", enforce_file_format=True)
    return find_images(folder)


def test_segments_refer_to_the_slices_of_their_series(tmp_path):
    hd = pytest.importorskip("highdicom")
    records, masks = series(tmp_path / "ct"), shapes()
    empty = np.zeros((H, W), bool)
    maps = [(masks["disc"], empty), (empty, masks["ring"]), (empty, empty), (masks["two"], empty)]
    results = [
        predicted(record, [~(one | other), one, other], classes=True)
        for record, (one, other) in zip(records, maps, strict=True)
    ]
    folder, troubles = written(
        "dicom-seg", results, tmp_path, Classes(("back", "liver", "cyst"), 0)
    )
    assert troubles == []
    seg = hd.seg.segread(folder / "ct.dcm")
    assert [seg.get_segment_description(n).segment_label for n in (1, 2)] == ["liver", "cyst"]
    assert (seg.PatientID, seg.StudyInstanceUID) == ("p", "1.2")
    uids = [f"1.2.3.{i + 1}" for i in range(4)]
    pixels = seg.get_pixels_by_source_instance(uids, ignore_spatial_locations=True,
                                               assert_missing_frames_are_empty=True)  # fmt: skip
    assert np.array_equal(pixels[..., 0], np.stack([one for one, _ in maps]))
    assert np.array_equal(pixels[..., 1], np.stack([other for _, other in maps]))


def test_an_incomplete_series_and_another_image_are_refused(tmp_path, refused):
    writer = WRITERS["dicom-seg"](Task("scan", InputPolicy((64, 64))))
    other = pictures(tmp_path / "in")
    assert "is no DICOM" in refused("--as dicom-seg", writer.check, other)
    pytest.importorskip("highdicom")
    records = series(tmp_path / "ct", FrameOfReferenceUID=None, ImagePositionPatient=None)
    results = [predicted(record, [shapes()["disc"]]) for record in records]
    _, troubles = written("dicom-seg", results, tmp_path)
    assert "lacks what a DICOM segmentation refers to" in troubles[0]
