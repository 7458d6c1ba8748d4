import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from samtune.data import DataConfig, read_mask, read_sample, scan, splits
from samtune.data.check import check
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
    refused(["layout=coc", "coco"], DataConfig, root=str(root), layout="coc")


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


@pytest.fixture
def changed(tmp_path, save_image, make_picture):
    """Writes four images with an object each, and changes the tree: changed(change)."""

    def make(change, encoding="utf-8", at="images"):
        images, annotations = [], []
        for i in range(4):
            save_image(tmp_path / at / f"{i}.png", make_picture(seed=i))
            images.append({"id": i, "file_name": f"{i}.png", "height": 12, "width": 16})
            annotations.append(annotation(i, 7, [list(SQUARE[0])], id=i, iscrowd=0))
        tree = {"images": images, "annotations": annotations, "categories": CATEGORIES[:1]}
        change(tree)
        (tmp_path / "annotations").mkdir(exist_ok=True)
        file = tmp_path / "annotations/instances_default.json"
        file.write_text(json.dumps(tree), encoding)
        return tmp_path

    return make


def of_all(part, **values):
    return lambda tree: [entry.update(values) for entry in tree[part]]


def texts(tree):
    for entry in tree["images"] + tree["categories"]:
        entry["id"] = str(entry["id"])


def pairs(tree):
    tree["annotations"][0]["segmentation"] = [[[2, 2], [6, 2], [6, 6], [2, 6]]]
    tree["annotations"][1]["segmentation"] = [[2, 2], [6, 2], [6, 6], [2, 6]]
    tree["annotations"][2]["segmentation"] = [2.0, 2, 6, 2, 6, 6, 2, 6]


def elsewhere(tree):
    for entry, before in zip(
        tree["images"], ("D:\\set\\", "/srv/x/", "./", "images%2F/"), strict=True
    ):
        entry["file_name"] = before + entry["file_name"]


def again(tree):
    tree["images"].append({**tree["images"][0], "id": 9})
    tree["annotations"].append(annotation(9, 7, LARGE, id=8))
    tree["annotations"].append({**tree["annotations"][1], "id": 7})
    tree["annotations"][2]["id"] = 3


def shared_name(tree):
    tree["categories"].append({"id": 9, "name": "cat"})
    tree["annotations"][0]["category_id"] = 9


def hidden(tree):
    tree["annotations"].append(annotation(0, 7, [[90, 90, 95, 90, 95, 95]], id=5))
    tree["annotations"].append(annotation(1, 7, [[2, 2, 7, 2, 7, 6, 2, 6]], id=6))
    tree["annotations"].append(annotation(1, 7, [[2, 2, 7, 2, 7, 6, 2, 6, 2, 5]], id=7))


def crowded(tree):
    tree["annotations"][1] |= {"iscrowd": 1, "attributes": {"occluded": False}}


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        (of_all("images", width=None, height=None), set()),
        (of_all("images", width="16", height=0), set()),
        (lambda tree: [entry.pop("width") for entry in tree["images"]], set()),
        (texts, set()),
        (pairs, {"flat polygon"}),
        (elsewhere, set()),
        (shared_name, {"category name twice"}),
        (crowded, {"crowds as objects"}),
    ],
)
def test_what_tools_write_is_read_as_they_mean_it(changed, completed, change, kinds):
    root = changed(change, "utf-8-sig")
    found = check(completed(root))
    assert not found.problems, found.problems
    assert {row.kind for row in found.remarks} - {"single image split"} == kinds
    assert [row["values"] for row in found.files] == [{0: 176, 1: 16}] * 4


def test_what_is_there_twice_is_taken_once(changed, completed):
    found = check(completed(changed(again)))
    assert not found.problems
    kinds = {row.kind for row in found.remarks}
    assert kinds >= {"image listed again", "annotation twice", "annotation id twice"}
    assert [row["objects"] for row in found.files] == [2, 1, 1, 1]


def test_objects_that_nobody_sees_are_counted(changed, completed):
    found = check(completed(changed(hidden)))
    said = {row.kind: row.what for row in found.remarks}
    assert "1 of 2 objects" in said["draws nothing"] and "annotation 5" in said["draws nothing"]
    assert "1 of 3 objects" in said["covered object"] and "annotation 6" in said["covered object"]


@pytest.mark.parametrize(
    ("crowds", "objects", "kind"),
    [("auto", 0, "crowds ignored"), ("ignore", 0, "crowds ignored"),
     ("objects", 1, "crowds as objects")],
)  # fmt: skip
def test_crowds_as_the_setting_says(changed, completed, crowds, objects, kind):
    def change(tree):
        tree["annotations"][1]["iscrowd"] = "1"

    found = check(completed(changed(change), crowds=crowds))
    assert found.files[1]["objects"] == objects
    (note,) = (row for row in found.remarks if row.kind == kind)
    assert "1 annotations have iscrowd" in note.what and "data.crowds" in note.remedy


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tree: tree["images"][3].update(id=0), ["image id 0", "0.png and 3.png", "new ids"]),
        (
            lambda tree: tree["categories"].append({"id": 7, "name": "dog"}),
            ["category 7 is both cat and dog", "new id"],
        ),
        (lambda tree: tree["images"].append({"id": 9, "file_name": "x/0.png"}), ["both", "0.png"]),
        (
            lambda tree: [
                row.update(segmentation=[[0, 0.1, 0.9, 0.1, 0.5, 0.5]])
                for row in tree["annotations"]
            ],
            ["from 0 to 0.9", "multiply them"],
        ),
    ],
)
def test_what_cannot_be_told_apart_is_refused(changed, completed, refused, change, words):
    root = changed(change)
    refused(["instances_default.json", *words], lambda: splits(completed(root)))


@pytest.mark.parametrize(
    "segmentation",
    [[[1, 1, 4, 4]], [[1, 1, 4, float("nan"), 5, 5]], [[1e9, 1, 4, 4, 5, 5]], [["a"]]],
)
def test_outlines_that_cannot_be_drawn(changed, completed, segmentation):
    root = changed(lambda tree: tree["annotations"][0].update(segmentation=segmentation))
    (row,) = check(completed(root)).problems
    assert row.kind == "wrong polygon" and "annotation 0" in row.what
