import shutil

import numpy as np
import pytest

from samtune.data import read_mask, read_sample, scan, splits
from samtune.data.layouts import find
from samtune.data.layouts.base import layout_of
from samtune.data.problems import remarks

SQUARE = "1 0.125 0.25 0.5 0.25 0.5 0.75 0.125 0.75"
YAML = "path: .\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: tree\n"


@pytest.fixture
def write(tmp_path, save_image, make_picture):
    """Writes three images a split, and the label of the second: write(label=, yaml=, images=)."""

    def make(label=SQUARE, yaml=YAML, images="images/{}"):
        for split in ("train", "val"):
            for i in range(3):
                folder = tmp_path / images.format(split)
                save_image(folder / f"{split}{i}.jpg", make_picture(seed=i))
            file = tmp_path / images.format(split).replace("images", "labels") / f"{split}1.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(label)
        (tmp_path / "data.yaml").write_text(yaml)
        return tmp_path

    return make


def test_polygons_become_objects(write, record_of):
    root = write(f"{SQUARE}\n\n0 0 0 1 0 1 1 0 1\n")
    assert layout_of(root).name == layout_of(root / "data.yaml").name == "yolo"
    record, config = record_of(root, "train1")
    assert (config.masks, config.class_names) == ("instance", ("cat", "tree"))
    labels = read_sample(record, config).labels
    assert labels.map.shape == (12, 16)
    np.testing.assert_array_equal(np.argwhere(labels.map == 1).min(0), [3, 2])
    np.testing.assert_array_equal(np.argwhere(labels.map == 1).max(0), [8, 7])
    assert labels.classes.tolist() == [1, 0]
    empty, _ = record_of(root, "train0")
    assert not read_mask(empty.mask).any()
    classes, config = record_of(root, "train1", masks="classes")
    assert read_mask(classes.mask)[4, 4] == 2
    assert config.class_names == ("background", "cat", "tree")


@pytest.mark.parametrize(
    ("yaml", "images"),
    [
        ("train: ../train/images\nval: ../val/images\nnc: 2\nnames: [cat, tree]\n", "{}/images"),
        ("path: /elsewhere\ntrain: images/train\nval: images/val\nnames: [a, b]\n", "images/{}"),
        ("train: [images/train]\nval: val.txt\nnames: [a, b]\n", "images/{}"),
    ],
)
def test_ways_to_say_where_images_are(write, completed, yaml, images):
    root = write(yaml=yaml, images=images)
    (root / "val.txt").write_text("\n".join(f"images/val/val{i}.jpg" for i in range(3)))
    config = completed(root)
    parts = splits(config)
    assert [r.name for r in parts["val"]] == ["val0", "val1", "val2"]
    assert scan(parts["val"], config).objects == 1


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("0 0.5 0.5 0.2 0.2", ["line 1", "box", "segmentation"]),
        (f"{SQUARE}\n0 0.1 0.1 0.2", ["line 2", "3 numbers", "three corners"]),
        ("7 0 0 1 0 1 1", ["line 1", "class 7", "names 2"]),
        ("0 10 20 40 20 40 60", ["line 1", "corner 10", "0 to 1"]),
        ("cat 0 0 1 0 1 1", ["line 1", "class number"]),
    ],
)
def test_wrong_labels(write, record_of, refused, label, words):
    root = write(label)
    record, config = record_of(root, "train1")
    refused(["train1.txt", *words], scan, [record], config)


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ("train: images/none\nnames: [a, b]", ["images/none", "not there"]),
        ("train: list.txt\nnames: [a, b]", ["list.txt", "1 of its 1", "x.jpg"]),
        ("path: .\nnames: [a, b]", ["names no images"]),
        ("train: images\nnames: [a, b]", ["holds no image"]),
    ],
)
def test_wrong_places(write, completed, refused, yaml, words):
    root = write(yaml=yaml)
    (root / "list.txt").write_text("x.jpg")
    shutil.rmtree(root / "labels")
    refused(words, splits, completed(root, layout="yolo"))


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ("train: images/train\nnames: [a, b]\nnc: 3", ["nc=3", "2 names"]),
        ("train: images/train\nnames: {1: a}", ["number 0"]),
        ("names: [", ["not readable as YAML (line 1"]),
        ("names:\n\t- a", ["not readable as YAML (line 2", "cannot start any token"]),
        ("names: [a, b]\nnames: [c, d]", ["line 2: the key names appears twice"]),
        ("names: {0: a, 0: b}", ["line 1: the key 0 appears twice"]),
    ],
)
def test_wrong_settings(write, completed, refused, yaml, words):
    refused(["data.yaml", *words], completed, write(yaml=yaml), layout="yolo")


def test_no_labels_at_all(write, completed, refused, tmp_path):
    root = write()
    (root / "labels/train/train1.txt").unlink()
    refused(["none of the 3 images of train", "labels/train"], splits, completed(root))
    (root / "data.yaml").unlink()
    shutil.rmtree(root / "labels")
    refused([root, "data.yaml"], completed, root, layout="yolo")


def named(yaml):
    return f"train: images/train\nval: images/val\n{yaml}\n"


@pytest.mark.parametrize(
    ("yaml", "names"),
    [
        ("names: [yes, no]", ("yes", "no")),
        ("names: [on, 007]", ("on", "007")),
        ("names:\n  1: tree\n  0: cat", ("cat", "tree")),
        ("names: {'0': cat, '1': tree}", ("cat", "tree")),
        ("names: {cat: 0, tree: 1}", ("cat", "tree")),
        ("names: cat, tree", ("cat", "tree")),
        ("names: \"['cat', 'tree']\"", ("cat", "tree")),
        ("names:\n- cat\n- tree\nnc: '2'", ("cat", "tree")),
        ("names: [null, ~]\nnc: 2", ("null", "~")),
        ("nc: 3", ("class 0", "class 1", "class 2")),
        ("names:", ("class 0", "class 1")),
    ],
)
def test_every_way_to_name_classes(write, completed, yaml, names):
    root = write(yaml="\ufeff" + named(yaml))
    assert completed(root).class_names == names
    assert scan(splits(completed(root))["val"], completed(root)).class_objects == {1: 1}


@pytest.mark.parametrize(
    "yaml",
    [
        "path: C:\\\\Users\\\\x\\\\set\ntrain: images\\train\nval: images\\val\nnames: [a, b]\n",
        "train: D:\\set\\images\\train\nval: D:\\set\\images\\val\nnames: [a, b]\n",
        "train: /srv/x/set/images/train\nvalidation: /srv/x/images/val\nnames: [a, b]\n",
    ],
)
def test_places_of_other_machines(write, completed, yaml):
    parts = splits(completed(write(yaml=yaml)))
    assert [r.name for r in parts["val"]] == ["val0", "val1", "val2"]


@pytest.mark.parametrize("names", ["", "cat\ntree\n"])
@pytest.mark.parametrize("images", ["images/{}", "{}/images"])
def test_a_folder_without_a_yaml_file(write, completed, names, images):
    root = write(images=images)
    (root / "data.yaml").unlink()
    if names:
        (root / "classes.txt").write_text(names)
    assert layout_of(root).name == "yolo"
    config = completed(root)
    assert config.class_names == (("cat", "tree") if names else ("class 0", "class 1"))
    assert scan(splits(config)["val"], config).class_objects == {1: 1}


@pytest.mark.parametrize("images", ["{}", "."])
def test_text_beside_images_without_any_yaml_file(write, completed, tmp_path, images):
    root = write(images="{}")
    (root / "data.yaml").unlink()
    if images == ".":
        for file in [*root.glob("train/*"), *root.glob("val/*")]:
            file.rename(root / file.name)
    assert layout_of(root).name == "yolo"
    config = completed(root)
    assert config.class_names == ("class 0", "class 1")
    counts = {split: len(part) for split, part in find(config).items()}
    assert sum(counts.values()) == 6 and (set(counts) == {None}) == (images == ".")
    assert scan(find(config)[None if images == "." else "val"], config).objects > 0


def test_lines_that_are_there_twice_and_text_beside_images(write, record_of, tmp_path):
    root = write(f"\ufeff{SQUARE}\n{SQUARE}\n0.0 0 0 1 0 1 1 0 1\n", images="{}",
                 yaml="train: train\nval: val\nnames: [cat, tree]\n")  # fmt: skip
    record, config = record_of(root, "train1")
    with remarks() as notes:
        assert read_sample(record, config).labels.classes.tolist() == [1, 0]
    assert {note.kind for note in notes} == {"annotation twice"}
