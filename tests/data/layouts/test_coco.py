import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from samtune.data import DataConfig, read_mask, read_sample, scan, splits
from samtune.data.layouts.base import layout_of
from samtune.data.layouts.drawn import mask_of
from samtune.runs.config import resolve

SQUARE = [[2, 2, 6, 2, 6, 6, 2, 6]]
LARGE = [[1, 1, 12, 1, 12, 10, 1, 10]]
CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 3, "name": "tree"}]


def run_lengths(compressed=False, size=(12, 16)):
    mask = np.zeros(size, np.uint8, order="F")
    mask[:, 14:] = 1
    if compressed:
        return {"size": list(size), "counts": coco.encode(mask)["counts"].decode()}
    return {"size": list(size), "counts": [12 * 14, 12 * 2]}


def annotation(image, category, segmentation, **more):
    return {"image_id": image, "category_id": category, "segmentation": segmentation, **more}


@pytest.fixture
def write(tmp_path, save_image, make_picture):
    """Writes a data set: write(annotations, file=, images=) gives its tree as it was written."""

    def make(annotations=None, file="annotations/instances_train2017.json", at="images/train2017"):
        images = []
        for i in range(4):
            save_image(tmp_path / at / f"{i}.png", make_picture(seed=i))
            images.append({"id": 10 + i, "file_name": f"{i}.png", "height": 12, "width": 16})
        if annotations is None:
            annotations = [
                annotation(10, 7, SQUARE, id=1, iscrowd=0),
                annotation(10, 3, LARGE, id=2),
                annotation(10, 3, run_lengths(), id=3, iscrowd=1),
                annotation(11, 3, run_lengths(compressed=True), id=4),
            ]
        tree = {"images": images, "annotations": annotations, "categories": CATEGORIES}
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(json.dumps(tree))
        return tree

    return make


def test_objects_with_classes_and_an_ignored_crowd(write, completed, tmp_path):
    write()
    assert layout_of(tmp_path).name == "coco"
    config = completed(tmp_path)
    assert (config.masks, config.classes, config.class_names) == ("instance", 2, ("tree", "cat"))
    parts = splits(config)
    first = next(r for records in parts.values() for r in records if r.name == "0")
    labels = read_sample(first, config).labels
    assert labels.classes.tolist() == [1, 0]  # the small cat lies over the large tree
    assert (labels.map[3, 3], labels.map[8, 8]) == (1, 2)
    assert not labels.valid[:, 14:].any()
    assert labels.valid[:, :14].all()
    second = next(r for records in parts.values() for r in records if r.name == "1")
    assert int((read_mask(second.mask) == 1).sum()) == 24
    summary = scan([first, second], config)
    assert summary.class_objects == {0: 2, 1: 1}
    assert pickle.loads(pickle.dumps(first)) == first
    assert len({first, second}) == 2


def test_the_same_as_a_class_map_and_as_foreground(write, completed, tmp_path):
    write()
    config = completed(tmp_path, masks="classes")
    assert (config.classes, config.background) == (3, 0)
    assert config.class_names == ("background", "tree", "cat")
    record = next(r for records in splits(config).values() for r in records if r.name == "0")
    values = read_mask(record.mask)
    assert (values[3, 3], values[8, 8], values[0, 0], values[0, 15]) == (2, 1, 0, -1)
    assert read_sample(record, config).labels.classes.tolist() == [0, 1, 2][1:]
    config = completed(tmp_path, masks="binary")
    record = next(r for records in splits(config).values() for r in records if r.name == "0")
    assert set(np.unique(read_mask(record.mask))) == {-1, 0, 1}


def test_objects_of_several_classes_are_not_joined(write, completed, tmp_path, refused):
    write()
    config = completed(tmp_path, objects="component")
    record = next(r for records in splits(config).values() for r in records if r.name == "0")
    refused(["data.objects=component", "data.masks=classes"], read_sample, record, config)


@pytest.mark.parametrize(
    ("pattern", "at"),
    [
        ("annotations/instances_{}2017.json", "{}2017"),
        ("annotations/{}.json", "images/{}"),
        ("{}.json", "images"),
        ("{}/_annotations.coco.json", "{}"),
    ],
)
def test_where_files_lie(write, completed, tmp_path, pattern, at):
    for split in ("train", "val", "test"):
        write(file=pattern.format(split), at=at.format(split))
    assert layout_of(tmp_path).name == "coco"
    parts = splits(completed(tmp_path))
    assert {k: len(v) for k, v in parts.items()} == {"train": 4, "val": 4, "test": 4}
    assert parts["train"][0].file == tmp_path / at.format("train") / "0.png"


def test_the_file_itself_as_root(write, completed, tmp_path):
    write(file="objects.json", at="images")
    parts = splits(completed(tmp_path / "objects.json"))
    assert sum(len(records) for records in parts.values()) == 4


def test_the_settings_of_the_user_stand_above(write, tmp_path):
    write()
    config = resolve([{"data": {"root": str(tmp_path), "class_names": ["a", "b"]}}]).data
    assert (config.masks, config.class_names, config.ignore) == ("instance", ("a", "b"), -1)


def test_plain_folders_stay_plain(make_pairs, tmp_path):
    root = make_pairs(["a", "b"])
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_train.json").write_text("{}")
    (root / "train.json").write_text("{}")
    assert layout_of(root).name == "folders"


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (annotation(99, 7, SQUARE, id=5), ["annotation 5", "image 99", "remove"]),
        (annotation(10, 9, SQUARE, id=5), ["annotation 5", "category 9", "categories"]),
        (annotation(10, 7, [], id=5), ["annotation 5", "only a box", "annotate"]),
        ({"image_id": 10}, ["entry 0 of annotations", "category_id"]),
    ],
)
def test_wrong_annotations(write, completed, tmp_path, refused, entry, words):
    write([entry])
    refused(["instances_train2017.json", *words], splits, completed(tmp_path))


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        ([[1, 1, 4, 4]], ["polygon of 4 numbers", "three corners"]),
        ([["a"]], ["polygon", "three corners"]),
        ({"size": [12, 16], "counts": [5, 5]}, ["add up to 10", "192 pixels"]),
        ({"size": [16, 12], "counts": [5, 5]}, ["size [16, 12]", "export"]),
        ({"counts": "x"}, ["neither polygons nor run lengths"]),
        ({"size": [12, 16], "counts": "05"}, ["add up to 5", "192 pixels"]),
        ({"size": [12, 16], "counts": ["a"]}, ["cannot be read as mask", "replace"]),
    ],
)
def test_wrong_segmentations(write, completed, tmp_path, refused, segmentation, words):
    write([annotation(10, 7, segmentation, id=5)])
    config = completed(tmp_path)
    records = [r for part in splits(config).values() for r in part if r.name == "0"]
    refused(["instances_train2017.json", *words], scan, records[:1], config)


def test_wrong_files(write, completed, tmp_path, refused):
    tree = write()
    file = tmp_path / "annotations/instances_train2017.json"
    (tmp_path / "images/train2017/2.png").unlink()
    message = refused([file, "1 of its 4", "2.png", "download"], splits, completed(tmp_path))
    assert "0.png" not in message
    file.write_text(json.dumps({**tree, "images": []}))
    refused([file, "lists no image"], splits, DataConfig(root=str(tmp_path)))
    file.write_text(json.dumps({**tree, "categories": []}))
    refused([file, "no categories"], splits, DataConfig(root=str(tmp_path)))
    file.write_text("[]  ")
    refused([file, "images, annotations and categories"], splits, DataConfig(root=str(tmp_path)))
    file.write_text("{")
    refused([file, "not readable as JSON"], completed, tmp_path)


def test_splits_that_do_not_go_together(write, completed, tmp_path, refused):
    tree = write()
    other = tmp_path / "annotations/instances_val2017.json"
    other.write_text(json.dumps({**tree, "categories": CATEGORIES[:1]}))
    refused([other, "other categories", "instances_train2017.json"], completed, tmp_path)
    other.rename(tmp_path / "annotations/instances_training.json")
    refused(["instances_train2017.json", "instances_training.json"], completed, tmp_path)


def test_images_elsewhere_and_no_file_at_all(write, completed, tmp_path, refused):
    write(at="pictures/deep")
    refused(["0.png", "was not found", "images/"], splits, completed(tmp_path))
    root = tmp_path / "pictures"
    refused([root, "instances_*.json"], splits, DataConfig(root=str(root), layout="coco"))
    refused(["data.layout=coc", "coco"], splits, DataConfig(root=str(root), layout="coc"))


def test_an_image_of_another_size_than_the_file_says(
    write, completed, tmp_path, save_image, make_picture
):
    write()
    save_image(tmp_path / "images/train2017/0.png", make_picture(10, 10))
    config = completed(tmp_path)
    records = [r for part in splits(config).values() for r in part if r.name == "0"]
    with pytest.raises(ValueError, match=r"16x12 pixels but 0\.png is 10x10"):
        scan(records, config)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_run_lengths_are_read_as_pycocotools_writes_them(h, w, seed, share):
    mask = np.random.default_rng(seed).random((h, w)) < share
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    text = {"size": [h, w], "counts": encoded["counts"].decode()}
    np.testing.assert_array_equal(mask_of(text, (h, w), "file"), mask)
