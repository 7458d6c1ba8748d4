"""Every published set as its authors pack it, in miniature: splits, first sample, refusals."""

import pickle
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from named_miniatures import MINIATURES, SHOT, bands, blob, coloured, picture, write

from samtune.data import DataConfig, read_sample, select, splits, with_defaults
from samtune.data.named import DATASETS, datasets_table, deviations, list_datasets
from samtune.errors import InputError
from samtune.runs.config import resolve
from samtune.runs.words import recipes


def config(name: str, root: Path, **more):
    """The data settings of a run that names the set and its root."""
    data = {"name": name, "root": str(root), **more}
    maps = DATASETS[name].defaults["masks"] == "classes"
    return resolve([{"data": data, "prompts": {"eval": "box"} if maps else {}}]).data


@pytest.mark.parametrize("packing", MINIATURES)
def test_splits_and_first_sample(tmp_path, packing):
    mini = MINIATURES[packing]
    data = config(mini.name, mini.write(tmp_path))
    found = DATASETS[mini.name].find(tmp_path, data)
    counts = {split or "all": len(records) for split, records in found.items()}
    assert counts == mini.counts
    for records in found.values():
        names = [record.name for record in records]
        assert names == sorted(set(names))
    every = [record for records in found.values() for record in records]
    assert len(set(every)) == len(every)
    assert pickle.loads(pickle.dumps(every)) == every
    for record in (every[0], every[-1]):
        sample = read_sample(record, data)
        assert sample.image.shape == (12, 16, 3)
        assert tuple(sample.labels.classes) == mini.classes
        assert np.count_nonzero(sample.labels.map) == mini.foreground
        valid = sample.labels.valid
        assert (0 if valid is None else np.count_nonzero(~valid)) == mini.ignored


@pytest.mark.parametrize("packing", MINIATURES)
def test_a_partial_download_is_refused(tmp_path, refused, packing):
    mini = MINIATURES[packing]
    data = config(mini.name, mini.write(tmp_path))
    lost = tmp_path / mini.lose
    shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
    message = refused(list(mini.says), DATASETS[mini.name].find, tmp_path, data)
    assert str(tmp_path) in message


@pytest.mark.parametrize("name", DATASETS)
def test_another_folder_is_refused_with_layout_and_address(tmp_path, refused, name):
    (tmp_path / "holiday").mkdir()
    entry = DATASETS[name if name != "cod" else "cod10k"]
    words = ["not a whole copy", entry.title, "missing", entry.layout[0], entry.url]
    refused(words, splits, config(name, tmp_path))


def test_an_empty_folder_is_refused(tmp_path, refused):
    data = config("istd", MINIATURES["istd"].write(tmp_path))
    for path in (tmp_path / "ISTD_Dataset/test/test_A").iterdir():
        path.unlink()
    refused("missing all images in test/test_A", splits, data)


def test_a_missing_validation_split_is_taken_from_training(tmp_path):
    data = config("istd", MINIATURES["istd"].write(tmp_path))
    parts = splits(data)
    assert {split: len(records) for split, records in parts.items()} == {
        "train": 3,
        "val": 1,
        "test": 2,
    }
    assert {r.name for r in parts["val"]} < {f"{i}-1" for i in range(4)}


def test_tests_of_the_joint_set_go_by_the_name_of_each(tmp_path):
    MINIATURES["cod-bundle"].write(tmp_path)
    tests = {}
    for name in ("cod", "cod10k", "camo", "chameleon", "nc4k"):
        parts = splits(config(name, tmp_path))
        tests[name] = [record.name for record in select(parts, "test")]
    assert {name: len(names) for name, names in tests.items()} == {
        "cod": 3, "cod10k": 2, "camo": 1, "chameleon": 2, "nc4k": 3,
    }  # fmt: skip
    assert sorted(tests["cod10k"] + tests["camo"]) == tests["cod"]


def test_the_root_may_be_the_unpacked_folder_itself(tmp_path):
    MINIATURES["istd"].write(tmp_path)
    counts = [
        {split: len(rs) for split, rs in splits(config("istd", root)).items()}
        for root in (tmp_path, tmp_path / "ISTD_Dataset")
    ]
    assert counts[0] == counts[1]


def test_each_third_slice_is_held_out_in_the_order_of_numbers(tmp_path):
    data = config("isbi2012", MINIATURES["isbi2012-slices"].write(tmp_path))
    found = DATASETS["isbi2012"].find(tmp_path, data)
    assert sorted(int(record.name) for record in found["test"]) == [0, 3, 6, 9]


def test_pages_of_the_stack_are_the_slices(tmp_path):
    data = config("isbi2012", MINIATURES["isbi2012-stack"].write(tmp_path))
    records = DATASETS["isbi2012"].find(tmp_path, data)["test"]
    assert [record.name for record in records] == ["slice00", "slice03", "slice06"]
    np.testing.assert_array_equal(read_sample(records[1], data).image[..., 0], picture(3)[..., 0])


def test_windowed_volumes_are_scaled_alike(tmp_path):
    data = config("synapse", MINIATURES["synapse"].write(tmp_path))
    found = DATASETS["synapse"].find(tmp_path, data)
    slices = [read_sample(found[split][0], data).image for split in ("train", "test")]
    np.testing.assert_array_equal(*slices)
    expected = np.clip(np.linspace(-0.1, 1.1, 192) * 255, 0, 255).reshape(12, 16)
    np.testing.assert_allclose(slices[0][..., 0], expected, atol=0.51)
    assert found["test"][2].name == "case0022_slice000"


def test_made_splits_keep_the_slices_of_a_case_together(tmp_path):
    data = config("synapse", MINIATURES["synapse"].write(tmp_path))
    for seed in range(4):
        parts = splits(replace(data, split_seed=seed))
        cases = [{record.group for record in parts[name]} for name in ("train", "val", "test")]
        assert sorted([*cases[0], *cases[1]]) == ["case0005", "case0006"]
        assert len(parts["train"]) == len(parts["val"]) == 2
        assert cases[2] == {"case0008", "case0022"}


def test_volumes_need_h5py(tmp_path, refused, monkeypatch):
    data = config("synapse", MINIATURES["synapse"].write(tmp_path))
    monkeypatch.setitem(sys.modules, "h5py", None)
    refused(["case0008.npy.h5", "pip install 'samtune[hdf5]'"], splits, data)


def test_the_ignored_value_of_cityscapes_may_be_another(tmp_path):
    MINIATURES["cityscapes"].write(tmp_path)
    for ignore in (255, 19):
        data = config("cityscapes", tmp_path, ignore=ignore)
        sample = read_sample(splits(data)["test"][0], data)
        assert np.count_nonzero(~sample.labels.valid) == 96


def test_colours_of_no_class_are_refused(tmp_path, refused):
    mini = MINIATURES["trans10k"]
    data = config("trans10k", mini.write(tmp_path))
    record = splits(data)["test"][0]
    write(record.mask.path, coloured((0, 0, 0), (255, 0, 9), (255, 0, 0), (7, 7, 7)))
    refused([record.mask.path.name, "(7, 7, 7)", "no class", "1 others"], read_sample, record, data)


def test_arrays_of_fractions_are_refused(tmp_path, refused):
    data = config("kvasir", MINIATURES["kvasir-npy"].write(tmp_path))
    np.save(tmp_path / "datamodel/train_data_1.npy", np.zeros((4, 12, 16, 3)))
    refused(["train_data_1.npy", "float64", "whole numbers"], splits, data)


def test_arrays_of_unequal_length_are_refused(tmp_path, refused):
    data = config("synapse", MINIATURES["synapse-npy"].write(tmp_path))
    np.save(tmp_path / "datamodel/test_label_1.npy", np.stack([bands(range(9))] * 2))
    refused("1 items of test_label_1.npy", splits, data)


def test_broken_volumes_are_named(tmp_path, refused):
    data = config("synapse", MINIATURES["synapse"].write(tmp_path))
    (tmp_path / "test_vol_h5/case0022.npy.h5").write_bytes(b"no volume")
    refused(["case0022.npy.h5", "HDF5", "download it again"], splits, data)


def test_broken_stacks_are_named(tmp_path, refused):
    data = config("isbi2012", MINIATURES["isbi2012-stack"].write(tmp_path))
    (tmp_path / "train-labels.tif").write_bytes(b"no stack")
    refused(["train-labels.tif", "no TIFF stack"], splits, data)


def test_subsets_are_legal_and_told(tmp_path):
    data = config("camvid", MINIATURES["camvid"].write(tmp_path))
    lines = deviations("camvid", DATASETS["camvid"].find(tmp_path, data))
    remedy = "; if no subset was meant, unpack or download it again"
    assert lines[0] == "camvid: 3 images in train, where CamVid has 367" + remedy
    assert len(lines) == 3
    record = splits(data)["train"][0]
    assert deviations("kvasir", {None: [record] * 6}) == [
        "kvasir: 6 images in all, where Kvasir-SEG has 1000" + remedy
    ]
    assert deviations("kvasir", {"train": [record] * 900, "test": [record] * 100}) == []


def test_settings_stand_above_the_set_s_own(tmp_path):
    assert config("kvasir", tmp_path).threshold == 127
    assert config("kvasir", tmp_path, threshold=200).threshold == 200
    assert config("sbu", tmp_path, threshold=None) == replace(
        config("sbu", tmp_path), threshold=None
    )


def test_every_recipe_s_data_set_is_known():
    named = {tree.get("data", {}).get("name", "own") for tree in recipes().values()}
    assert named - {"own", "nuclei"} <= set(DATASETS)


def test_rows_for_the_listing():
    rows = {row["name"]: row for row in list_datasets()}
    assert list(rows) == sorted(DATASETS)
    assert {mini.name for mini in MINIATURES.values()} == set(DATASETS)
    for row in rows.values():
        for key in ("title", "task", "paper", "url", "layout", "splits"):
            assert row[key], (row["name"], key)
        assert row["class_names"] == [] or len(row["class_names"]) == row["classes"]
        assert f"`{row['name']}`" in datasets_table()
    assert rows["camvid"]["classes"] == 11 and rows["camvid"]["ignore"] == 11


def test_two_sets_of_one_name_are_a_mistake():
    from samtune.data.named.base import register

    with pytest.raises(ValueError, match="istd"):
        register(DATASETS["istd"])


def test_a_root_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        splits(config("istd", tmp_path / "none"))


def test_python_gets_the_sets_own_settings_as_the_command_line_does():
    defaults = DATASETS["camvid"].defaults
    known = with_defaults(DataConfig(root="nowhere", name="camvid", ignore=99))
    assert known.ignore == 99 and known.masks == defaults["masks"]
    assert known.classes == defaults["classes"]


@pytest.mark.parametrize("split_seed", range(4))  # with one of these the shot is for validation
def test_published_shots(tmp_path, split_seed):
    root = MINIATURES["kvasir-pranet"].write(tmp_path)
    more = {"split_seed": split_seed, "val_fraction": 0.5}
    data = config("kvasir", root, shots=1, shot_seed="published", **more)
    whole, found = splits(config("kvasir", root, **more)), splits(data)
    assert [record.name for record in found["train"]] == [SHOT]
    assert found["val"] == [record for record in whole["val"] if record.name != SHOT]
    assert found["test"] == whole["test"]


def test_published_shots_that_are_not_there(tmp_path, refused):
    root = MINIATURES["kvasir-pranet"].write(tmp_path)
    data = config("kvasir", root, shots=16, shot_seed="published")
    refused(["15 of the 16", "not below data.root", "data.shot_seed=0"], splits, data)
    data = config("kvasir", root, shots=2, shot_seed="published")
    refused(["kvasir (1 and 16)", "data.shots=2"], splits, data)
    write(tmp_path / "TestDataset/Kvasir/images" / "cju3128yi0rpu0988o4oo5n8n.png", picture())
    write(tmp_path / "TestDataset/Kvasir/masks" / "cju3128yi0rpu0988o4oo5n8n.png", blob())
    data = config("kvasir", root, shots=16, shot_seed="published")
    refused(["1 of them in the test split"], splits, data)


def test_fewer_published_shots_are_some_of_more():
    for entry in DATASETS.values():
        if entry.shots:
            assert {count: len(set(names)) for count, names in entry.shots.items()} == {
                1: 1,
                16: 16,
            }
            assert set(entry.shots[1]) < set(entry.shots[16])
