from pathlib import Path

import numpy as np
import pytest

from samtune.data import DataConfig, Record, label_objects, read_sample
from samtune.data.labels import areas, extents
from samtune.runs.words import from_words

PNG = Path("m.png")


def grid(*rows, dtype=np.uint8):
    return np.array([[int(c, 36) for c in row] for row in rows], dtype)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 255), (0, 65535), (8, 247), (15, 240)])
def test_auto_accepts_clear_binary_masks(low, high):
    values = np.full((4, 5), low, np.uint16 if high > 255 else np.uint8)
    values[1:3, 2:4] = high
    labels = label_objects(values, DataConfig(), PNG)
    np.testing.assert_array_equal(labels.map, values == high)
    assert labels.classes.tolist() == [0]
    assert labels.valid is None


@pytest.mark.parametrize("value", [0, 255, 1])
def test_constant_masks(value):
    labels = label_objects(np.full((3, 3), value, np.uint8), DataConfig(), PNG)
    assert len(labels) == (value > 0)
    assert labels.map.min() == labels.map.max() == (value > 0)


def test_jpeg_damage_is_cut_in_the_middle():
    values = np.array([[0, 3, 8, 247, 250, 255]], np.uint8)
    assert label_objects(values, DataConfig(), PNG).map.tolist() == [[0, 0, 0, 1, 1, 1]]
    labels = label_objects(values, DataConfig(masks="binary"), PNG)
    assert labels.map.tolist() == [[0, 0, 0, 1, 1, 1]]
    one_sided = np.array([[0, 3, 255]], np.uint8)
    assert label_objects(one_sided, DataConfig(), Path("m.jpg")).map.tolist() == [[0, 0, 1]]


@pytest.mark.parametrize(
    "values", [[0, 2], [0, 1, 2], [0, 128, 255], [0, 1, 255], [0, 5], [-1, 1], [0, 11, 255]]
)
def test_auto_refuses_the_rest(refused, values):
    words = ["m.png", str(values[1]), "data.masks=instance", "data.masks=classes data.classes=K"]
    refused(words, label_objects, np.array([values], np.int32), DataConfig(), PNG)


def test_many_wrong_values_are_cut_short(refused):
    message = refused("192 more", label_objects, np.arange(200)[None], DataConfig(), PNG)
    assert len(message) < 300


def test_binary_on_request():
    values = np.array([[0, 40, 128, 200]], np.uint8)
    assert label_objects(values, DataConfig(masks="binary"), PNG).map.tolist() == [[0, 1, 1, 1]]
    soft = DataConfig(masks="binary", threshold=127)
    assert label_objects(values, soft, PNG).map.tolist() == [[0, 0, 1, 1]]


def test_binary_turned_round(refused):
    values = np.array([[0, 40, 128, 200, 7]], np.uint8)
    dark = DataConfig(masks="binary", threshold=127, ignore=7, invert=True)
    labels = label_objects(values, dark, PNG)
    assert labels.map.tolist() == [[1, 1, 0, 0, 0]]
    assert labels.valid.tolist() == [[True, True, True, True, False]]
    whole = label_objects(np.zeros((2, 2), np.uint8), DataConfig(invert=True), PNG)
    assert whole.map.all() and len(whole) == 1
    words = ["data.invert=true: data.masks=classes", "data.masks=binary"]
    refused(words, from_words, ["data.invert=true", "data.masks=classes", "data.classes=3"])


@pytest.mark.parametrize("ids", [(3, 7), (300, 60000), (5, 3_000_000)])
def test_instances_are_numbered_in_order(ids):
    values = np.array([[0, ids[1], ids[1]], [ids[0], 0, 0]], np.int64)
    labels = label_objects(values, DataConfig(masks="instance"), PNG)
    assert labels.map.tolist() == [[0, 2, 2], [1, 0, 0]]
    assert labels.classes.tolist() == [0, 0]


def test_hundreds_of_instances():
    values = np.arange(1, 701, dtype=np.uint16).reshape(20, 35).repeat(2, 0).repeat(2, 1)
    labels = label_objects(values, DataConfig(masks="instance"), PNG)
    assert len(labels) == 700
    assert labels.map.max() == 700
    assert set(areas(labels.map, 700)) == {4}


TWO_PARTS = grid("11000", "11001", "00010", "00000")


def test_components_join_over_corners():
    labels = label_objects(TWO_PARTS, DataConfig(objects="component"), PNG)
    assert len(labels) == 2
    assert sorted(areas(labels.map, 2)) == [2, 4]
    assert len(label_objects(TWO_PARTS, DataConfig(), PNG)) == 1


def test_min_area_makes_small_objects_background():
    labels = label_objects(TWO_PARTS, DataConfig(objects="component", min_area=3), PNG)
    assert len(labels) == 1
    np.testing.assert_array_equal(labels.map > 0, grid("11000", "11000", "00000", "00000"))


@pytest.mark.parametrize(("objects", "count"), [("auto", 3), ("mask", 1), ("component", 2)])
def test_objects_of_instance_maps(objects, count):
    values = grid("1100", "2200", "0005")
    config = DataConfig(masks="instance", objects=objects)
    assert len(label_objects(values, config, PNG)) == count


CLASSES = grid("0022", "0b22", "2000")


def test_class_maps_have_an_object_a_class():
    config = DataConfig(masks="classes", classes=3, ignore=11)
    labels = label_objects(CLASSES, config, PNG)
    assert labels.classes.tolist() == [0, 2]
    assert labels.map.tolist() == [[1, 1, 2, 2], [1, 0, 2, 2], [2, 1, 1, 1]]
    assert labels.valid is not None
    assert np.argwhere(~labels.valid).tolist() == [[1, 1]]


def test_class_map_with_background_and_components():
    config = DataConfig(masks="classes", classes=3, ignore=11, background=0, objects="component")
    labels = label_objects(CLASSES, config, PNG)
    assert labels.classes.tolist() == [2, 2]
    assert sorted(areas(labels.map, 2)) == [1, 4]
    whole = DataConfig(masks="classes", classes=3, ignore=11, objects="component")
    assert label_objects(CLASSES, whole, PNG).classes.tolist() == [0, 2, 2]


def test_256_classes_do_not_wrap():
    values = np.array([[0, 255]], np.uint8)
    labels = label_objects(values, DataConfig(masks="classes", classes=256), PNG)
    assert labels.classes.tolist() == [0, 255]
    assert labels.map.tolist() == [[1, 2]]


def test_ignored_pixels_of_binary_masks():
    values = np.array([[0, 1, 255]], np.uint8)
    labels = label_objects(values, DataConfig(ignore=255), PNG)
    assert labels.map.tolist() == [[0, 1, 0]]
    assert labels.valid.tolist() == [[True, True, False]]
    assert label_objects(values[:, :2], DataConfig(ignore=255), PNG).valid is None


@pytest.mark.parametrize(
    ("config", "path", "words"),
    [
        ({"masks": "classes"}, PNG, ["data.classes=K"]),
        ({"masks": "classes", "classes": 2}, PNG, ["{2, 11}", "0..1", "data.ignore"]),
        ({"masks": "classes", "classes": 12, "objects": "instance"}, PNG, ["component"]),
        ({"masks": "classes", "classes": 12}, Path("m.jpg"), ["JPEG", "PNG"]),
        ({"masks": "instance"}, Path("m.JPEG"), ["JPEG", "PNG"]),
        ({"masks": "binary", "objects": "instance"}, PNG, ["data.masks=instance"]),
    ],
)
def test_refused_rules(refused, config, path, words):
    refused([path, *words], label_objects, CLASSES, DataConfig(**config), path)


def test_negative_instances_are_refused(refused):
    values = np.array([[-1, 2]])
    refused(["m.png", "-1"], label_objects, values, DataConfig(masks="instance"), PNG)
    labels = label_objects(values, DataConfig(masks="instance", ignore=-1), PNG)
    assert labels.map.tolist() == [[0, 1]]


@pytest.mark.parametrize("count", [3, 20])
def test_extents_agree_with_each_object_alone(count):
    labels = np.random.default_rng(0).integers(0, count + 1, (15, 40)).astype(np.uint8)
    labels[labels == 2] = 0
    labels[:, 20:] = 0
    for k, box in enumerate(extents(labels, count)):
        ys, xs = np.nonzero(labels == k + 1)
        if len(ys):
            assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        else:
            assert box[2] < box[0]
    assert extents(np.zeros((3, 3), np.uint8), 0).shape == (0, 4)


def test_size_mismatch_names_both(tmp_path, save_image, make_picture, make_blob, refused):
    image = save_image(tmp_path / "a.png", make_picture(12, 16))
    mask = save_image(tmp_path / "m.png", make_blob(12, 15))
    words = [mask, "15x12", "a.png is 16x12"]
    refused(words, read_sample, Record(image, mask, "a"), DataConfig())
    refused(["a.png", "no mask"], read_sample, Record(image, None, "a"), DataConfig())
