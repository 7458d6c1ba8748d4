"""A loss at each image's own size: by hand, and against the one in the model's frame."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from PIL import Image

from samtune.batch import Masks
from samtune.data import DataConfig, PromptConfig, SegmentationDataset, collate, find_records
from samtune.data.transforms import fit_geometry, fit_mask
from samtune.errors import InputError
from samtune.geometry import Geometry, InputPolicy
from samtune.losses import Loss
from samtune.model.finetuned import FineTuned
from samtune.published.spline import NOWHERE
from samtune.runs.words import from_words
from samtune.training.engine import FitConfig, fit
from samtune.training.objective import Objective

FRAME = (64, 64)
PADDED = [
    Geometry((40, 52), (49, 64), FRAME),
    Geometry((150, 90), (64, 38), FRAME),
    Geometry((30, 30), FRAME, FRAME),
]
SIZES = ((40, 52), (150, 90), (30, 30))
DIRECT = InputPolicy(FRAME, "stretch", direct_masks=True).way()
STRETCHED = [Geometry(size, FRAME, FRAME, DIRECT) for size in SIZES]
ALL_TERMS = "20*focal + dice + bce + iou + structure + bbce_per_mask + iou_head"


@pytest.fixture
def random():
    return torch.Generator().manual_seed(0)


def bilinear(x, size):
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


@pytest.mark.parametrize("geometries", [PADDED, STRETCHED], ids=["padded", "stretched"])
@pytest.mark.parametrize("counts", [(2, 1, 3), (1, 0, 2)])
def test_the_loss_is_cat_sams_formula(geometries, counts, random):
    """BCE is a mean over all pixels of an image's prompts, Dice over its prompts; then images."""
    image = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
    image = image[torch.randperm(len(image), generator=random)]
    logits = 3 * torch.randn(len(image), 1, 16, 16, generator=random, dtype=torch.float64)
    logits.requires_grad_()
    targets, valid, expected = [], [], torch.zeros((), dtype=torch.float64)
    for i, (geometry, n) in enumerate(zip(geometries, counts, strict=True)):
        targets.append(torch.rand(n, *geometry.original, generator=random) > 0.6)
        valid.append(torch.rand(geometry.original, generator=random) > 0.2)
        if geometry in STRETCHED:
            z = bilinear(logits[image == i], geometry.original)
        else:
            h, w = geometry.resized
            z = bilinear(bilinear(logits[image == i], FRAME)[..., :h, :w], geometry.original)
        z, t = z[:, 0][:, valid[i]], targets[i][:, valid[i]].double()
        if not n:
            continue
        p = 1 / (1 + torch.exp(-z))
        entropy = -(t * p.log() + (1 - t) * (1 - p).log()).mean()
        overlap, total = (p * t).sum(1), p.sum(1) + t.sum(1)
        expected = expected + (entropy + (1 - (2 * overlap + 1) / (total + 1)).mean()) / 3
    prompts = replace(tiny.boxes([0] * len(image)), image=image)
    batch = tiny.own_size(prompts, geometries, targets, valid)
    found = Loss.parse("bce + dice", "image")(Masks(logits, torch.rand(len(image), 1)), batch)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(value, logits)[0] for value in (found, expected)]
    torch.testing.assert_close(*gradients)


def same_size(batch):
    """The batch, whose images have exactly the frame's size, with its targets at that size."""
    of = [batch.targets[batch.prompts.image == i] for i in range(len(batch.valid))]
    return replace(batch, originals=tuple(of), original_valid=tuple(batch.valid))


def both(expression, masks, batch):
    """The loss in the frame and at the image's size, and the gradients of each."""
    found = []
    for at in ("frame", "image"):
        leaves = [t.clone().requires_grad_() for t in (masks.logits, masks.iou)]
        value = Loss.parse(expression, at)(replace(masks, logits=leaves[0], iou=leaves[1]), batch)
        value.backward()
        zeros = (torch.zeros_like(t) if t.grad is None else t.grad for t in leaves)
        found.append((value.detach(), *zeros))
    return found


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("image", [[1, 0, 1, 1], [1, 1], []])
def test_frame_and_image_agree_where_they_have_one_size(image, k, random):
    batch, n = same_size(tiny.batch(image)), len(image)
    logits, iou = torch.randn(n, k, 16, 16, generator=random), torch.rand(n, k, generator=random)
    masks = Masks(logits, iou, auxiliary=torch.tensor(0.7))
    frame, own = both(ALL_TERMS, masks, batch)
    for a, b in zip(frame, own, strict=True):
        torch.testing.assert_close(a, b)
    if not image:
        assert own[0] == 0


def test_class_maps_agree_too(random):
    classes = torch.randint(0, 3, (2, *FRAME), generator=random)
    batch = replace(tiny.batch([0, 1]), targets=classes)
    batch = same_size(replace(batch, targets=torch.where(batch.valid, classes, -1)))
    masks = Masks(torch.randn(2, 3, 16, 16, generator=random), torch.rand(2, 3), exclusive=True)
    frame, own = both("0.2*ce + 0.8*multi_dice", masks, batch)
    for a, b in zip(frame, own, strict=True):
        torch.testing.assert_close(a, b)


def test_bbce_counts_over_each_image(random):
    batch = same_size(tiny.batch([0, 1, 1]))
    masks = Masks(torch.randn(3, 1, 16, 16, generator=random), torch.rand(3, 1))
    _, (own, *_) = both("bbce", masks, batch)
    singles = []
    for i in range(2):
        rows = batch.prompts.image == i
        prompts = batch.prompts.only(rows).at(0)
        alone = replace(
            batch, pixels=batch.pixels[:1], prompts=prompts, targets=batch.targets[rows],
            valid=batch.valid[i : i + 1],
        )  # fmt: skip
        singles.append(Loss.parse("bbce")(Masks(masks.logits[rows], masks.iou[rows]), alone))
    torch.testing.assert_close(own, torch.stack(singles).mean())
    assert not torch.allclose(own, Loss.parse("bbce")(masks, batch))


@pytest.mark.parametrize(("rounds", "multimask"), [(1, False), (3, True)])
def test_a_model_has_one_loss_where_they_agree(sam, rounds, multimask):
    """With clicks, SAM's three masks and an adapter's own loss."""
    torch.manual_seed(0)
    model = FineTuned(sam, "conv_lora", "tuned").train()
    batch, found = same_size(tiny.batch([1, 0, 1])), []
    for at in ("frame", "image"):
        torch.manual_seed(1)
        loss = Loss.parse("dice + bce + iou_head", at)
        found.append(Objective(model, loss, multimask, rounds)(batch))
    assert found[0] > 0
    torch.testing.assert_close(*found)


MIXED = DataConfig(masks="instance", augment="mirrors", crop=(0.2, 1.0), min_area=1)


@pytest.fixture
def folder(tmp_path):
    """Three images of several sizes with two instances each, and one without any."""
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for name, size in (("a", (24, 30)), ("b", (70, 45)), ("c", (40, 90)), ("d", (20, 20))):
        mask = np.zeros(size, np.uint16)
        if name != "d":
            mask[2:9, 3:12] = 300
            mask[12:19, 10:28] = 301
        image = np.random.default_rng(ord(name)).integers(0, 256, (*size, 3)).astype(np.uint8)
        Image.fromarray(image).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
    return find_records(tmp_path)


@pytest.mark.parametrize(
    ("changes", "mode", "policy"),
    [
        ({}, "box", {}),
        ({}, ["box", "none"], {"resize": "stretch"}),
        ({"masks": "classes", "classes": 302, "ignore": 300}, "none", {}),
        ({"crop": None}, "box", {"tiles": "crop"}),
        ({"crop": None}, "box", {"tiles": "tiled", "scale": 3.0}),
    ],
    ids=["crops", "stretched", "classes", "around objects", "tiles"],
)
def test_training_targets_at_the_own_size_are_those_of_the_frame(folder, changes, mode, policy):
    data = replace(MIXED, **changes)
    options = {"mask_size": (16, 16), "train": True, "mode": mode, "seed": 3}
    policy = InputPolicy(FRAME, **policy)
    plain = SegmentationDataset(folder, data, FRAME, input=policy, **options)
    full = plain.with_originals()
    assert not plain.originals
    sizes = set()
    for i in range(len(plain)):
        lean, own = plain[i], full[i]
        assert lean.original is None and lean.original_valid is None
        assert torch.equal(own.targets, lean.targets) and torch.equal(own.pixels, lean.pixels)
        sizes.add(own.geometry.original)
        assert own.original.shape == (len(own.targets), *own.geometry.original)
        assert own.original.dtype == own.targets.dtype
        assert np.array_equal(fit_mask(own.original_valid.numpy(), own.geometry), own.valid)
        for mine, target in zip(own.original.numpy(), own.targets, strict=True):
            inside = own.valid.numpy()
            assert np.array_equal(fit_mask(mine, own.geometry)[inside], target.numpy()[inside])
    assert len(sizes) > 1
    batch = collate([full[i] for i in range(len(full))])
    assert [len(t) for t in batch.originals] == torch.bincount(
        batch.prompts.image, minlength=len(full)
    ).tolist()


def test_a_training_takes_its_loss_there(sam, folder, monkeypatch):
    """The first loss is the mean over the images of each one's, taken by itself."""
    prompts = PromptConfig(train="box", box_jitter=0)
    config = replace(MIXED, augment="none", crop=None)
    data = SegmentationDataset(
        folder, config, FRAME, prompts=prompts, mask_size=(32, 32), train=True
    )
    model, rows = FineTuned(sam, "none", "tuned").train(), []
    loss, singles = Loss.parse("bce + dice", "image"), []
    with torch.no_grad():
        for example in map(data.with_originals().__getitem__, range(len(data))):
            one = collate([example])
            singles.append(Objective(model, loss, False)(one))
    settings = FitConfig(
        max_steps=1, batch_size=len(data), loss="bce + dice", loss_at="image", log_every=1
    )
    fit(model, data, None, settings, on_event=rows.append)
    assert rows[0]["loss"] == pytest.approx(float(torch.stack(singles).mean()), rel=1e-5)
    assert singles[-1] == 0 and not data.originals


@pytest.mark.parametrize("word", ["data.rotate=90", "data.crop=[32,32]"])
def test_what_changes_in_the_frame_has_no_size_of_its_own(word, refused, folder, pairs):
    words = [f"data.root={pairs}", "train.loss_at=image"]
    assert from_words([*words, "data.crop=[0.1,1]"]).train.loss_at == "image"
    refused(word.split("=", maxsplit=1)[0], lambda: from_words([*words, word]))
    data = from_words([f"data.root={pairs}", word]).data
    with pytest.raises(InputError, match=r"train\.loss_at=frame"):
        SegmentationDataset(folder, data, FRAME, train=True).with_originals()


def test_rows_that_scipys_zoom_leaves_without_logits_do_not_count(random):
    geometry = fit_geometry((50, 64), FRAME, "spline")
    logits = torch.randn(1, 1, *FRAME, generator=random)
    empty = geometry.masks_to_original(logits)[0, 0] == NOWHERE
    assert empty.nonzero()[:, 0].unique().tolist() == [49]
    target = torch.rand(1, 50, 64, generator=random) > 0.6
    own = geometry.masks_to_original(logits)[0][:, :49]
    expected = F.binary_cross_entropy_with_logits(own, target[:, :49].float())
    for valid in (torch.ones_like(empty), ~empty):
        batch = tiny.own_size(tiny.boxes([0]), [geometry], [target], [valid])
        found = Loss.parse("bce", "image")(Masks(logits, torch.rand(1, 1)), batch)
        torch.testing.assert_close(found, expected)


def test_a_place_other_than_the_two_is_refused():
    with pytest.raises(InputError, match="loss at 'images': no such place; choose frame or image"):
        Loss.parse("bce", "images")
