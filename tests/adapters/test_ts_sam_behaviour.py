"""What TS-SAM, its detached variant and the fusion decoder do beside their published numbers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from torch import nn

from samtune import adapters
from samtune.adapters import ADAPTERS, Stack
from samtune.adapters.ts_sam import ConvolutionalSideAdapter, MultiScaleRefinement
from samtune.data import DataConfig, fit_geometry, fit_mask
from samtune.data.labels import label_objects
from samtune.decoders.fusion import expected_iou
from samtune.losses import Loss
from samtune.model.finetuned import FineTuned
from samtune.prompts import Prompts
from samtune.runs.config import resolve
from samtune.runs.words import recipes
from samtune.training.schedule import learning_rate


def per_image(images: int) -> Prompts:
    return Prompts.of(image=torch.arange(images))


def test_initial_values():
    csa, mrm = ConvolutionalSideAdapter(768, 256, 256), MultiScaleRefinement(768, 128)
    for module in (csa, mrm):
        module.apply(adapters.ts_sam._initialise)
    stds = [csa.conv1, csa.conv2, mrm.conv_in[0], mrm.fpn1[0], mrm.fpn1[6].res_gate[0]]
    found = [float(m.weight.detach().std()) for m in stds]
    assert found == pytest.approx([0.0510, 0.0885, 0.124, 0.0255, 0.02], rel=0.03)
    assert not csa.conv1.bias.any()
    assert not mrm.conv_in[0].bias.any()
    assert mrm.fpn1[0].bias.any()


def test_zero_init_starts_as_sam_and_trains_everything(sam):
    model = FineTuned(sam, "ts_sam", "fusion", adapter_options={"zero_init": True}).train()
    batch = replace(tiny.batch([0, 1]), prompts=per_image(2))
    x = sam.preprocess(batch.pixels)
    with torch.no_grad():
        assert torch.equal(model.encode(x).embedding, sam.image_encoder(x))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for _ in range(2):
        optimizer.zero_grad()
        Loss.parse("bce")(model(batch.pixels, batch.prompts), batch).backward()
        optimizer.step()
    assert all(p.grad is not None for p in model.parameters())
    assert all(csa.conv1.weight.grad.any() for csa in model.adapter.csa_blocks)
    assert not torch.equal(model.eval().encode(x).embedding, sam.image_encoder(x))


def test_detached_leaves_the_base_without_gradients(sam):
    model = FineTuned(sam, "ts_sam_detached", "fusion").train()
    batch = replace(tiny.batch([0, 1]), prompts=per_image(2))
    x = sam.preprocess(batch.pixels)
    features = model.encode(x)
    assert torch.equal(features.embedding, sam.image_encoder(x))
    assert not features.embedding.requires_grad
    masks = model.decoder(sam, features, batch.prompts)
    Loss.parse("bce")(masks, batch).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_detached_can_be_computed_from_stored_features(sam):
    model = FineTuned(sam, "ts_sam_detached", "fusion", adapter_options={"fft": True}).eval()
    x = sam.preprocess(tiny.pixels(size=(64, 40)))
    encoder, adapter = sam.image_encoder, model.adapter
    streams = [encoder.embed(x)]
    for block in encoder.blocks:
        streams.append(block(streams[-1]))
    state = adapter.begin(encoder, x, streams[0], None)
    for i, stream in enumerate(streams[1:]):
        adapter.leave(i, stream, state)
    adapter.after_neck(encoder.apply_neck(streams[-1]), state)
    for stored, direct in zip(state.maps, model.encode(x).state.maps, strict=True):
        assert torch.equal(stored, direct)


def test_the_stem_layout(sam):
    aligned = FineTuned(sam, "ts_sam", "fusion", adapter_options={"fix_stem_layout": True})
    model = FineTuned(sam, "ts_sam", "fusion")
    patches = torch.randn(1, 3, 5, 32)
    linear = model.adapter.csa_embedding
    for adapter in (model.adapter, aligned.adapter):
        adapter.csa_embedding = linear
    memory = patches.flatten()
    place = torch.stack([memory[c * 15 + 7] for c in range(32)])
    assert torch.allclose(model.adapter._stem(patches)[0, :, 1, 2], linear(place), atol=1e-6)
    assert torch.allclose(
        aligned.adapter._stem(patches)[0, :, 1, 2], linear(patches[0, 1, 2]), atol=1e-6
    )


def test_every_prompt_of_an_image_gets_its_mask(sam):
    model = FineTuned(sam, "ts_sam", "fusion").eval()
    with torch.no_grad():
        masks = model(tiny.pixels(size=(64, 40)), tiny.boxes([1, 0, 1], (64, 40)))
    assert masks.logits.shape == (3, 1, 32, 20)
    assert masks.iou.shape == (3, 1)
    assert torch.equal(masks.logits[0], masks.logits[2])
    assert not torch.equal(masks.logits[0], masks.logits[1])


def test_expected_iou():
    p = torch.tensor([[[[0.9, 0.6, 0.2, 0.1]]], [[[0.1, 0.2, 0.0, 0.0]]]])
    assert torch.allclose(
        expected_iou(p.logit(eps=1e-6)), torch.tensor([[1.5 / 2.3], [0.0]]), atol=1e-5
    )


def test_pairs(sam, refused):
    refused(["decoder=tuned", "fusion"], FineTuned, sam, "ts_sam", "tuned")
    refused(["decoder=fusion", "lora", "ts_sam"], FineTuned, sam, "lora", "fusion")
    options = ADAPTERS.config("ts_sam", {}), ADAPTERS.config("lora", {})
    parts = [ADAPTERS["lora"](sam, options[1]), ADAPTERS["ts_sam"](sam, options[0])]
    stacked = FineTuned(sam, Stack(parts), "fusion").eval()
    alone = FineTuned(sam, parts[1], stacked.decoder).eval()
    with torch.no_grad():
        one, other = (m(tiny.pixels(), per_image(2)).logits for m in (stacked, alone))
    assert torch.equal(one, other)  # a fresh lora changes nothing
    features = replace(stacked.encode(tiny.pixels()), state=None)
    refused("ts_sam", stacked.decoder, sam, features, per_image(2))


@pytest.mark.parametrize("option", ["side_dim", "refined"])
def test_sizes_that_cannot_be(sam, refused, option):
    refused(
        [f"{{{option!r}: 0}}", "1"],
        FineTuned,
        sam,
        "ts_sam",
        "fusion",
        adapter_options={option: 0},
    )


def test_statistics_of_all_devices(sam):
    options = {"sync_batchnorm": True}
    model = FineTuned(sam, "ts_sam", "fusion", adapter_options=options, decoder_options=options)
    plain = FineTuned(sam, "ts_sam", "fusion")
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(isinstance(m, nn.SyncBatchNorm) for m in norms)
    assert model.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("task", ["cod", "sd", "sod"])
@pytest.mark.parametrize("base", ["vit_b", "vit_h"])
def test_recipes(task, base):
    tree = dict(recipes()[f"ts_sam-{base}-{task}"])
    assert "not reproduced" in tree.pop("recipe")["status"]
    config = resolve([tree])
    assert config.base.name == base
    assert config.adapter["fft"] is (task == "sd")
    assert config.train.loss == ("bbce" if task == "sd" else "bce + iou")
    assert config.train.epochs == (100 if task == "sd" else 80)
    assert config.train.lr * config.train.min_lr == pytest.approx(1e-7)


RATES = {  # by the number of epochs: the rate of an epoch, from 1
    80: {1: 8e-4, 2: 7.996917e-4, 21: 6.828574e-4, 41: 4.0005e-4, 80: 4.083470e-7},
    100: {2: 7.998026e-4, 51: 4.0005e-4, 100: 2.973512e-7},
}


@pytest.mark.parametrize(("name", "epochs"), [("ts_sam-vit_b-cod", 80), ("ts_sam-vit_h-sd", 100)])
def test_learning_rates_of_the_published_epochs(name, epochs):
    config = resolve([{"train": recipes()[name]["train"]}]).train
    assert config.epochs == epochs
    steps = 500  # of an epoch
    for epoch, rate in RATES[epochs].items():
        for step in (1 + (epoch - 1) * steps, epoch * steps):
            found = learning_rate(config, step, epochs * steps, steps)
            assert found == pytest.approx(rate, rel=5e-7)


def test_masks_enter_as_published():
    values = np.random.RandomState(4).randint(0, 4, (37, 53)) * 60
    labels = label_objects(values, DataConfig(masks="binary", threshold=0), Path("mask.png"))
    assert (
        int((fit_mask(labels.map, fit_geometry((37, 53), (64, 64), "stretch")) > 0).sum()) == 3090
    )
