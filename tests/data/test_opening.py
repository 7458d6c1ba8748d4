import pickle

import numpy as np
import pytest
from pictures import picture, save

import samtune
from samtune.data import Record


def test_a_folder_opens_with_its_splits_counts_and_classes(pairs):
    data = samtune.open_data(pairs, masks="classes", classes=256, class_names=["back"] * 256)
    assert data.counts == {"train": 6, "val": 1, "test": 1}
    assert data.carved == ("val", "test")
    said = repr(data)
    assert "train        6 images" in said and "made, split_seed=0" in said
    assert "classes  256: back, back" in said
    assert max(map(len, said.splitlines())) <= 80
    names = {name for split in (data.train, data.val, data.test) for name in split.names}
    assert names == {f"{i:02}" for i in range(8)}
    with pytest.raises(AttributeError, match=r"no attribute 'validation'.*take data\.val$"):
        _ = data.validation
    for index, split in (("validation", "val"), (0, "train")):
        with pytest.raises(samtune.InputError, match=rf"take data\.{split}, as in"):
            _ = data[index]


def test_settings_mean_what_they_mean_on_the_command_line(pairs, tmp_path):
    labels = np.array([[0, 1], [1, 1]], np.uint8)
    for i in range(4):
        save(tmp_path / "p" / f"{i}.png", picture(2, 2, seed=i))
        save(tmp_path / "t" / f"{i}_m.png", labels)
    data = samtune.open_data(tmp_path, images="p/*.png", masks="t/*_m.png", val_fraction=0.25)
    assert data.config.mask_files == "t/*_m.png"
    assert data.counts == {"train": 2, "val": 1, "test": 1}
    small = samtune.open_data(pairs, shots=2)
    assert len(small.train) == 2


def test_a_split_is_a_sequence_of_images_with_their_objects(pairs):
    split = samtune.open_data(pairs).train
    one = split[0]
    assert one.image.shape == (48, 64, 3)
    assert one.mask.shape == (48, 64)
    assert one.masks.shape == (1, 48, 64)
    assert (one.masks[0] == (one.mask > 0)).all()
    assert one.name == split.names[0]
    image, mask = one
    assert (image == one.image).all() and (mask == one.mask).all()
    assert repr(one) == f"LabelledImage('{one.name}', 64x48 pixels, 1 object)"
    assert one._repr_png_()[:4] == b"\x89PNG"
    assert [each.name for each in split] == list(split.names)
    with pytest.raises(IndexError):
        split[len(split)]


def test_a_part_of_a_split_is_a_split(pairs):
    data = samtune.open_data(pairs)
    split = data.train
    assert split[:3].names == split.names[:3]
    assert split[[4, 1]].names == (split.names[4], split.names[1])
    assert split[np.arange(6) % 2 == 0].names == split.names[::2]
    assert split[-1].name == split.names[-1]
    assert len(split[[]]) == 0
    assert not split[:0]
    both = split + data.val
    assert both.names == split.names + data.val.names
    assert (both + data.val).names == both.names
    assert repr(split[:2]) == "Split(train, 2 images: " + ", ".join(split.names[:2]) + ")"
    assert pickle.loads(pickle.dumps(split)) == split
    assert isinstance(split.records[0], Record)


def test_what_cannot_be_opened_is_refused_in_one_line(pairs, tmp_path, refused):
    refused(["clases=2", "did you mean 'classes'?"], samtune.open_data, pairs, clases=2)
    refused("does not exist", samtune.open_data, tmp_path / "nowhere")
    refused(["classes=0", "at least 1"], samtune.open_data, pairs, classes=0)
    other = samtune.open_data(pairs, augment="none").train
    refused("different settings", lambda: samtune.open_data(pairs).train + other)


def test_the_check_finds_what_the_command_line_finds(pairs):
    (pairs / "masks" / "03.png").write_bytes(b"no picture")
    result = samtune.open_data(pairs).check()
    assert not result.ok
    assert [row.kind for row in result.problems] == ["unreadable mask"]
    lines = repr(result).splitlines()
    assert lines[0].startswith("train: ")
    assert any(line.startswith("problem: unreadable mask: ") for line in lines)
    assert lines[-1] == "not ok: 1 problem, training would fail; 2 remarks"
