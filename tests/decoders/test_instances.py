"""The decoder of distances: its maps, what it implies for a run, and instances that it learns."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
import tiny_vit_golden
import torch

from samtune.data.dense_targets import distances
from samtune.decoders import DECODERS
from samtune.inference.everything.dense_maps import DenseMaps
from samtune.inference.everything.watershed import (
    WatershedConfig,
    WatershedGenerator,
    instances_of,
)
from samtune.losses import Loss
from samtune.losses import distances as loss_of_distances
from samtune.losses.dense import foreground
from samtune.model.finetuned import FineTuned
from samtune.prompts import Prompts
from samtune.runs.config import resolve

BASES = {"vit": tiny.base, "tiny_vit": tiny_vit_golden.base}


@pytest.mark.parametrize("scale", [4, 8])
@pytest.mark.parametrize("base", BASES)
@torch.no_grad()
def test_the_maps_are_finer_than_the_embedding(base, scale):
    options = {"scale": scale, "object_classes": 5, "prompts": "tuned", "image": scale == 8}
    model = FineTuned(BASES[base](), "none", "instances", decoder_options=options).eval()
    pixels = tiny.pixels(2, (48, 80))
    features = model.encode(model.preprocess(pixels))
    h, w = features.embedding.shape[-2:]
    maps = model.decoder.dense(features)
    assert maps["distances"].shape == (2, 3, scale * h, scale * w)
    assert maps["object_classes"].shape == (2, 5, scale * h, scale * w)
    blank = replace(features, pixels=None if scale == 4 else 0 * features.pixels)
    same = torch.equal(maps["distances"], model.decoder.dense(blank)["distances"])
    assert same == (scale == 4), "with image=true it sees the pixels"
    prompts = tiny.boxes([0, 1, 1], (48, 80))
    plain = FineTuned(model.sam).eval()
    assert torch.equal(model(pixels, prompts).logits, plain(pixels, prompts).logits)
    assert not model(pixels, prompts).dense and model.train()(pixels, prompts).dense


@torch.no_grad()
def test_alone_it_answers_with_the_foreground():
    model = FineTuned(tiny.base(), "none", "instances", decoder_options={"scale": 8}).eval()
    assert not model.decoder.prompted
    masks = model(tiny.pixels(2), Prompts.of(image=torch.tensor([1, 0, 1])))
    assert masks.logits.shape == (3, 1, *model.mask_size)
    fine = masks.dense["distances"][:, :1]
    average = torch.nn.functional.avg_pool2d(fine, 2)
    torch.testing.assert_close(masks.logits, average[[1, 0, 1]])
    assert ((masks.iou >= 0) & (masks.iou <= 1)).all()


def test_a_run_follows_from_the_decoder(refused):
    data = {"data": {"root": "nuclei", "masks": "instance"}}
    alone = resolve([data, {"decoder": {"name": "instances"}}])
    assert alone.train.loss == "distances + foreground" and alone.prompts.train == "none"
    assert alone.train.peak_lr == 1e-3
    both = {"name": "instances", "prompts": "tuned", "object_classes": 3}
    beside = resolve([data, {"decoder": both}])
    assert beside.train.loss == "bce + dice + iou_head + distances + foreground + object_ce"
    assert beside.prompts.train == ["box", "point"]
    assert alone.prompts.evaluated_modes == ("none", "instances")
    assert beside.prompts.evaluated_modes == ("box", "point", "instances")
    mine = resolve([data, {"decoder": both, "train": {"loss": "dice + distances + 2*object_ce"}}])
    assert mine.train.loss == "dice + distances + 2*object_ce"
    other = {"decoder": {"name": "instances"}, "prompts": {"train": "box"}}
    refused("prompts.train=none", resolve, [data, other])
    refused("add distances", resolve, [data, {**other, "train": {"loss": "bce + dice"}}])
    refused("leave it out", resolve, [data, {"train": {"loss": "distances"}}])
    one = {"data": {"root": "polyps"}, "decoder": {"name": "instances"}}
    refused(["data.masks=auto", "data.masks=instance"], resolve, [one])
    parts = resolve([one, {"data": {"masks": "binary", "objects": "component"}}])
    assert parts.train.loss == "distances + foreground"


def test_it_says_what_it_reads():
    decoder = DECODERS["instances"]
    assert decoder.dense_targets_of({}) == ("distances",)
    assert decoder.dense_targets_of({"object_classes": 2}) == ("distances", "object_classes")
    assert not decoder.takes_prompts({}) and decoder.takes_prompts({"prompts": "frozen"})
    for name in set(DECODERS) - {"instances"}:
        assert DECODERS[name].dense_targets_of({}) == () and DECODERS[name].implied({}) == {}


def two_discs() -> np.ndarray:
    """Two discs of 11 pixels that touch."""
    rows, columns = np.indices((64, 64))
    labels = np.zeros((64, 64), np.uint8)
    for k, x in enumerate((22, 42)):
        labels[(rows - 32) ** 2 + (columns - x) ** 2 < 11**2] = k + 1
    return labels


def test_trained_on_two_discs_that_touch_it_tells_them_apart():
    torch.manual_seed(0)
    options = {"scale": 8, "object_classes": 2}
    model = FineTuned(tiny.base(), "none", "instances", decoder_options=options, prompts="none")
    labels = two_discs()
    image = np.array([[40] * 3, [150, 90, 90], [200, 220, 200]], np.uint8)[labels]
    objects, classes = np.arange(2), np.where(labels > 0, labels.astype(int) - 1, -1)
    target = distances(labels, objects)[None]
    with torch.no_grad():
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
        features = model.encode(model.preprocess(pixels))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    everywhere = torch.ones(1, 64, 64, dtype=torch.bool)
    of_classes = torch.from_numpy(classes)[None]
    for _ in range(160):  # after 80 some seeds still join the discs
        maps = model.decoder.dense(features)
        loss = loss_of_distances(maps["distances"], target, everywhere).mean()
        loss = loss + foreground(maps["distances"], target, everywhere).mean()
        loss = loss + torch.nn.functional.cross_entropy(
            maps["object_classes"], of_classes, ignore_index=-1
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = WatershedGenerator(model)(image)
    assert len(found) == 2 and (found.scores > 0.8).all()
    for mask, kind in zip(found.masks(), found.classes, strict=True):
        truth = labels == kind + 1
        assert (mask & truth).sum() / (mask | truth).sum() > 0.85
    exact = DenseMaps(*distances(labels, objects).numpy())
    assert len(instances_of(exact, WatershedConfig())) == 2
    assert len(np.unique(labels > 0)) == 2, "as one connected region the foreground is one object"


def test_its_losses_are_known():
    assert Loss.parse("distances + object_ce").dense == {"distances": 1, "object_ce": 1}
