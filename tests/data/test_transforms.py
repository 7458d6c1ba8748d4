import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import zoom

from samtune.data import (
    DataConfig,
    Labels,
    SegmentationDataset,
    augment,
    augmentations,
    fit_geometry,
    fit_image,
    fit_mask,
    splits,
)
from samtune.data.changes import check_changes
from samtune.data.draws import Draws
from samtune.data.labels import label_objects
from samtune.data.transforms import cropped_rotated, fit
from samtune.geometry import InputPolicy
from samtune.runs.config import from_words

SIDES = st.integers(1, 400)


def labelled(mask, valid=None):
    return Labels(mask, np.zeros(int(mask.max()), np.int64), valid)


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


ODD = [((48, 64), (24, 50)), ((24, 50), (48, 64)), ((7, 31), (48, 64)), ((101, 1), (48, 64)),
       ((48, 64), (1, 93)), ((1, 1), (5, 3)), ((9, 9), (9, 4)), ((512, 3), (224, 2))]  # fmt: skip


@pytest.mark.parametrize(("source", "target"), ODD)
def test_spline_takes_the_pixels_of_scipys_zoom(source, target):
    """Both ways: of labels into the frame, and of logits back, which is to zoom their argmax."""
    rng = np.random.default_rng(0)
    factors = np.divide(target, source)
    labels = rng.integers(1, 200, source, dtype=np.uint8)
    into = fit_geometry(source, target, "spline")
    fitted = fit_mask(labels, into)
    np.testing.assert_array_equal(fitted, zoom(labels, factors, order=0))
    np.testing.assert_array_equal(fit_mask(labels > 0, into), fitted > 0)
    logits = torch.tensor(rng.normal(size=(1, 7, *source))).float()
    back = fit_geometry(target, source, "spline").masks_to_original(logits)
    expected = zoom(logits.argmax(1)[0].numpy(), factors, order=0)
    np.testing.assert_array_equal(back.argmax(1)[0].numpy(), expected)
    one = fit_geometry(target, source, "spline").masks_to_original(logits[:, :1])
    inside = zoom((logits[0, 0] > 0).numpy().astype(np.uint8), factors, order=0)
    np.testing.assert_array_equal(one[0, 0].numpy() > 0, inside > 0)


@pytest.mark.parametrize("size", [(48, 64), (24, 50), (31, 1)])
def test_spline_is_scipys_zoom_of_floats(make_picture, size):
    image = make_picture(*size)
    image[::2, ::3] = 255  # what a cubic spline overshoots, and a byte would cut off
    pixels, geometry = fit(image, InputPolicy((48, 64), "spline"))
    assert (geometry.original, geometry.resized, geometry.model) == (size, (48, 64), (48, 64))
    assert pixels.dtype == torch.float32
    expected = [
        zoom(c / 255, (48 / size[0], 64 / size[1]), order=3) for c in image.transpose(2, 0, 1)
    ]
    np.testing.assert_allclose(pixels.numpy() / 255, expected, rtol=0, atol=1e-6)
    assert size == (48, 64) or pixels.max() > 255
    # a rotation in the frame is one of bytes, which must not wrap around
    turned, _ = drawn(image, labelled(np.zeros(size, np.uint8)), resize="spline", rotate=1e-9)
    np.testing.assert_allclose(
        turned,
        fit(image, InputPolicy((32, 48), "spline"))[0].permute(1, 2, 0).clamp(0, 255),
        atol=0.51,
    )


def test_spline_leaves_no_other_choice(make_picture, refused, monkeypatch):
    for name, value in (
        ("tiles", "tiled"),
        ("tiles", "crop"),
        ("first_size", (20, 28)),
        ("antialias", False),
        ("direct_masks", True),
    ):
        refused([f"input.{name}=", "leave one"], InputPolicy, (8, 8), "spline", **{name: value})
        refused("leave one", replace, InputPolicy((8, 8), "spline"), **{name: value})
    monkeypatch.setitem(sys.modules, "scipy", None)
    policy = InputPolicy((8, 8), "spline")
    assert fit(make_picture(8, 8), policy)[0].shape == (3, 8, 8)  # nothing to resize
    refused("pip install 'samtune[metrics]'", fit, make_picture(8, 9), policy)


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


def test_kyyle_leaves_half_of_the_images(make_picture):
    image = make_picture(40, 40)
    mask = np.zeros((40, 40), np.uint8)
    mask[5:25, 10:20] = 1
    image[mask == 1] = 255
    image[mask == 0] //= 4
    same = moved = 0
    for seed in range(200):
        new, maps = augment(image, labelled(mask), seed, "kyyle")
        same += np.array_equal(new, image)
        turned = any(
            np.array_equal(maps.map, np.rot90(m, k)) for m in (mask, mask.T) for k in range(4)
        )
        if not turned:  # shifted, scaled and rotated: an eighth of all
            moved += 1
            assert maps.valid is None  # the image goes on, mirrored, beyond its edge
            assert new.shape == image.shape and maps.map.max() <= 1
            inside = new[..., 0] > 160
            assert (inside != (maps.map == 1)).mean() < 0.06
    assert 85 < same < 140  # half, and of the quarter turns each fourth
    assert 12 < moved < 42


def drawn(image, labels, seed=0, size=(32, 48), resize="stretch", **settings):
    policy = InputPolicy(size, resize)
    return cropped_rotated(
        image, labels, DataConfig(**settings), policy, Draws(np.random.default_rng(seed))
    )


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


@pytest.mark.parametrize(("name", "inside"), [("isbi2012", 1), ("m_building", 1), ("kvasir", 0)])
def test_corners_are_what_generalized_sam_trains_as_class_0(name, inside):
    """There masks of 255 are class 0 on the first two sets, as the corners are, and 1 on Kvasir."""
    config = from_words([f"gsam-vit_b-{name}"])
    white = label_objects(np.full((60, 60), 255, np.uint8), config.data, Path("mask.png"))
    assert int(white.map.min()) == 1 - inside
    data = replace(config.data, augment="none", crop=None)
    _, turned = cropped_rotated(
        np.full((60, 60, 3), 255, np.uint8),
        white,
        data,
        InputPolicy((60, 60), "stretch"),
        Draws(np.random.default_rng(0)),
    )
    assert turned.map.min() == 0
    assert (turned.map == 0).all() == bool(inside)
    assert turned.valid.all()


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


@pytest.mark.parametrize("voided", [False, True])
def test_empty_corners_may_be_background(voided):
    mask = np.zeros((40, 40), np.uint8)
    mask[4:16, 10:30] = 1
    valid = np.ones((40, 40), bool)
    valid[20:24, 18:22] = not voided
    labels = Labels(mask, np.zeros(1, np.int64), valid if voided else None)
    image = np.full((40, 40, 3), 90, np.uint8)
    plain = {"size": (40, 40), "rotate": 90.0, "masks": "binary"}
    for seed in range(5):
        _, left_out = drawn(image, labels, seed, **plain)
        moved, counted = drawn(image, labels, seed, **plain, corners="class_0")
        np.testing.assert_array_equal(counted.map, left_out.map)
        corners = moved[..., 0] == 0
        np.testing.assert_array_equal(counted.valid, left_out.valid | corners)
        assert counted.valid.all() != voided


@pytest.mark.parametrize("present", [False, True])
@pytest.mark.parametrize("background", [None, 0, 2])
def test_empty_corners_may_be_class_0(present, background):
    """As Generalized SAM fills them; an image need not have class 0 itself."""
    mask = np.full((40, 40), 1, np.uint8)
    mask[:, 20:] = 2
    classes = np.array([3, 0] if present else [3, 1], np.int64)
    settings = {"rotate": 90.0, "masks": "classes", "classes": 4, "background": background}
    image = np.full((40, 40, 3), 90, np.uint8)
    moved, labels = drawn(image, Labels(mask, classes), 3, (40, 40), **settings, corners="class_0")
    corners = moved[..., 0] == 0
    assert corners.mean() > 0.1 and labels.valid.all()
    if background == 0:
        assert not labels.map[corners].any()
    else:
        assert (labels.map[corners] > 0).all()
        assert (labels.classes[labels.map[corners] - 1] == 0).all()
    assert (labels.map[~corners] > 0).all()


def test_the_same_generator_gives_the_same_part(make_picture):
    image, labels = make_picture(40, 60), labelled(np.zeros((40, 60), np.uint8))
    first, second = (drawn(image, labels, 3, crop=(16, 16), rotate=30.0)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    same, kept = drawn(image, labels)
    assert same is image and kept is labels


@pytest.mark.parametrize(
    ("settings", "tiles", "said"),
    [
        ({"crop": (0.0, 1.0)}, "whole", "data.crop=[0.0, 1.0]: neither"),
        ({"crop": (0.5, 0.1)}, "whole", "data.crop"),
        ({"crop": (0.5, 256.0)}, "whole", "data.crop"),
        ({"crop": (25.5, 30.0)}, "whole", "data.crop"),
        ({"rotate": 200.0}, "whole", "data.rotate=200.0"),
        ({"corners": "class_0"}, "whole", "data.corners=class_0: no corner becomes empty"),
        ({"crop": (0.1, 1.0)}, "tiled", "data.crop: input.tiles=tiled"),
        ({"rotate": 10.0}, "crop", "data.rotate: input.tiles=crop"),
    ],
)
def test_refused_changes(refused, settings, tiles, said):
    refused(said, lambda: check_changes(DataConfig(**settings), tiles))


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


def test_affine_does_not_shift_labels_against_the_image():
    labels = np.zeros((80, 80), np.uint8)
    labels[25:50, 30:50] = 1
    image = (labels * 200)[..., None].repeat(3, 2)
    ys, xs = np.indices((80, 80))
    gaps = []
    for seed in range(40):
        torch.manual_seed(seed)
        moved, maps = augmentations._affine(image, labelled(labels))
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


def test_a_rotated_image_keeps_its_channels_until_it_is_fitted():
    image = np.zeros((16, 16, 3), np.uint8)
    image[..., 0] = 200
    labels = Labels(np.zeros((16, 16), np.int32), np.zeros(0, np.int64), None)
    policy = InputPolicy((16, 16), channels="bgr")
    data = DataConfig(rotate=1.0)
    turned, _ = cropped_rotated(image, labels, data, policy, Draws(np.random.default_rng(0)))
    assert turned[8, 8].tolist() == [200, 0, 0]
