"""The loss at each image's own size, against the published formula written out."""

from dataclasses import replace

import pytest
import tiny
import torch
import torch.nn.functional as F

from samtune.data import DataConfig, PromptConfig, SegmentationDataset, collate, find_records
from samtune.engine import fit
from samtune.errors import InputError
from samtune.finetuned import FineTuned
from samtune.losses import Loss
from samtune.objective import Objective, at_own_size
from samtune.schedule import FitConfig

FRAME = (64, 64)


def images(root, own_size=True, mode="box", **changes) -> SegmentationDataset:
    prompts = PromptConfig(box_jitter=0, clicks=2)
    config = DataConfig(augment="none", **changes)
    return SegmentationDataset(
        find_records(root),
        config,
        FRAME,
        mask_size=FRAME,
        prompts=prompts,
        train=True,
        mode=mode,
        own_size=own_size,
    )


@pytest.fixture
def batch(tmp_path):
    """Three images of two sizes, one of them with two objects and one without any."""
    wide = tiny.write_pairs(tmp_path / "wide", count=2, size=(48, 90))
    tall = tiny.write_pairs(tmp_path / "tall", count=1, size=(70, 30))
    examples = [images(wide)[0], images(wide)[1], images(tall)[0]]
    empty = examples[1].prompts.only(torch.zeros(1, dtype=torch.bool))
    examples[1] = replace(
        examples[1],
        prompts=empty,
        targets=examples[1].targets[:0],
        original=examples[1].original[:0],
        classes=examples[1].classes[:0],
    )
    return collate(examples)


def test_against_the_formula(sam, batch):
    """BCE over all pixels of an image plus Dice, at the image's size; the mean over the images."""
    model = FineTuned(sam, "none", "tuned").eval()
    masks = model(batch.pixels, batch.prompts, batch.sizes)
    expected = []
    for row, i in enumerate((0, 2)):
        geometry = batch.geometries[i]
        h, w = geometry.resized
        z = F.interpolate(masks.logits[row : row + 1], FRAME, mode="bilinear")[..., :h, :w]
        z = F.interpolate(z, geometry.original, mode="bilinear")[0, 0]
        target = batch.originals[i][0].float()
        assert z.shape == target.shape == geometry.original != FRAME
        p = z.sigmoid()
        dice = 1 - (2 * (p * target).sum() + 1) / (p.sum() + target.sum() + 1)
        expected.append(F.binary_cross_entropy_with_logits(z, target) + dice)
    found = at_own_size(Loss.parse("bce + dice"), masks, batch)
    assert found.item() == pytest.approx(sum(expected).item() / 3, abs=1e-6)
    found.backward()
    assert any(p.grad.any() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("mode", ["box", "none", "2_clicks"])
@pytest.mark.parametrize("loss", ["bce + dice", "20*focal + iou_head"])
def test_at_the_frames_size_both_agree(sam, tmp_path, mode, loss):
    data = images(tiny.write_pairs(tmp_path, count=2, size=FRAME), mode=mode)
    together, model = collate([data[0], data[1]]), FineTuned(sam, "none", "tuned").eval()
    values = []
    for at in ("frame", "image"):
        torch.manual_seed(0)
        objective = Objective(model, Loss.parse(loss), mode != "none", data.rounds, at)
        values.append(objective(together).item())
    assert values[1] == pytest.approx(values[0], abs=1e-6)


def test_ignored_pixels_do_not_count(sam, batch):
    model = FineTuned(sam, "none", "tuned").eval()
    masks = model(batch.pixels, batch.prompts, batch.sizes)
    loss = Loss.parse("bce + dice")
    valid = [torch.ones_like(v) for v in batch.original_valid]
    valid[0][10:20] = False
    there = replace(batch, original_valid=tuple(valid))
    changed = [o.clone() for o in batch.originals]
    changed[0][:, 10:20] = ~changed[0][:, 10:20]
    value = at_own_size(loss, masks, there)
    assert value == at_own_size(loss, masks, replace(there, originals=tuple(changed)))
    assert value != at_own_size(loss, masks, batch)


def test_images_without_masks_of_their_size_are_refused(sam, tmp_path):
    root = tiny.write_pairs(tmp_path, count=2)
    model = FineTuned(sam, "none", "tuned")
    config = FitConfig(max_steps=1, loss_at="image")
    with pytest.raises(InputError, match=r"own_size=True"):
        fit(model, images(root, own_size=False), None, config, cpu=True)
    assert fit(model, images(root), None, config, cpu=True).steps == 1
