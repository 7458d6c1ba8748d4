from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from changes import labelled

from samtune.data import augment, augmentations
from samtune.data.augmentations import Change


def test_none_changes_nothing(make_picture, make_blob):
    image, labels = make_picture(), labelled(make_blob(value=1))
    same, kept = augment(image, labels, 3, "none")
    assert same is image
    assert kept is labels


def test_flips_are_the_eight_symmetries(make_picture):
    image = make_picture(5, 5)
    labels = labelled(np.arange(25, dtype=np.uint8).reshape(5, 5))
    seen = set()
    for seed in range(80):
        moved, maps = augment(image, labels, seed, "flips")
        seen.add(maps.map.tobytes())
        np.testing.assert_array_equal(moved.reshape(-1, 3), image.reshape(-1, 3)[maps.map.ravel()])
    assert len(seen) == 8


@pytest.mark.parametrize(("strength", "count"), [("hflip", 2), ("mirrors", 4)])
def test_mirrors_alone(make_picture, strength, count):
    image, labels = make_picture(4, 6), labelled(np.arange(24, dtype=np.uint8).reshape(4, 6))
    seen = {}
    for seed in range(120):
        moved, maps = augment(image, labels, seed, strength)
        np.testing.assert_array_equal(moved.reshape(-1, 3), image.reshape(-1, 3)[maps.map.ravel()])
        seen[maps.map.tobytes()] = seen.get(maps.map.tobytes(), 0) + 1
    wanted = [labels.map, labels.map[:, ::-1], labels.map[::-1], labels.map[::-1, ::-1]][:count]
    assert set(seen) == {np.ascontiguousarray(m).tobytes() for m in wanted}
    assert min(seen.values()) > 60 / count


@pytest.mark.parametrize("strength", ["flips", "standard"])
def test_image_and_labels_move_together(strength):
    """The image shows its own labels, so they must agree wherever no edge is interpolated."""
    labels = np.zeros((60, 80), np.uint8)
    labels[10:30, 15:40], labels[35:55, 40:75] = 1, 2
    image = (labels * 100)[..., None].repeat(3, 2)
    warped = 0
    for seed in range(24):
        moved, maps = augment(image, labelled(labels), seed, strength)
        assert moved.shape[:2] == maps.map.shape
        assert set(np.unique(maps.map)) <= {0, 1, 2}
        means = [float(moved[maps.map == k].mean()) for k in range(3)]
        assert means[0] < means[1] - 30 < means[2] - 60
        inside = np.ones(maps.map.shape, bool) if maps.valid is None else maps.valid
        for k in range(3):  # an edge's pixels differ, the rest is of one value
            values = moved[inside & (maps.map == k)][:, 0].astype(int)
            assert (np.abs(values - np.median(values)) <= 2).mean() > 0.9
        if maps.valid is not None:
            warped += 1
            assert moved[~maps.valid].max(initial=0) <= 130  # only interpolated rims are not black
            assert maps.map[~maps.valid].max(initial=0) == 0
    assert (warped > 5) == (strength == "standard")


def affine(image, labels):
    """A small affine change alone, drawn for the image."""
    return Change(matrix=augmentations._affine(labels.map.shape)).of(image, labels)


def test_affine_is_that_of_kornia(make_picture):
    """The same draws, and the same values but for a kornia that computes its places otherwise."""
    K = pytest.importorskip("kornia.augmentation")
    for seed, size in enumerate([(60, 80), (97, 41), (33, 128), (64, 64)]):
        image, rng = make_picture(*size), np.random.default_rng(seed)
        labels = labelled(rng.integers(0, 4, size).astype(np.uint8))
        if seed % 2:
            labels = replace(labels, valid=rng.random(size) > 0.1)
        valid = np.ones(size, bool) if labels.valid is None else labels.valid
        ranges = (augmentations.DEGREES, (augmentations.SHIFT,) * 2, augmentations.ZOOM)
        slow = K.AugmentationSequential(K.RandomAffine(*ranges, p=1.0), data_keys=["input", "mask"])
        maps = torch.from_numpy(np.stack([labels.map, valid]).astype(np.float32))
        torch.manual_seed(seed)
        pixels, maps = slow(torch.tensor(image).permute(2, 0, 1)[None].float(), maps[None])
        wanted, following = pixels[0].round().byte().permute(1, 2, 0).numpy(), torch.rand(1)
        torch.manual_seed(seed)
        moved, marked = affine(image, labels)
        assert torch.rand(1) == following
        apart = np.abs(moved.astype(int) - wanted)
        assert apart.max() <= 1 and (apart > 0).mean() < 0.01
        assert (marked.map != maps[0, 0].numpy()).mean() < 0.001
        assert (marked.valid != (maps[0, 1].numpy() > 0)).mean() < 0.001


def test_turns_are_those_of_numpy():
    rng = np.random.default_rng(0)
    for kind in (bool, np.uint8, np.uint16, np.int32, np.int64):
        for shape in ((7, 5), (7, 5, 3)):
            array = rng.integers(0, 2 if kind is bool else 200, shape).astype(kind)
            for turns, mirrored in product(range(4), (0, 1)):
                wanted = np.rot90(array, turns)
                wanted = wanted[:, ::-1] if mirrored else wanted
                moved = augmentations._turned(array, turns, mirrored)
                assert moved.dtype == kind and moved.flags.c_contiguous
                np.testing.assert_array_equal(moved, wanted)


def test_affine_does_not_shift_labels_against_the_image():
    labels = np.zeros((80, 80), np.uint8)
    labels[25:50, 30:50] = 1
    image = (labels * 200)[..., None].repeat(3, 2)
    ys, xs = np.indices((80, 80))
    gaps = []
    for seed in range(40):
        torch.manual_seed(seed)
        moved, maps = affine(image, labelled(labels))
        centres = [
            [np.average(axis, weights=weights) for axis in (ys, xs)]
            for weights in (moved[..., 0], maps.map)
        ]
        gaps.append(np.subtract(*centres))
    assert np.abs(gaps).max() < 0.5  # nearest pixels alias
    assert np.abs(np.mean(gaps, axis=0)).max() < 0.05  # half a pixel of disagreement would show


def test_affine_marks_what_lies_outside():
    labels = np.ones((40, 40), np.uint8)
    parts = [augment(np.full((40, 40, 3), 200, np.uint8), labelled(labels), s) for s in range(30)]
    outside = [maps for _, maps in parts if maps.valid is not None and not maps.valid.all()]
    assert len(outside) > 5
    for maps in outside:
        np.testing.assert_array_equal(maps.map > 0, maps.valid)


def test_ignored_pixels_move_too():
    valid = np.ones((20, 30), bool)
    valid[2:9, 3:11] = False
    image = np.where(valid, 250, 0).astype(np.uint8)[..., None].repeat(3, 2)
    labels = labelled(np.zeros((20, 30), np.uint8), valid)
    for seed in range(6):
        moved, maps = augment(image, labels, seed, "flips")
        np.testing.assert_array_equal(moved[..., 0] > 0, maps.valid)


def test_tone_is_what_kornia_does_to_the_image(make_picture):
    import kornia.augmentation as K

    image = make_picture(16, 16)
    torch.manual_seed(5)
    by_table = augmentations._tones()[image]
    torch.manual_seed(5)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    pixels = K.ColorJiggle(augmentations.TONE, augmentations.TONE, 0.0, 0.0, p=1.0)(pixels)
    pixels = K.RandomGamma(augmentations.GAMMA, p=1.0)(pixels)
    direct = (pixels[0] * 255).round().byte().permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(by_table, direct)
    assert not np.array_equal(by_table, image)


def test_same_seed_same_result_and_the_global_state_stays(make_picture, make_blob):
    image, labels = make_picture(), labelled(make_blob(value=1))
    before = torch.random.get_rng_state()
    results = [augment(image, labels, seed) for seed in (1, 1, 2, 3, 4)]
    assert torch.equal(before, torch.random.get_rng_state())
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1].map, results[1][1].map)
    assert len({r[0].tobytes() for r in results}) == 4
