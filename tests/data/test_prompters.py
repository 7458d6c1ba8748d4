import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from samtune.data import PROMPTERS, PromptConfig, fit_geometry, fit_mask
from samtune.data.draws import Draws
from samtune.data.prompters import (
    MASK_LOGIT,
    Objects,
    Sampling,
    assign,
    central,
    prompter,
    sample_box,
    sample_mask,
    sample_point,
)
from samtune.prompts import POSITIVE


def objects(labels, size=(32, 32)):
    geometry = fit_geometry(labels.shape, size)
    return Objects(labels, fit_mask(labels, geometry), int(labels.max()))


def draw(train, seed=0, mask_size=(32, 32), **config):
    return Sampling(PromptConfig(**config), train, Draws(np.random.default_rng(seed)), mask_size)


def every(o):
    return np.flatnonzero(np.bincount(o.map.ravel(), minlength=o.count + 1)[1:])


label_maps = st.integers(0, 10_000).map(
    lambda seed: np.random.default_rng(seed).choice(
        np.array([0, 0, 1, 2, 3], np.uint8),
        tuple(np.random.default_rng(seed).integers(1, 20, 2)),
    )
)


def test_box_lies_on_pixel_edges():
    labels = np.zeros((10, 20), np.uint8)
    labels[3:8, 4:11], labels[9, 19] = 1, 2
    boxes = sample_box(objects(labels), np.array([0, 1]), draw(False)).boxes()
    assert boxes.tolist() == [[4, 3, 11, 8], [19, 9, 20, 10]]


@settings(deadline=None)
@given(label_maps, st.integers(0, 99))
def test_jittered_boxes_stay_in_the_image_and_near(labels, seed):
    o = objects(labels)
    exact = sample_box(o, every(o), draw(False)).boxes()
    boxes = sample_box(o, every(o), draw(True, seed, box_jitter=0.3)).boxes()
    h, w = labels.shape
    assert (boxes >= 0).all()
    assert (boxes[:, 2] <= w).all()
    assert (boxes[:, 3] <= h).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= 0.4).all()
    sides = (exact[:, 2:] - exact[:, :2]).repeat(1, 2)
    assert ((boxes - exact).abs() <= 0.3 * sides + 0.5).all()


def test_jitter_reaches_both_ways():
    labels = np.zeros((100, 100), np.uint8)
    labels[30:70, 20:80] = 1
    o = objects(labels)
    moves = torch.cat([sample_box(o, every(o), draw(True, s)).boxes() for s in range(200)])
    moves -= torch.tensor([20.0, 30, 80, 70])
    reach = torch.tensor([6.0, 4, 6, 4])
    assert (moves.amin(0) < -0.9 * reach).all()
    assert (moves.amax(0) > 0.9 * reach).all()
    assert (moves.abs() <= reach + 1e-4).all()


@settings(deadline=None)
@given(label_maps, st.booleans(), st.integers(1, 6))
def test_points_lie_in_their_object(labels, train, count):
    o = objects(labels)
    which = every(o)
    prompts = sample_point(o, which, draw(train, points=count))
    assert prompts.coords.shape == (len(which), count + 1, 2)  # SAM's padding point comes last
    assert (prompts.labels[:, :count] == POSITIVE).all()
    for k, points in zip(which, prompts.coords[:, :count].long().tolist(), strict=True):
        assert all(labels[y, x] == k + 1 for x, y in points)


def test_central_pixels():
    inside = np.zeros((9, 30), bool)
    inside[1:8, 2:27] = True
    first, second, third = central(inside, 3).tolist()
    assert first[1] == second[1] == 4
    assert abs(first[0] - second[0]) >= 4
    assert len({tuple(p) for p in (first, second, third)}) == 3
    one = np.zeros((3, 3), bool)
    one[2, 1] = True
    assert central(one, 3).tolist() == [[1, 2]] * 3


def test_central_pixel_of_a_ring_is_on_the_ring():
    y, x = np.indices((41, 41)) - 20
    ring = (np.hypot(y, x) < 19) & (np.hypot(y, x) > 9)
    (point,) = central(ring, 1)
    assert 12 < np.hypot(*(point - 20)) < 16


@pytest.mark.parametrize("train", [True, False])
def test_mask_prompt_tells_where_the_object_is(train):
    labels = np.zeros((64, 64), np.uint8)
    labels[8:40, 16:48] = 1
    o = objects(labels, (128, 128))
    masks = sample_mask(o, np.array([0]), draw(train, mask_size=(32, 32))).masks
    assert masks.shape == (1, 1, 32, 32)
    target = torch.from_numpy(o.fitted.reshape(32, 4, 32, 4).mean((1, 3)) > 0.5)
    found = masks[0, 0] > 0
    assert (found & target).sum() / (found | target).sum() > 0.6
    assert masks.abs().max() <= MASK_LOGIT + (5 if train else 0)
    if not train:
        assert masks.max() > 5.9
        assert masks.min() < -5.9
        assert torch.equal(masks, sample_mask(o, np.array([0]), draw(False, 9)).masks)


def test_erosion_never_removes_an_object():
    labels = np.zeros((64, 64), np.uint8)
    labels[20:24, 20:24] = 1
    o = objects(labels, (64, 64))
    for seed in range(20):
        masks = sample_mask(o, np.array([0]), draw(True, seed, mask_size=(64, 64))).masks
        assert masks[0, 0, 20:24, 20:24].mean() > masks.mean() + 3


@pytest.mark.parametrize("mode", PROMPTERS)
def test_no_objects_no_prompts(mode):
    o = objects(np.zeros((5, 6), np.uint8))
    for train in (True, False):
        prompts = PROMPTERS[mode](o, np.zeros(0, np.int64), draw(train))
        assert len(prompts) == 0
        assert prompts.masks is None or prompts.masks.shape == (0, 1, 32, 32)


@pytest.mark.parametrize(
    "wrong", [{"points": 0}, {"max_objects": 0}, {"box_jitter": -0.1}, {"box_jitter": 1.0}]
)
def test_numbers_out_of_range(refused, wrong):
    ((name, value),) = wrong.items()
    refused(f"{name}={value}: must be", PromptConfig, **wrong)
    assert PromptConfig(box_jitter=0.0).box_jitter == 0


def test_assign_gives_each_object_one_mode():
    groups = assign(np.arange(300), ("box", "point", "mask"), Draws(np.random.default_rng(0)))
    assert [mode for mode, _ in groups] == ["box", "point", "mask"]
    assert sorted(np.concatenate([g for _, g in groups])) == list(range(300))
    assert min(len(g) for _, g in groups) > 70


def test_assign_can_give_all_objects_one_mode():
    drawn = set()
    for seed in range(20):
        groups = assign(
            np.arange(9), ("box", "point"), Draws(np.random.default_rng(seed)), one=True
        )
        assert sorted(len(g) for _, g in groups) == [0, 9]
        drawn |= {mode for mode, g in groups if len(g)}
    assert drawn == {"box", "point"}


@pytest.mark.parametrize("train", [True, False])
def test_binary_masks_leave_the_padding_empty(train):
    geometry = fit_geometry((20, 40), (64, 64))
    labels = np.ones((20, 40), np.uint8)
    o = Objects(labels, fit_mask(labels, geometry), 1, geometry.resized)
    masks = sample_mask(o, every(o), draw(train, mask_size=(16, 16), binary_masks=(2, 0.5))).masks
    assert masks[0, 0].tolist() == [[1.0] * 16] * 8 + [[0.0] * 16] * 8


def test_fewer_clicks_than_one_are_refused(refused):
    refused("clicks=0", PromptConfig, clicks=0)


def test_binary_masks_and_inclusive_boxes_out_of_range(refused):
    for wrong in ((0, 0.5), (8, 1.0), (8, -0.1)):
        refused("binary_masks", PromptConfig, binary_masks=wrong)
    refused("inclusive_boxes", PromptConfig, inclusive_boxes=True, box_scale=1.0)


def test_numbered_points_and_first_clicks():
    labels = np.zeros((20, 20), np.uint8)
    labels[2:9, 3:15] = 1
    o = objects(labels)
    for mode, count in (("3_points", 3), ("point", 2), ("clicks", 1), ("4_clicks", 1)):
        found = prompter(mode)(o, every(o), draw(False, points=2))
        assert found.coords.shape == (1, count + 1, 2)
        assert (
            found.coords[0, :1] == prompter("clicks")(o, every(o), draw(False)).coords[0, 0]
        ).all()


@pytest.mark.parametrize(("mode", "plain"), [("jittered_box", "box"), ("noisy_mask", "mask")])
def test_noise_in_evaluation_is_that_of_training_and_seeded(mode, plain):
    labels = np.zeros((64, 64), np.uint8)
    labels[10:40, 12:50] = 1
    o = objects(labels)

    def values(name, train, seed):
        found = prompter(name)(o, every(o), draw(train, seed))
        return found.boxes() if found.masks is None else found.masks

    noisy = values(mode, False, 3)
    assert torch.equal(noisy, values(mode, False, 3)) and torch.equal(noisy, values(plain, True, 3))
    assert not torch.equal(noisy, values(mode, False, 4))
    assert not torch.equal(noisy, values(plain, False, 3))
