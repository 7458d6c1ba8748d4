import json

import numpy as np
import pytest

from samtune.data import DataConfig, read_image, read_sample, scan, splits
from samtune.data.layouts.base import layout_of

nib = pytest.importorskip("nibabel")
LABELS = {"background": 0, "liver": 1, "tumour": 2}


def volume(path, values):
    """A volume given as (z, y, x), stored as NIfTI keeps an axial one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([-1.0, -1.0, 2.0, 1.0])
    nib.save(nib.Nifti1Image(np.ascontiguousarray(values.T), affine), path)


@pytest.fixture
def write(tmp_path):
    """Writes cases of five slices of 12 x 16, labelled in two of them: write(cases=, ...)."""

    def make(cases=("a", "b", "c"), channels=("CT",), labels=LABELS, part="Tr"):
        for k, case in enumerate(cases):
            rng = np.random.default_rng(k)
            for i in range(len(channels)):
                values = rng.integers(-1000, 1000, (5, 12, 16)).astype(np.int16)
                volume(tmp_path / f"images{part}/{case}_{i:04d}.nii.gz", values)
            mask = np.zeros((5, 12, 16), np.uint8)
            mask[2, 3:8, 4:11], mask[3, 1:3, 2:5] = 1, 2
            volume(tmp_path / f"labels{part}/{case}.nii.gz", mask)
        names = {str(i): name for i, name in enumerate(channels)}
        tree = {"channel_names": names, "labels": labels, "file_ending": ".nii.gz"}
        (tmp_path / "dataset.json").write_text(json.dumps(tree))
        return tmp_path

    return make


def test_slices_with_classes_of_the_file(write, record_of, completed):
    root = write()
    assert layout_of(root).name == "nnunet"
    record, config = record_of(root, "b_0002")
    assert (config.masks, config.classes, config.background) == ("classes", 3, 0)
    assert config.class_names == ("background", "liver", "tumour")
    sample = read_sample(record, config)
    assert sample.image.shape == (12, 16, 3)
    assert sample.labels.classes.tolist() == [1]
    np.testing.assert_array_equal(np.argwhere(sample.labels.map).min(0), [3, 4])
    parts = splits(config)
    assert {k: len(v) for k, v in parts.items()} == {"train": 5, "val": 5, "test": 5}
    cases = [{r.group for r in records} for records in parts.values()]
    assert len(set.union(*cases)) == sum(map(len, cases)) == 3
    assert scan(parts["train"], config).class_objects == {1: 1, 2: 1}


def test_empty_slices_are_left_out_of_training(write, completed):
    parts = splits(completed(write(), empty_slices="drop"))
    assert {k: len(v) for k, v in parts.items()} == {"train": 2, "val": 5, "test": 5}
    assert [r.name[-4:] for r in parts["train"]] == ["0002", "0003"]


def test_another_axis_and_a_test_part(write, completed):
    root = write()
    write(["t"], part="Ts")
    parts = splits(completed(root, slice_axis=2))
    assert [len(parts[s]) for s in ("train", "val", "test")] == [32, 16, 16]
    assert read_image(parts["test"][0].image).shape == (5, 12, 3)
    assert {r.group for r in parts["test"]} == {"t"}


def test_channels_are_chosen(write, completed, record_of, refused):
    root = write(channels=("T1", "T2", "FLAIR", "T1c"))
    refused(["T1, T2, FLAIR, T1c", "data.bands"], splits, completed(root))
    record, config = record_of(root, "a_0001", bands=(3, 0, 1))
    image = read_sample(record, config).image
    for band, channel in enumerate((3, 0, 1)):
        own, _ = record_of(root, "a_0001", bands=(channel,))
        np.testing.assert_array_equal(image[..., band], read_sample(own, _).image[..., 0])


def test_pictures(tmp_path, save_image, make_picture, make_blob, completed):
    for i in range(4):
        save_image(tmp_path / f"imagesTr/c{i}_0000.png", make_picture(seed=i))
        save_image(tmp_path / f"labelsTr/c{i}.png", make_blob(value=1))
    tree = {
        "channel_names": {"0": "R", "1": "G", "2": "B"},
        "labels": {"background": 0, "road": 1, "ignore": 2},
        "file_ending": ".png",
    }
    (tmp_path / "dataset.json").write_text(json.dumps(tree))
    config = completed(tmp_path)
    assert (config.ignore, config.classes) == (2, 2)
    parts = splits(config)
    found = read_sample(parts["train"][0], config)
    i = int(found.name[1:])
    np.testing.assert_array_equal(found.image, make_picture(seed=i))
    assert found.labels.classes.tolist() == [1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": {"background": 0, "whole": [1, 2]}}, ["regions (whole)", "one value"]),
        ({"labels": {"background": 0, "tumour": 2}}, ["[0, 2]", "count from 0"]),
        ({"file_ending": None}, ["lacks file_ending", "nnUNetv2_convert_old_nnUNet_dataset"]),
    ],
)
def test_wrong_settings(write, completed, refused, change, words):
    root = write()
    tree = json.loads((root / "dataset.json").read_text()) | change
    tree = {key: value for key, value in tree.items() if value is not None}
    (root / "dataset.json").write_text(json.dumps(tree))
    refused([root / "dataset.json", *words], completed, root)


def test_wrong_files(write, completed, refused):
    root = write(channels=("A", "B"))
    config = completed(root, bands=(0,))
    (root / "imagesTr/b_0001.nii.gz").unlink()
    refused(["b_0000.nii.gz", "has 1 channels", "names 2"], splits, config)
    (root / "imagesTr/c_0000.nii.gz").unlink()
    refused(["c_0001.nii.gz", "channel 0000", "missing"], splits, config)
    (root / "imagesTr/c_0001.nii.gz").unlink()
    refused(["imagesTr", "1 case(s) (c)"], splits, config)
    (root / "labelsTr/b.nii.gz").unlink()
    refused(["labelsTr", "1 case(s) (b)"], splits, config)
    (root / "imagesTr/b_0000.nii.gz").rename(root / "imagesTr/b.nii.gz")
    refused(["b.nii.gz", "channel number", "b_0000.nii.gz"], splits, config)
    (root / "dataset.json").write_text("{")
    refused([root / "dataset.json", "not readable"], splits, config)
    (root / "dataset.json").unlink()
    refused([root, "dataset.json"], splits, DataConfig(root=str(root), layout="nnunet"))


def test_mask_of_another_shape_or_orientation(write, completed, refused):
    root = write()
    path = root / "labelsTr/b.nii.gz"
    volume(path, np.zeros((4, 12, 16), np.uint8))
    refused([path, "(4, 12, 16)", "(5, 12, 16)", "export"], splits, completed(root))
    nib.save(nib.Nifti1Image(np.zeros((16, 12, 5), np.uint8), np.eye(4)), path)
    refused([path, "RAS", "LPS", "affine"], splits, completed(root))
    path.write_bytes(b"nothing")
    refused([path, "cannot be read", "replace"], splits, completed(root))
