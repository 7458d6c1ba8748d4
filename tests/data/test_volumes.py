import os
import pickle

import numpy as np
import pytest

from samtune.data import (
    DataConfig,
    find_images,
    read_image,
    read_mask,
    read_sample,
    scan,
    splits,
)
from samtune.data.layouts.base import find, layout_of
from samtune.data.pictures import pictures_in
from samtune.data.problems import remarks
from samtune.data.volumes import load, partly_read, shape_of, stem_of
from samtune.geometry import InputPolicy
from samtune.inference.remarks import Counts, remarks_of

VALUES = np.random.default_rng(0).integers(0, 255, (5, 12, 16)).astype(np.uint8)
MASK = np.zeros((5, 12, 16), np.uint8)
MASK[2, 3:8, 4:11] = 1


def array(path, values, **named):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        np.savez(path, values) if not named else np.savez(path, **named)
    else:
        np.save(path, values)


def nifti(path, values, affine=None):
    nib = pytest.importorskip("nibabel")
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) if affine is None else affine
    nib.save(nib.Nifti1Image(np.moveaxis(values, [0, 1, 2], [2, 1, 0]), affine), path)


def dicom(folder, values, slope=1, order=None, **changes):
    """A series of 16 bit slices, of which the names say nothing about the order."""
    pydicom = pytest.importorskip("pydicom")
    folder.mkdir(parents=True, exist_ok=True)
    for i, plane in enumerate(values):
        meta = pydicom.dataset.FileMetaDataset()
        meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
        meta.MediaStorageSOPInstanceUID = f"1.2.{i + 1}"
        part = pydicom.Dataset()
        part.file_meta = meta
        part.SOPClassUID, part.SOPInstanceUID = pydicom.uid.CTImageStorage, f"1.2.{i + 1}"
        part.SeriesInstanceUID = "1.2.3"
        part.Rows, part.Columns = plane.shape
        part.SamplesPerPixel, part.PhotometricInterpretation = 1, "MONOCHROME2"
        part.BitsAllocated = part.BitsStored = 16
        part.HighBit, part.PixelRepresentation = 15, 0
        part.ImagePositionPatient = [0, 0, 2.5 * i]
        part.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        part.InstanceNumber = i + 1
        part.RescaleSlope, part.RescaleIntercept = slope, -1000 if slope != 1 else 0
        part.PixelData = plane.astype(np.uint16).tobytes()
        for key, value in changes.items():
            delattr(part, key) if value is None else setattr(part, key, value)
        part.save_as(folder / f"{(7 * i) % 5}.dcm", enforce_file_format=True)


@pytest.fixture(params=["npy", "npz", "nii.gz", "nii", "dcm"])
def volumes(request, tmp_path):
    """Three volumes with masks in plain folders, in each format."""
    for i in range(3):
        if request.param == "dcm":
            dicom(tmp_path / f"images/v{i}", VALUES)
            nifti(tmp_path / f"masks/v{i}.nii.gz", MASK)
        else:
            write = nifti if "nii" in request.param else array
            write(tmp_path / f"images/v{i}.{request.param}", VALUES)
            write(tmp_path / f"masks/v{i}_mask.{request.param}", MASK)
    return tmp_path


def test_slices_of_plain_folders(volumes):
    assert layout_of(volumes).name == "folders"
    config = DataConfig(root=str(volumes), masks="binary", intensity="fixed", range=(0.0, 255.0))
    parts = splits(config)
    assert {k: len(v) for k, v in parts.items()} == {"train": 5, "val": 5, "test": 5}
    record = next(r for r in parts["train"] if r.name.endswith("_0002"))
    assert record.group == record.name[:2] == stem_of(record.file)
    sample = read_sample(record, config)
    np.testing.assert_array_equal(sample.image[..., 0], VALUES[2])
    np.testing.assert_array_equal(sample.labels.map, MASK[2])
    assert scan(parts["train"], config).objects == 1
    assert pickle.loads(pickle.dumps(record)) == record
    across = splits(DataConfig(root=str(volumes), slice_axis=2))["train"]
    assert len(across) == 16
    np.testing.assert_array_equal(read_mask(across[5].mask), MASK[:, :, 5])


def test_nifti_is_turned_to_left_back_head(tmp_path):
    nifti(tmp_path / "turned.nii", VALUES[:, ::-1, ::-1], np.diag([1.0, 1.0, 2.0, 1.0]))
    np.testing.assert_array_equal(load(tmp_path / "turned.nii"), VALUES)
    channels = np.stack([VALUES, 255 - VALUES], axis=-1)
    nifti(tmp_path / "two.nii", channels)
    np.testing.assert_array_equal(load(tmp_path / "two.nii"), channels)
    images = find_images(tmp_path / "two.nii", InputPolicy((8, 8), bands=(1,)))
    assert len(images) == 5
    assert images[0].image.read().shape == (12, 16, 2)


def test_channels_of_a_volume_that_are_not_read_are_told(tmp_path):
    for channels in (2, 3, 4):
        nifti(tmp_path / f"{channels}.nii", np.zeros((2, 4, 5, channels), np.int16))
    records = pictures_in(str(tmp_path)).records
    parts = partly_read(each.image for each in records)
    assert [(path.name, *counts) for path, *counts in parts] == [("2.nii", 2, 1), ("4.nii", 4, 3)]
    lines = remarks_of([], len(records), Counts(partly_read=parts), [])
    assert len(records) == 6 and "has 4 channels, and the first 3 are read" in lines[1]


def test_axes_of_one_and_planes_of_nifti(tmp_path):
    nib = pytest.importorskip("nibabel")
    stored = np.moveaxis(VALUES, [0, 1, 2], [2, 1, 0])
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    for i, ones in enumerate([(), (1,), (1, 1), (1, 1, 1)]):
        nib.save(
            nib.Nifti1Image(stored.reshape(stored.shape + ones), affine), tmp_path / f"{i}.nii"
        )
        np.testing.assert_array_equal(load(tmp_path / f"{i}.nii"), VALUES)
        assert len(find_images(tmp_path / f"{i}.nii")) == 5
    vector = np.stack([stored, stored], -1)[:, :, :, None]
    nib.save(nib.Nifti1Image(vector, affine), tmp_path / "v.nii")
    np.testing.assert_array_equal(load(tmp_path / "v.nii")[..., 1], VALUES)
    nib.save(nib.Nifti1Image(stored[..., 0], affine), tmp_path / "flat.nii")
    np.testing.assert_array_equal(load(tmp_path / "flat.nii"), VALUES[:1])
    colours = np.zeros(stored.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    colours["G"] = stored
    nib.save(nib.Nifti1Image(colours, affine), tmp_path / "rgb.nii")
    records = find_images(tmp_path / "rgb.nii")
    np.testing.assert_array_equal(read_image(records[2].image)[..., 1], VALUES[2])


@pytest.mark.parametrize(
    ("change", "kind"),
    [(None, None), ((0, 3), "other origin"), ((0, 0), "other voxel size"), ((0, 1), "other axes")],
)
def test_places_that_differ_are_remarked(tmp_path, change, kind):
    affine = np.diag([-1.0, -1.0, 2.0, 1.0])
    nifti(tmp_path / "images/a.nii.gz", VALUES, affine)
    if change:
        affine = affine.copy()
        affine[change] += 7 if kind == "other origin" else -0.2
    if kind == "other axes":
        affine[1, 0] -= -0.2
        affine[:3, :2] /= np.linalg.norm(affine[:3, :2], axis=0)
    nifti(tmp_path / "masks/a.nii.gz", MASK, affine)
    with remarks() as notes:
        find(DataConfig(root=str(tmp_path)))
    assert [note.kind for note in notes] == ([kind] if kind else [])


def test_dicom_in_its_units_and_order(tmp_path):
    dicom(tmp_path / "ct", VALUES, slope=2)
    np.testing.assert_array_equal(load(tmp_path / "ct"), VALUES * 2.0 - 1000)
    dicom(tmp_path / "plain", VALUES, ImagePositionPatient=None)
    np.testing.assert_array_equal(load(tmp_path / "plain"), VALUES)
    dicom(tmp_path / "negative", VALUES, PhotometricInterpretation="MONOCHROME1")
    assert load(tmp_path / "negative")[0].argmax() == VALUES[0].argmin()
    single = read_image(tmp_path / "plain/0.dcm", InputPolicy((8, 8), intensity="zscore"))
    assert single.shape == (12, 16, 3)


def test_arrays_that_are_one_image(tmp_path):
    for i in range(3):
        array(tmp_path / f"images/{i}.npy", np.moveaxis(VALUES, 0, -1))
        array(tmp_path / f"masks/{i}.npy", MASK[2])
    config = DataConfig(root=str(tmp_path), bands=(4, 0, 1))
    parts = splits(config)
    assert [len(parts[s]) for s in ("train", "val", "test")] == [1, 1, 1]
    image = read_sample(parts["train"][0], config).image
    np.testing.assert_array_equal(image[..., 1], VALUES[0])
    np.testing.assert_array_equal(read_image(tmp_path / "masks/0.npy")[..., 0], MASK[2])


def test_images_to_predict_on(volumes):
    found = find_images(volumes / "images", InputPolicy((8, 8), slice_axis=1))
    assert len(found) == 36
    assert (found[0].name, found[-1].name) == ("v0_0000", "v2_0011")
    single = find_images(sorted((volumes / "images").iterdir())[0])
    assert len(single) == 5


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_is_no_array(tmp_path, refused):
    os.mkfifo(tmp_path / "a.npy")
    refused(["a.npy", "not a file"], shape_of, tmp_path / "a.npy", "image")


def test_archives_by_key(tmp_path, refused):
    array(tmp_path / "images/a.npz", None, image=VALUES, label=MASK)
    array(tmp_path / "masks/a.npz", None, image=VALUES, label=MASK)
    images = find_images(tmp_path / "images")
    np.testing.assert_array_equal(images[2].image.read(), VALUES[2])
    np.testing.assert_array_equal(load(tmp_path / "masks/a.npz", "mask"), MASK)
    array(tmp_path / "b.npz", None, x=VALUES, y=MASK)
    refused(["b.npz", "x, y", "image or img"], find_images, tmp_path / "b.npz")


def test_volumes_that_do_not_fit(tmp_path, refused, save_image, make_blob):
    config = DataConfig(root=str(tmp_path))
    array(tmp_path / "images/a.npy", VALUES)
    array(tmp_path / "masks/a.npy", MASK)
    refused(["a.npy", "only volume", "add volumes"], splits, config)
    array(tmp_path / "masks/a.npy", MASK[:4])
    refused(["a.npy", "(4, 12, 16)", "(5, 12, 16)"], splits, config)
    (tmp_path / "masks/a.npy").unlink()
    save_image(tmp_path / "masks/a.png", make_blob())
    refused(["a.png", "is a picture", "same format"], splits, config)
    array(tmp_path / "flat.npy", VALUES[0, 0])
    refused(["flat.npy", "(16,)", "(slices, height, width)"], find_images, tmp_path / "flat.npy")
    refused(["data.slice_axis=3", "0, 1 or 2"], find_images, tmp_path / "images/a.npy",
            InputPolicy((8, 8), slice_axis=3))  # fmt: skip
    (tmp_path / "bad.npy").write_bytes(b"no array")
    refused(["bad.npy", "cannot be read", "replace"], find_images, tmp_path / "bad.npy")


def test_series_that_do_not_fit(tmp_path, refused):
    dicom(tmp_path / "two", VALUES[:2])
    dicom(tmp_path / "two", VALUES[:1], SeriesInstanceUID="1.2.4")
    refused([tmp_path / "two", "2 series", "its own folder"], find_images, tmp_path / "two")
    dicom(tmp_path / "sizes", VALUES[:2])
    dicom(tmp_path / "sizes", VALUES[:1, :5])
    refused([tmp_path / "sizes", "(5, 16)", "(12, 16)"], find_images, tmp_path / "sizes")
    dicom(tmp_path / "lost", VALUES[:2], ImagePositionPatient=None, InstanceNumber=None)
    refused([tmp_path / "lost", "position", "order"], find_images, tmp_path / "lost")


@pytest.mark.parametrize(("library", "name"), [("nibabel", "a.nii.gz"), ("pydicom", "a.dcm")])
def test_a_missing_library_is_named(tmp_path, monkeypatch, refused, library, name):
    monkeypatch.setitem(__import__("sys").modules, library, None)
    (tmp_path / name).write_bytes(b"")
    refused([name, library, "samtune[medical]"], find_images, tmp_path / name)


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ([0.99, 0.1, 0, -0.1, 0.99, 0], None),  # oblique, but an axial series
        ([-1, 0, 0, 0, 1, 0], "RPI"),
        ([1, 0, 0, 0, 0, -1], "LIP"),
    ],
)
def test_a_series_must_lie_as_its_nifti_mask(tmp_path, refused, axes, said):
    """NIfTI is turned to LPS, a series is read as it lies: of equal shape both would be paired."""
    for i in range(3):
        dicom(tmp_path / f"images/v{i}", VALUES, ImageOrientationPatient=axes)
        nifti(tmp_path / f"masks/v{i}.nii.gz", MASK)
    config = DataConfig(root=str(tmp_path), masks="binary")
    if said is None:
        assert len(splits(config)["train"]) == 5
    else:
        refused(["v0.nii.gz", "LPS", said, "resample"], splits, config)


@pytest.mark.parametrize("kind", ["complex64", "U3", "datetime64[s]"])
def test_values_that_are_no_real_numbers_are_refused(tmp_path, refused, kind):
    file = tmp_path / "a.npy"
    np.save(file, np.zeros((8, 8), kind))
    refused(["a.npy", "the image holds values of type", "real numbers"], read_image, file)
    refused(["a.npy", "the mask holds values of type", "real numbers"], read_mask, file)
