from dataclasses import replace

import numpy as np
import pytest
import torch
from steps import stirred

from samtune.batch import Masks
from samtune.data.transforms import fit_geometry
from samtune.geometry import InputPolicy
from samtune.inference import prompted as tiles
from samtune.inference.prompted import PromptedImage
from samtune.inference.views import OUTSIDE, cut_masks, local, views_of
from samtune.model.finetuned import FineTuned
from samtune.prompts import ABSENT, Prompts

TILED = InputPolicy((64, 64), tiles="tiled")


@pytest.fixture
def model(sam):
    return FineTuned(sam, input=TILED).eval()


@pytest.fixture
def scene():
    """A dark image of 150x200 with a bright rectangle across several tiles."""
    image = np.full((150, 200, 3), 20, np.uint8)
    image[40:110, 30:170] = 220
    return image


class SeesBright(torch.nn.Module):
    """A decoder that answers with what is bright, if only inside of the prompt's box."""

    def forward(self, sam, features, prompts, multimask=False):
        bright = features.state[prompts.image].mean(1, keepdim=True)
        bright = torch.nn.functional.avg_pool2d(bright, 2)
        n = len(prompts)
        return Masks(8 * bright.sign(), torch.ones(n, 1))


@pytest.fixture
def fake(model, monkeypatch):
    """The model, but its masks are the pixels brighter than the base's mean; counts its tiles."""
    seen = []

    def encode(pixels):
        seen.append(len(pixels))
        from samtune.decoders import Features

        return Features(torch.zeros(len(pixels), 1, 8, 8), (64, 64), {}, pixels)

    monkeypatch.setattr(model, "encode", encode)
    model.decoder = SeesBright()
    model.seen = seen
    return model


def box(*xyxy):
    return Prompts.of(boxes=torch.tensor([xyxy], dtype=torch.float32))


@pytest.mark.parametrize("size", [(48, 64), (64, 64), (30, 20)])
@pytest.mark.parametrize("multimask", [False, True])
def test_a_single_tile_is_the_whole_image_bit_for_bit(sam, size, multimask):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    prompts = Prompts.cat([box(2, 3, 18, 17), Prompts.of(count=1)])
    answers = []
    for kind in ("whole", "tiled"):
        model = FineTuned(sam, input=replace(TILED, tiles=kind)).eval()
        answers.append(PromptedImage(model, image).answer(prompts, multimask))
    (whole, low), (tiled, again) = answers
    assert torch.equal(whole.logits, tiled.logits) and torch.equal(whole.iou, tiled.iou)
    assert torch.equal(low, again) and whole.logits.std() > 0


def test_a_prompt_has_one_strength_in_all_tiles(sam, scene):
    model = stirred(sam, "lora", "tuned")
    model.input = TILED
    mask = torch.full((1, 1, *model.mask_size), -5.0)
    mask[..., 4:12, 1:15] = 5  # over several tiles, of which one has the click
    click = {"points": torch.tensor([[[20.0, 70.0]]]), "labels": torch.ones(1, 1)}
    aside = {**click, "boxes": torch.tensor([[140.0, 20.0, 190.0, 140.0]])}
    prompts = Prompts.cat([Prompts.of(**click, masks=mask), Prompts.of(**aside), box(5, 5, 9, 9)])
    image = PromptedImage(model, scene)
    at = {}
    for level in (0.0, 1.0):
        model.strength = level
        at[level] = PromptedImage(model, scene).answer(prompts)[0].logits
    model.strength = {"none": 0.5, "point": 1, "box": 0, "mask": 0.5}
    mixed = image.answer(prompts)[0].logits
    for row, level in enumerate((1.0, 0.0, 0.0)):
        torch.testing.assert_close(mixed[row], at[level][row], atol=1e-4, rtol=1e-3)
    assert not torch.allclose(at[0.0], at[1.0], atol=1e-2)


def test_a_large_image_is_not_the_whole_one(sam, scene):
    found = []
    for kind in ("whole", "tiled", "crop"):
        model = FineTuned(sam, input=replace(TILED, tiles=kind)).eval()
        masks, low = PromptedImage(model, scene).answer(box(50, 50, 90, 90))
        assert masks.logits.shape == (1, 1, 150, 200) and low.shape == (1, 1, 32, 32)
        found.append(masks.logits)
    assert not torch.allclose(found[0], found[1]) and not torch.allclose(found[0], found[2])
    assert (found[2] == OUTSIDE).any() and (found[2] != OUTSIDE).any()


@pytest.mark.parametrize("prompts", [box(30, 40, 170, 110), Prompts.of(count=1)])
@pytest.mark.parametrize("scale", [1.0, 0.7])
def test_an_object_across_seams_is_found_in_one_piece(fake, scene, prompts, scale):
    import cv2

    fake.input = replace(TILED, scale=scale)
    masks, _, _ = PromptedImage(fake, scene).masks(prompts)
    count, _ = cv2.connectedComponents(masks[0, 0].numpy().astype(np.uint8))
    assert count == 2  # the background is one of them
    truth = torch.from_numpy(scene[..., 0] > 100)
    assert (masks[0, 0] ^ truth).float().mean() < 0.02


def test_only_so_many_tiles_are_held_at_once(fake, monkeypatch):
    image = np.zeros((500, 600, 3), np.uint8)
    prompted = PromptedImage(fake, image)
    prompted.answer(Prompts.of(count=1))
    assert sum(fake.seen) > 100 and max(fake.seen) == tiles.AT_ONCE
    fake.seen.clear()
    prompted.answer(box(10, 10, 30, 30))
    prompted.answer(box(12, 12, 30, 30))  # the same tile is not encoded again
    assert fake.seen == [1]


def test_many_prompts_are_answered_in_parts(fake, scene, monkeypatch):
    rows = torch.tensor([[10.0, 10, 60, 60], [40, 50, 90, 100], [100, 60, 190, 120]])
    prompts, image = Prompts.of(boxes=rows), PromptedImage(fake, scene)
    together = image.masks(prompts)
    monkeypatch.setattr(tiles, "LOGIT_BYTES", 1)
    for one, other in zip(together, image.masks(prompts), strict=True):
        assert torch.equal(one, other)
    assert image.masks(prompts.only(torch.zeros(3, dtype=torch.bool)))[0].shape == (0, 1, 150, 200)


def test_prompts_go_to_the_tiles_they_touch():
    size = (150, 200)
    whole = fit_geometry(size, (64, 64))
    asked = Prompts.cat(
        [
            box(2, 2, 20, 20),
            Prompts.of(points=torch.tensor([[[199.0, 149]]]), labels=torch.tensor([[1]])),
            Prompts.of(count=1),
        ]
    )
    views = views_of(asked, size, TILED, whole)
    assert all(2 in view.rows for view in views) and len(views) >= 12
    assert [view.window for view in views if 0 in view.rows] == [(0, 0, 64, 64)]
    assert [view.window for view in views if 1 in view.rows] == [(86, 136, 150, 200)]
    for row in range(3):
        total = torch.zeros(size, dtype=torch.float64)
        for view in (v for v in views if row in v.rows):
            y0, x0, y1, x1 = view.window
            i = view.rows.index(row)
            total[y0:y1, x0:x1] += view.down[i][:, None] * view.across[i]
        assert total.max() == pytest.approx(1) and (row < 2 or total.min() == pytest.approx(1))


def test_boxes_are_cut_at_the_tile_and_points_elsewhere_left_out():
    prompts = Prompts.of(
        boxes=torch.tensor([[0.0, 0, 100, 30]]),
        points=torch.tensor([[[50.0, 20], [5, 5]]]),
        labels=torch.tensor([[1, 0]]),
    )
    moved = local(prompts, (10, 40, 60, 90))
    assert moved.boxes().tolist() == [[0, 0, 50, 20]]
    assert moved.labels[0].tolist() == [1, ABSENT, 2, 3]
    assert moved.coords[0, 0].tolist() == [10, 10]
    assert (local(prompts, (40, 0, 60, 50)).labels == ABSENT).all()


def test_a_mask_prompt_is_seen_by_a_tile_where_it_lies():
    size = (128, 256)
    whole, tile = fit_geometry(size, (64, 64)), fit_geometry((64, 64), (64, 64))
    mask = torch.full((1, 1, 32, 32), -6.0)
    mask[:, :, 8:12, 16:24] = 6  # x 128..192, y 64..96 of the image
    seen = cut_masks(mask, whole, (64, 128, 128, 192), tile)[0, 0]
    assert seen.shape == (32, 32)
    assert (seen[:14] > 0).float().mean() > 0.95 and (seen[18:] < 0).all()
    asked = Prompts.of(masks=mask)
    views = views_of(asked, size, TILED, whole)
    assert views and all(v.window[1] < 192 and v.window[3] > 128 for v in views)


def test_crops_surround_their_prompts():
    size, whole = (300, 400), fit_geometry((300, 400), (64, 64))
    point = Prompts.of(points=torch.tensor([[[200.0, 150]]]), labels=torch.tensor([[1]]))
    asked = Prompts.cat([box(100, 100, 140, 120), point, Prompts.of(count=1)])
    policy = replace(TILED, tiles="crop")
    windows = [view.window for view in views_of(asked, size, policy, whole)]
    assert windows == [(70, 80, 150, 160), (118, 168, 182, 232), (0, 0, 300, 400)]
