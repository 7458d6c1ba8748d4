import numpy as np
import pytest

from samtune.data import DataConfig, InputConfig, Labels, SegmentationDataset, find_records
from samtune.data.cuts import drawn_view
from samtune.data.draws import Draws
from samtune.geometry import InputPolicy

POLICY = InputPolicy((32, 32), tiles="tiled")


@pytest.fixture
def scene():
    """An image whose values are its places, with two objects."""
    labels = np.zeros((100, 140), np.uint8)
    labels[10:20, 10:30] = 1
    labels[70:90, 100:135] = 2
    image = np.stack([*np.indices(labels.shape), labels.astype(int)], -1).astype(np.uint8)
    valid = np.indices(labels.shape)[1] < 120
    return image, Labels(labels, np.array([4, 7]), valid)


def views(scene, policy, modes=("box",), count=60):
    return [
        drawn_view(*scene, policy, Draws(np.random.default_rng(i)), modes) for i in range(count)
    ]


def test_a_tile_holds_an_object_and_its_labels(scene):
    seen, places = set(), set()
    for image, labels in views(scene, POLICY):
        assert image.shape == (32, 32, 3) and labels.map.shape == labels.valid.shape == (32, 32)
        y, x = image[0, 0, :2]
        assert (image[..., 2] == labels.map).all() and (image[..., 1] - x == np.arange(32)).all()
        assert (labels.valid == scene[1].valid[y : y + 32, x : x + 32]).all()
        assert labels.map.any() and labels.classes.tolist() == [4, 7]
        seen |= set(np.unique(labels.map))
        places.add((int(y), int(x)))
    assert seen == {0, 1, 2} and len(places) > 30


def test_without_prompts_tiles_may_be_empty(scene):
    empty = [not labels.map.any() for _, labels in views(scene, POLICY, ("none",), 200)]
    assert 30 < sum(empty) < 120


def test_the_scale_and_small_images(scene):
    half = InputPolicy((32, 32), tiles="tiled", scale=0.5)
    assert views(scene, half, count=1)[0][0].shape == (64, 64, 3)
    large = InputPolicy((128, 128), tiles="tiled")
    assert views(scene, large, count=1)[0][0].shape == (100, 128, 3)


def test_a_crop_is_about_one_object_alone(scene):
    policy, seen = InputPolicy((32, 32), tiles="crop", margin=0.5), set()
    for image, labels in views(scene, policy):
        [one] = np.unique(labels.map)[1:]
        assert (labels.map == one).sum() == (scene[1].map == one).sum()
        assert image.shape[0] == image.shape[1] < 80
        seen.add(int(one))
    assert seen == {1, 2}
    assert views(scene, policy, ("none",), 1)[0][0].shape == (100, 140, 3)


def test_nothing_to_ask_for_changes_nothing_that_fails(scene):
    image, labels = scene
    empty = Labels(np.zeros_like(labels.map), labels.classes)
    for tiles in ("crop", "tiled", "whole"):
        policy = InputPolicy((32, 32), tiles=tiles)
        part, found = drawn_view(image, empty, policy, Draws(np.random.default_rng(0)), ("box",))
        assert part.shape[:2] == found.map.shape == ((32, 32) if tiles == "tiled" else (100, 140))


def test_a_data_set_shows_tiles_in_training_and_keeps_images_in_evaluation(make_pairs):
    root = make_pairs(["a", "b"], size=(50, 60), mask=np.pad(np.full((30, 40), 255, np.uint8), 10))
    for train in (True, False):
        data = SegmentationDataset(
            find_records(root), DataConfig(augment="none"), (32, 32), mask_size=(16, 16),
            train=train, input=POLICY,
        )  # fmt: skip
        example = data[0]
        assert example.geometry.original == ((32, 32) if train else (50, 60))
        assert example.pixels.shape == (3, 32, 32)
        assert (example.image is None) == train
        if train:
            assert example.geometry.resized == (32, 32)
        else:
            assert example.image.shape == (50, 60, 3)


@pytest.mark.parametrize(
    "wrong", [{"overlap": 0.95}, {"overlap": -0.1}, {"scale": 0.0}, {"margin": -1.0}]
)
def test_settings_out_of_range(refused, wrong):
    ((name, value),) = wrong.items()
    refused([f"{name}={value}", "must be"], InputConfig, **wrong)
