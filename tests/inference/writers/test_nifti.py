import numpy as np
import pytest
from predictions import H, W, predicted, shapes, written

from samtune.data.pictures import find_images
from samtune.data.volumes import load
from samtune.geometry import InputPolicy
from samtune.report.classes import Classes

nib = pytest.importorskip("nibabel")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

AFFINES = {
    "plain": np.diag([-1.5, -2, 3, 1]),
    "turned": np.array([[0, 0, 2.0, 5], [-1.5, 0, 0, 6], [0, 1.2, 0, 7], [0, 0, 0, 1]]),
}


def scan(path, affine, axis=0):
    """The slices of a volume that is made, whose planes are ``H x W`` along an axis."""
    turned = np.zeros(np.insert([H, W], axis, 5), np.int16)  # z, y, x
    turned[:] = np.random.default_rng(0).integers(0, 900, turned.shape)
    to = nib.orientations.axcodes2ornt("LPS")
    change = nib.orientations.ornt_transform(to, nib.io_orientation(affine))
    stored = nib.orientations.apply_orientation(turned.transpose(2, 1, 0), change)
    image = nib.Nifti1Image(stored, affine)
    image.header.set_slope_inter(2, 1)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)
    return find_images(path, InputPolicy((64, 64), slice_axis=axis))


@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize("name", AFFINES)
def test_slices_are_joined_to_a_volume_in_the_place_of_the_source(tmp_path, name, axis):
    records = scan(tmp_path / "scan.nii.gz", AFFINES[name], axis)
    masks = [shapes()["disc"], shapes()["two"], shapes()["ring"], shapes()["disc"]]
    results = [predicted(r, [m]) for r, m in zip(records, [*masks, masks[1]], strict=True)]
    folder, troubles = written("nifti", results, tmp_path)
    assert troubles == []
    source, labels = nib.load(tmp_path / "scan.nii.gz"), nib.load(folder / "scan.nii.gz")
    assert labels.shape == source.shape and np.array_equal(labels.affine, source.affine)
    assert labels.get_data_dtype() == np.uint8
    assert labels.header.get_xyzt_units() == source.header.get_xyzt_units()
    assert set(np.unique(labels.get_fdata())) == {0, 1}  # no slope of the source's
    for i, mask in enumerate([*masks, masks[1]]):
        assert np.array_equal(np.take(load(folder / "scan.nii.gz"), i, axis), mask)


def test_classes_keep_their_numbers_and_a_volume_without_a_slice_is_listed(tmp_path):
    records = scan(tmp_path / "scan.nii.gz", AFFINES["plain"])
    maps = [~shapes()["disc"], shapes()["disc"], np.zeros((H, W), bool)]
    results = [predicted(record, maps, classes=True) for record in records]
    classes = Classes(("back", "liver", "cyst"), 0)
    folder, _ = written("nifti", results, tmp_path, classes)
    assert np.array_equal(load(folder / "scan.nii.gz")[3], shapes()["disc"])


def test_a_volume_of_which_a_slice_failed_is_listed(tmp_path, refused):
    from samtune.inference.formats import WRITERS, Task

    records = scan(tmp_path / "scan.nii.gz", AFFINES["plain"])
    writer = WRITERS["nifti"](Task("scan", InputPolicy((64, 64))))
    writer.check(records)
    (trouble,) = writer.write([predicted(r, []) for r in records[1:]], tmp_path)
    assert "1 of its 5 slices failed" in str(trouble[1])
    np.save(tmp_path / "a.npy", np.zeros((9, 9), np.uint8))
    other = find_images(tmp_path / "a.npy")
    assert "is no NIfTI file" in refused("--as nifti", writer.check, other)
