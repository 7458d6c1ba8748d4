from dataclasses import replace

import numpy as np
import pytest
import torch
from changes import drawn, labelled
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from samtune.data import (
    DataConfig,
    Labels,
    SegmentationDataset,
    fit_geometry,
    fit_image,
    fit_mask,
    splits,
)
from samtune.data.changes import check_changes
from samtune.data.draws import Draws
from samtune.data.transforms import cropped_rotated, fit
from samtune.geometry import InputPolicy

SIDES = st.integers(1, 400)


@settings(deadline=None)
@given(SIDES, SIDES, st.sampled_from([(64, 64), (64, 96), (1024, 1024)]), st.booleans())
def test_geometry_round_trip(h, w, size, stretch):
    geometry = fit_geometry((h, w), size, "stretch" if stretch else "longest")
    assert all(1 <= r <= s for r, s in zip(geometry.resized, size, strict=True))
    assert any(r == s for r, s in zip(geometry.resized, size, strict=True))
    xy = torch.tensor([[0.0, 0.0], [w, h], [w / 3, h / 7]], dtype=torch.float64)
    there = geometry.to_model(xy)
    torch.testing.assert_close(geometry.to_original(there), xy)
    torch.testing.assert_close(there[1], torch.tensor(geometry.resized[::-1]).double())


@settings(deadline=None)
@given(SIDES, SIDES)
def test_longest_side_is_sams_rule(h, w):
    scale = 1024 * 1.0 / max(h, w)
    expected = tuple(max(1, int(side * scale + 0.5)) for side in (h, w))
    assert fit_geometry((h, w), (1024, 1024)).resized == expected


def test_image_that_fits_keeps_its_bytes(make_picture):
    image = make_picture(16, 12)
    pixels, geometry = fit_image(image, (16, 16))
    assert geometry.resized == geometry.original == (16, 12)
    np.testing.assert_array_equal(pixels[:, :, :12].permute(1, 2, 0).numpy(), image)
    assert pixels[:, :, 12:].max() == 0
    assert pixels.dtype == torch.uint8


@pytest.mark.parametrize("resize", ["longest", "stretch"])
def test_resized_as_pillow_does(make_picture, resize):
    image = make_picture(30, 40)
    pixels, geometry = fit_image(image, (20, 20), resize)
    h, w = (15, 20) if resize == "longest" else (20, 20)
    assert geometry.resized == (h, w)
    expected = Image.fromarray(image).resize((w, h), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(pixels[:, :h, :w].permute(1, 2, 0).numpy(), expected)
    assert pixels.shape == (3, 20, 20)


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.booleans())
def test_fitted_masks_take_the_nearest_pixel(h, w, stretch):
    labels = np.arange(h * w, dtype=np.int32).reshape(h, w) + 1
    geometry = fit_geometry((h, w), (24, 32), "stretch" if stretch else "longest")
    fitted = fit_mask(labels, geometry)
    h1, w1 = geometry.resized
    inside = np.zeros((24, 32), bool)
    inside[:h1, :w1] = True
    np.testing.assert_array_equal(fitted > 0, inside)
    # Exact arithmetic: torch's nearest-exact rounds ties with a float scale, either way.
    rows, columns = (
        [min(source - 1, (2 * i + 1) * source // (2 * target)) for i in range(target)]
        for source, target in ((h, h1), (w, w1))
    )
    np.testing.assert_array_equal(fitted[:h1, :w1], labels[rows][:, columns])
    assert fit_mask(np.ones((h, w), bool), geometry).sum() == h1 * w1


def test_a_first_size_comes_before_the_frame(make_picture):
    image = make_picture(40, 60)
    policy = InputPolicy((64, 64), "stretch", first_size=(20, 28))
    pixels, geometry = fit(image, policy)
    smaller, _ = fit_image(image, (20, 28), "stretch")
    expected, _ = fit_image(smaller.permute(1, 2, 0).numpy(), (64, 64), "stretch")
    assert torch.equal(pixels, expected)
    assert (geometry.original, geometry.resized) == ((40, 60), (64, 64))
    once, directly = fit(image, replace(policy, first_size=None))
    assert not torch.equal(pixels, once)
    labels = np.arange(2400, dtype=np.int32).reshape(40, 60)
    by_pillow = Image.fromarray(labels)
    for size in ((20, 28), (64, 64)):
        by_pillow = by_pillow.resize(size[::-1], Image.Resampling.NEAREST)
    assert np.array_equal(fit_mask(labels, geometry), by_pillow)
    assert not np.array_equal(fit_mask(labels, directly), by_pillow)
    assert fit_mask(np.ones((40, 60), bool), geometry).all()


def test_a_rotated_image_goes_through_the_first_size_once(pairs):
    """A turn by next to nothing leaves what evaluation sees."""
    data = DataConfig(root=str(pairs), augment="none", rotate=1e-9)
    policy = InputPolicy((64, 64), "stretch", first_size=(20, 28))
    records = splits(data)["train"]
    train, still = (
        SegmentationDataset(
            records, data, policy.size, train=t, mode="box", mask_size=(16, 16), input=policy
        )
        for t in (True, False)
    )
    assert torch.equal(train[0].pixels, still[0].pixels)


def test_crops_of_an_area_keep_the_aspect(make_picture):
    image, labels = make_picture(20, 30), labelled(np.arange(600, dtype=np.uint16).reshape(20, 30))
    sizes = []
    for seed in range(200):
        part, maps = drawn(image, labels, seed, crop=(0.1, 1.0))
        h, w = maps.map.shape
        assert part.shape == (h, w, 3)
        np.testing.assert_array_equal(part.reshape(-1, 3), image.reshape(-1, 3)[maps.map.ravel()])
        np.testing.assert_array_equal(np.diff(maps.map, axis=1), 1)
        assert abs(w - 1.5 * h) <= 1.5
        sizes.append(h * w / 600)
    assert min(sizes) < 0.15 and max(sizes) > 0.95
    assert abs(np.mean(sizes) - 0.55) < 0.05


def test_crops_of_a_size_lie_in_the_frame(make_picture):
    image, labels = make_picture(64, 96), labelled(np.zeros((64, 96), np.uint8))
    whole, _ = fit_image(image, (32, 48), "stretch")
    places = set()
    for seed in range(40):
        part, maps = drawn(image, labels, seed, crop=(16, 24))
        assert part.shape == (16, 24, 3) and maps.map.shape == (16, 24)
        fits = [
            (y, x)
            for y in range(17)
            for x in range(25)
            if np.array_equal(whole[:, y : y + 16, x : x + 24].permute(1, 2, 0), part)
        ]
        assert len(fits) == 1
        places.add(fits[0])
    assert len(places) > 30


def test_rotation_marks_its_corners():
    mask = np.zeros((40, 40), np.uint16)
    mask[4:16, 10:30] = 300
    image = np.where(mask > 0, 200, 90).astype(np.uint8)[..., None].repeat(3, 2)
    labels = Labels(mask, np.zeros(300, np.int64))
    outside = []
    for seed in range(30):
        moved, maps = drawn(image, labels, seed, (40, 40), rotate=90.0)
        assert moved.shape == image.shape and maps.map.dtype == np.uint16
        np.testing.assert_array_equal(moved[..., 0], np.where(maps.map > 0, 200, 90 * maps.valid))
        assert set(np.unique(maps.map)) <= {0, 300} and not maps.map[~maps.valid].any()
        outside.append((~maps.valid).mean())
    assert max(outside) > 0.12 and min(outside) < 0.06


def test_the_same_generator_gives_the_same_part(make_picture):
    image, labels = make_picture(40, 60), labelled(np.zeros((40, 60), np.uint8))
    first, second = (drawn(image, labels, 3, crop=(16, 16), rotate=30.0)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    same, kept = drawn(image, labels)
    assert same is image and kept is labels


@pytest.mark.parametrize(
    ("settings", "tiles", "said"),
    [
        ({"crop": (0.0, 1.0)}, "whole", "crop=[0.0, 1.0]: must be"),
        ({"crop": (0.5, 0.1)}, "whole", "crop"),
        ({"crop": (0.5, 256.0)}, "whole", "crop"),
        ({"crop": (25.5, 30.0)}, "whole", "crop"),
        ({"rotate": 200.0}, "whole", "rotate=200.0"),
        ({"corners": "class_0"}, "whole", "corners=class_0: corners only become empty"),
        ({"crop": (0.1, 1.0)}, "tiled", "data.crop: input.tiles=tiled"),
        ({"rotate": 10.0}, "crop", "data.rotate: input.tiles=crop"),
    ],
)
def test_refused_changes(refused, settings, tiles, said):
    refused(said, lambda: check_changes(DataConfig(**settings), tiles))


def test_a_rotated_image_keeps_its_channels_until_it_is_fitted():
    image = np.zeros((16, 16, 3), np.uint8)
    image[..., 0] = 200
    labels = Labels(np.zeros((16, 16), np.int32), np.zeros(0, np.int64), None)
    policy = InputPolicy((16, 16), channels="bgr")
    data = DataConfig(rotate=1.0)
    turned, _ = cropped_rotated(image, labels, data, policy, Draws(np.random.default_rng(0)))
    assert turned[8, 8].tolist() == [200, 0, 0]
