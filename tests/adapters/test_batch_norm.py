"""Batch normalisation in training mode: the base's numbers until a batch has been seen."""

import pytest
import tiny
import torch
from tiny_vit_golden import TINY, base

import samtune
from samtune import InputError
from samtune.model.finetuned import FineTuned
from samtune.model.merging import merge
from samtune.sam.spec import SPECS
from samtune.sam.weights import load_sam


def modules(sam):
    return {name: m for name, m in sam.image_encoder.named_modules() if hasattr(m, "running_mean")}


def statistics(model):
    return {name: tensor.clone() for name, tensor in model.adapter.named_buffers()}


@pytest.mark.golden("batch_norm")
def test_it_is_torchs_training_mode():
    sam, reference = base(), base()
    model = FineTuned(sam, "batch_norm", "tuned").train()
    reference.image_encoder.train()
    for size in ((64, 64), (48, 80)):
        pixels = sam.preprocess(tiny.pixels(2, size))
        assert torch.equal(model.encode(pixels).embedding, reference.image_encoder(pixels))
    found = statistics(model)
    for name, module in modules(reference).items():
        for part in ("running_mean", "running_var"):
            own = found[f"statistics.{name.replace('.', '-')}.{part}".replace("-bn", "")]
            assert torch.equal(own, getattr(module, part)), name
    assert len(found) == 2 * len(modules(reference))
    model.eval(), reference.image_encoder.eval()
    pixels = sam.preprocess(tiny.pixels())
    after = model.encode(pixels).embedding
    assert torch.equal(after, reference.image_encoder(pixels))
    assert not torch.equal(after, sam.image_encoder(pixels))


def test_evaluation_changes_no_statistics():
    model = FineTuned(base(), "batch_norm", "tuned").eval()
    before = statistics(model)
    model.encode(model.sam.preprocess(tiny.pixels()))
    assert all(torch.equal(before[name], t) for name, t in statistics(model).items())


@pytest.mark.parametrize("momentum", [0.25, 1.0])
def test_momentum_weighs_each_batch(momentum):
    model = FineTuned(base(), "batch_norm", "tuned", adapter_options={"momentum": momentum})
    start = model.adapter.statistics["patch_embed-seq-0"].running_mean.clone()
    pixels = model.sam.preprocess(tiny.pixels())
    mean = model.sam.image_encoder.patch_embed.seq[0].c(pixels).mean((0, 2, 3))
    model.train().encode(pixels)
    found = model.adapter.statistics["patch_embed-seq-0"].running_mean
    torch.testing.assert_close(found, start + momentum * (mean - start))


def test_it_travels_in_the_checkpoint_and_merges_into_a_plain_file(tmp_path, monkeypatch):
    monkeypatch.setitem(SPECS, TINY.name, TINY)
    model = FineTuned(base(), "batch_norm", "tuned")
    model.train().encode(model.sam.preprocess(tiny.pixels()))
    loaded = samtune.load(samtune.save(model, tmp_path / "model.safetensors"), base=base())
    pixels = model.sam.preprocess(tiny.pixels(1, (48, 80)))
    expected = model.eval().encode(pixels).embedding
    assert torch.equal(loaded.encode(pixels).embedding, expected)
    assert not torch.equal(expected, model.sam.image_encoder(pixels))
    merged = merge(model, tmp_path / "merged.pth")
    assert merged.max_difference < 1e-4
    plain = load_sam(TINY.name, tmp_path / "merged.pth")
    torch.testing.assert_close(plain.image_encoder(pixels), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("momentum", [0.0, 1.5])
def test_momentum_out_of_range_is_refused(momentum):
    with pytest.raises(InputError, match=f"{{'momentum': {momentum}}}: must be above 0, up to 1"):
        FineTuned(base(), "batch_norm", adapter_options={"momentum": momentum})


def test_beside_an_adapter_that_trains_each_batch_counts_once():
    """Under activation checkpointing blocks run again, with gradients through the statistics."""
    pixels, prompts = tiny.pixels(), tiny.boxes([0, 1])
    found, gradients = [], []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = FineTuned(base(), "lora+batch_norm", "tuned").train()
        with torch.no_grad():
            for p in model.adapter.parameters():
                p.add_(0.1 * torch.randn_like(p))
        model.checkpointing = checkpointing
        model(pixels, prompts).logits.square().mean().backward()
        found.append(statistics(model))
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name in found[0]:
        assert torch.equal(found[0][name], found[1][name])
    for name, gradient in gradients[0].items():
        assert (gradient is None) == (gradients[1][name] is None)
        assert gradient is None or torch.equal(gradient, gradients[1][name])


def test_another_base_has_none(sam):
    said = "base=tiny: batch_norm needs batch normalisations .*, which tiny does not have; "
    with pytest.raises(InputError, match=said):
        FineTuned(sam, "batch_norm")
    with pytest.raises(InputError, match=r"adapter=vpt\+batch_norm: no base fits all"):
        FineTuned(base(), "vpt+batch_norm")
