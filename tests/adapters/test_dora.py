"""DoRA against its equations, computed once more in float64."""

import numpy as np
import pytest
import tiny
import torch

from samtune.model.finetuned import FineTuned


def stirred(sam, **options) -> FineTuned:
    model = FineTuned(sam, "dora", "frozen", adapter_options=options)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model.eval()


def expected_rows(w: np.ndarray, projection, slots) -> np.ndarray:
    """Equation 5 of the paper on the rows of ``w (3C, C)`` that the target names."""
    width = len(w) // 3
    rows, m = w.copy(), projection.m.detach().double().numpy()
    for slot, a, b in zip(slots, projection.update.a, projection.update.b, strict=True):
        change = (b.detach().double().numpy() @ a.detach().double().numpy()) * 2.0
        for third, part in zip(slot, np.split(change, len(slot)), strict=True):
            v = w[third * width : (third + 1) * width] + part
            magnitude = m[projection.thirds.index(third)][:, None]
            rows[third * width : (third + 1) * width] = (
                magnitude * v / np.sqrt((v**2).sum(1, keepdims=True))
            )
    return rows


@pytest.mark.parametrize(
    ("target", "slots"), [("qkv", [(0, 1, 2)]), ("q+v", [(0,), (2,)]), ("v+q", [(2,), (0,)])]
)
@pytest.mark.golden("dora")
def test_dora_is_magnitude_times_direction(sam, target, slots):
    model = stirred(sam, target=target, rank=3, alpha=6.0)
    deltas = model.adapter.deltas(sam)
    assert len(deltas) == len(sam.image_encoder.blocks)
    for i, block in enumerate(sam.image_encoder.blocks):
        w = block.attn.qkv.weight
        rows = expected_rows(w.double().numpy(), model.adapter.projections[str(i)], slots)
        tuned = w + deltas[f"image_encoder.blocks.{i}.attn.qkv.weight"]
        np.testing.assert_allclose(tuned.detach().numpy(), rows, rtol=1e-5, atol=1e-6)


def test_no_gradient_flows_through_the_norm(sam):
    """Equation 11: the gradient of the directions is that of the weights, scaled by m / |V|."""
    projection = stirred(sam, target="qkv", rank=32).adapter.projections["0"]
    w = sam.image_encoder.blocks[0].attn.qkv.weight
    directions = (w + projection.update.weight()).detach().requires_grad_()
    gradient = torch.randn_like(w)
    projection(w).backward(gradient)
    scaled = projection.m.flatten()[:, None] / directions.norm(dim=1, keepdim=True) * gradient
    a, b = projection.update.a[0], projection.update.b[0]
    torch.testing.assert_close(b.grad, (scaled @ a.T).detach(), rtol=1e-5, atol=1e-5)
    turned = (gradient * directions).sum(1) / directions.norm(dim=1)
    torch.testing.assert_close(projection.m.grad.flatten(), turned.detach(), rtol=1e-5, atol=1e-5)


def test_dora_trains_the_factors_of_lora_and_a_magnitude_per_feature(sam):
    lora = FineTuned(sam, "lora", "frozen").trainable()
    features = 2 * sum(block.dim for block in sam.image_encoder.blocks)
    assert FineTuned(sam, "dora", "frozen").trainable() == lora + features


def test_a_fresh_one_is_exactly_the_base(sam):
    model = FineTuned(sam, "dora", "frozen", adapter_options={"target": "qkv"}).eval()
    pixels = sam.preprocess(tiny.pixels(2, (48, 88)))
    with torch.no_grad():
        assert torch.equal(model.encode(pixels).embedding, sam.image_encoder(pixels))
