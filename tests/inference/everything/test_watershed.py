"""The watershed and the prompts at its seeds, on distances of drawn objects."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from pycocotools import mask as coco

from samtune.data.dense_targets import distances
from samtune.inference.everything.dense_maps import DenseMaps, dense_logits
from samtune.inference.everything.generator import MaskGenerator
from samtune.inference.everything.watershed import (
    WatershedConfig,
    WatershedGenerator,
    instances_of,
    points_of,
    watershed,
)
from samtune.model.finetuned import FineTuned

# pycocotools 2.0 decodes through an old way into NumPy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

RADIUS, STEP = 8, 15
"""Of the discs, and from one centre to the next: each touches its neighbours."""


def discs(rows: int = 4, columns: int = 5) -> np.ndarray:
    size = (rows * STEP + 6, columns * STEP + 6)
    y, x = np.indices(size)
    labels = np.zeros(size, np.int32)
    for k in range(rows * columns):
        middle = (10 + k // columns * STEP, 10 + k % columns * STEP)
        near = (y - middle[0]) ** 2 + (x - middle[1]) ** 2 < RADIUS**2
        labels[near & (labels == 0)] = k + 1
    return labels


def maps_of(labels: np.ndarray, **others) -> DenseMaps:
    return DenseMaps(*distances(labels, np.arange(labels.max())).numpy(), **others)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_discs_that_touch_come_apart():
    labels = discs()
    assert cv2.connectedComponents((labels > 0).astype(np.uint8))[0] == 2, "one region in all"
    maps = maps_of(labels)
    found = instances_of(maps, WatershedConfig())
    assert len(found) == 20 and (found.scores == 1).all() and found.classes is None
    for mask in found.masks():
        k = np.bincount(labels[mask]).argmax()
        assert iou(mask, labels == k) > 0.85
    points = points_of(maps, WatershedConfig()).astype(int)
    assert sorted(labels[points[:, 1], points[:, 0]]) == list(range(1, 21))
    # noise on the maps makes seeds of its own, which smoothing takes away
    rng = np.random.default_rng(0)
    noisy = replace(
        maps,
        centre=maps.centre + rng.normal(0, 0.25, labels.shape).astype(np.float32),
        boundary=maps.boundary + rng.normal(0, 0.25, labels.shape).astype(np.float32),
    )
    assert len(instances_of(noisy, WatershedConfig(smoothing=0))) > 40
    assert len(instances_of(noisy, WatershedConfig(smoothing=2))) == 20


def test_thresholds_and_the_least_area_do_what_they_say():
    labels = discs(1, 2)
    labels[labels == 2] = np.where(np.indices(labels.shape)[0] < 6, 2, 0)[labels == 2]
    maps = maps_of(labels)
    small = int((labels == 2).sum())
    assert len(instances_of(maps, WatershedConfig())) == 2
    kept = instances_of(maps, WatershedConfig(min_area=small + 1))
    assert len(kept) == 1 and kept.areas[0] > small
    half = replace(maps, foreground=0.4 * maps.foreground)
    assert len(instances_of(half, WatershedConfig())) == 0
    assert len(instances_of(half, WatershedConfig(foreground=0.3))) == 2
    for none in ({"centre": 0.0}, {"boundary": 0.0}):
        assert len(instances_of(maps, WatershedConfig(**none))) == 0
    numbers = watershed(maps, WatershedConfig())
    assert sorted(np.unique(numbers)) == [0, 1, 2]


def test_the_foreground_alone_comes_apart_at_its_necks():
    labels = discs()
    maps = DenseMaps((labels > 0).astype(np.float32))
    found = instances_of(maps, WatershedConfig())
    assert len(found) == 20
    for mask in found.masks():
        assert iou(mask, labels == np.bincount(labels[mask]).argmax()) > 0.85
    assert len(points_of(maps, WatershedConfig())) == 20
    assert len(instances_of(maps, WatershedConfig(neck=6.0))) == 1, "no neck is so narrow"
    for size in ((1, 1), (1, 40), (30, 40)):  # all of the image, and none of it
        for full in (0, 1):
            whole = DenseMaps(np.full(size, full, np.float32))
            assert (
                instances_of(whole, WatershedConfig()).areas.tolist() == [size[0] * size[1]] * full
            )
    line = np.zeros((9, 9), np.float32)
    line[4, 2:7] = 1  # narrower than the neck, yet an object
    assert instances_of(DenseMaps(line), WatershedConfig(neck=3.0)).areas.tolist() == [5]


@pytest.mark.slow
def test_three_thousand_objects_are_found_one_by_one():
    y, x = np.indices((50 * 9, 60 * 9))
    inside = (y % 9 - 4) ** 2 + (x % 9 - 4) ** 2 < 16
    whole = maps_of(np.where(inside, y // 9 * 60 + x // 9 + 1, 0).astype(np.int32))
    for maps in (whole, DenseMaps(whole.foreground)):
        instances = instances_of(maps, WatershedConfig())
        assert len(instances) == 3000 == len(np.unique(instances.label_map())) - 1


def test_an_instance_has_the_class_of_most_of_its_pixels():
    labels = discs(1, 3)
    classes = np.where(labels == 2, 4, 1)
    classes[:9] = 0  # less than half of each
    found = instances_of(maps_of(labels, classes=classes), WatershedConfig())
    by_place = np.argsort(found.boxes[:, 0])
    assert found.classes[by_place].tolist() == [1, 4, 1]


def test_nothing_and_one_pixel_have_no_instances():
    for size in ((1, 1), (5, 40)):
        empty = maps_of(np.zeros(size, np.int32))
        assert len(instances_of(empty, WatershedConfig())) == 0
        assert points_of(empty, WatershedConfig()).shape == (0, 2)
    assert len(instances_of(maps_of(np.ones((1, 1), np.int32)), WatershedConfig())) == 1
    whole = instances_of(maps_of(np.ones((30, 40), np.int32)), WatershedConfig())
    assert whole.areas.tolist() == [1200]


@pytest.fixture(scope="module")
def model() -> FineTuned:
    torch.manual_seed(0)
    options = {"prompts": "frozen", "object_classes": 3}
    return FineTuned(tiny.base(), "none", "instances", decoder_options=options, prompts="box,point")


def image(size=(64, 64)) -> np.ndarray:
    return tiny.pixels(1, size)[0].permute(1, 2, 0).byte().numpy()


def test_seeds_are_prompts_of_the_decoder_beside_it(model):
    low = WatershedConfig("prompts", foreground=0.0, centre=0.55, boundary=0.55, overlap=0.9)
    with torch.no_grad():
        maps = DenseMaps.of(model.eval(), image())
    points = points_of(maps, low)
    assert 1 <= len(points)
    found = WatershedGenerator(model, low)(image())
    assert 1 <= len(found) <= len(points) and found.classes is not None
    predictor = model.predictor()
    predictor.set_image(image())
    for i, point in enumerate(found.points):
        masks, scores, _ = predictor.predict(point[None], np.ones(1), multimask_output=False)
        assert np.array_equal(masks[0], found.mask(i))
        assert found.scores[i] == pytest.approx(np.clip(scores[0], 0, 1), abs=1e-5)
        assert found.classes[i] == np.bincount(maps.classes[masks[0]]).argmax()
    coded = [{"size": [64, 64], "counts": c.encode()} for c in found.counts]
    pairs = np.asarray(coco.iou(coded, coded, [0] * len(coded)))
    assert (pairs[~np.eye(len(coded), dtype=bool)] <= 0.9).all()
    assert len(WatershedGenerator(model, replace(low, centre=0.0))(image())) == 0


def test_tiles_are_blended_into_one_map(model):
    cut = FineTuned(model.sam, "none", model.decoder, input={"tiles": "tiled", "overlap": 0.5})
    small = image()
    same, blended = dense_logits(model.eval(), small), dense_logits(cut.eval(), small)
    for name in same:  # one tile is the whole image
        torch.testing.assert_close(blended[name], same[name])
    large = dense_logits(cut, image((90, 130)))
    assert large["distances"].shape == (3, 90, 130)
    flat = np.full((90, 130, 3), 100, np.uint8)
    maps = dense_logits(cut, flat)["distances"]
    alone = dense_logits(cut, flat[:64, :64])["distances"]
    torch.testing.assert_close(maps[:, :10, :10], alone[:, :10, :10])
    assert maps.amax() <= alone.amax() + 1e-4 and maps.amin() >= alone.amin() - 1e-4


def test_files_and_grey_images_come_in_and_records_go_out(model, tmp_path):
    grey = image()[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    model.about = {"watershed": {"settings": {"foreground": 0.1, "boundary": 0.55}}}
    find = WatershedGenerator(model, WatershedConfig(boundary=0.6), centre=0.5, foreground=0.0)
    assert (find.config.foreground, find.config.boundary, find.config.centre) == (0.0, 0.6, 0.5)
    assert WatershedGenerator(model, centre=0.7).config.foreground == 0.1, "as it was fitted"
    model.about = None
    done = []
    instances = find.generate(tmp_path / "grey.png", progress=lambda *numbers: done.append(numbers))
    assert done == [(1, 1)] and instances.counts == find(grey).counts
    assert [row["area"] for row in find.records(grey)] == instances.areas.tolist()


def test_a_model_without_distances_or_prompts_is_refused(model, refused, monkeypatch):
    plain = FineTuned(model.sam)
    refused(["frozen", "distances", "MaskGenerator"], WatershedGenerator, plain)
    alone = FineTuned(model.sam, "none", "instances")
    asked = WatershedConfig("prompts")
    refused(["decoder_options={'prompts': 'tuned'}"], WatershedGenerator, alone, asked)
    refused(["samtune.WatershedGenerator finds them"], MaskGenerator, alone)
    refused(["centre", "1.5"], WatershedConfig, centre=1.5)
    monkeypatch.setattr("samtune.errors.find_spec", lambda name: None)
    refused(["samtune[instances]"], WatershedGenerator, alone)
