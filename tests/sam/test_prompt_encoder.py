"""Prompts: ragged mixes in one call equal each prompt alone."""

import math
from dataclasses import replace

import deterministic
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from samtune.prompts import ABSENT, Prompts

GRID, FRAME = (8, 8), (64, 64)


def one(kind, i=0):
    xy = deterministic.tensor(f"xy{i}", (1, 4, 2), 2, 60)
    labels = (deterministic.tensor(f"labels{i}", (1, 4)) > 0.5).long()
    box = torch.cat([xy[:, 0] / 2, xy[:, 1] / 2 + 31], 1)
    mask = deterministic.tensor(f"mask{i}", (1, 1, 32, 32), -8, 8)
    return {
        "box": lambda: Prompts.of(boxes=box),
        "point": lambda: Prompts.of(points=xy[:, :1], labels=labels[:, :1]),
        "4 points": lambda: Prompts.of(points=xy, labels=labels),
        "box+2 points": lambda: Prompts.of(boxes=box, points=xy[:, :2], labels=labels[:, :2]),
        "mask": lambda: Prompts.of(masks=mask),
        "box+mask": lambda: Prompts.of(boxes=box, masks=mask),
        "none": Prompts.of,
    }[kind]()


KINDS = ["box", "point", "4 points", "box+2 points", "mask", "box+mask", "none"]


@pytest.fixture(scope="module")
def embedding():
    return deterministic.tensor("embedding", (3, 32, 8, 8), -1, 1)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 2)), min_size=1, max_size=6))
def test_a_ragged_mix_is_each_prompt_alone(sam, embedding, mix):
    parts = [one(kind, i).at(image) for i, (kind, image) in enumerate(mix)]
    together = sam.decode(embedding, Prompts.cat(parts), FRAME, multimask=True)
    for i, part in enumerate(parts):
        alone = sam.decode(embedding, part, FRAME, multimask=True)
        torch.testing.assert_close(together.logits[i], alone.logits[0], rtol=0, atol=5e-6)
        torch.testing.assert_close(together.iou[i], alone.iou[0], rtol=0, atol=5e-6)


def test_a_ragged_mix_is_exact_in_float64(embedding):
    sam = tiny.base().double()
    parts = [one(kind, i).at(i % 3) for i, kind in enumerate(KINDS) if "mask" not in kind]
    together = sam.decode(embedding.double(), Prompts.cat(parts), FRAME)
    for i, part in enumerate(parts):
        alone = sam.decode(embedding.double(), part, FRAME)
        torch.testing.assert_close(together.logits[i], alone.logits[0], rtol=0, atol=1e-6)


def test_absent_slots_leave_no_trace_in_value_or_gradient(own_sam, embedding):
    """Whatever their coordinates are; and the gradients are those of the prompts alone."""
    sam = own_sam.requires_grad_(True)
    box, points = one("box"), one("4 points", 1)
    filled = Prompts.cat([box, points])
    assert (filled.labels[0] == ABSENT).sum() == 3
    filled.coords[0, 2:] = torch.tensor([[math.nan, 1e9], [-5, 0], [3, math.inf]])
    weights = list(sam.prompt_encoder.parameters()) + list(sam.mask_decoder.parameters())

    def gradients(prompts):
        logits = sam.decode(embedding, prompts, FRAME).logits
        return torch.autograd.grad(logits.square().sum(), weights, allow_unused=True)

    parts = zip(gradients(box), gradients(points), strict=True)
    for whole, (a, b) in zip(gradients(filled), parts, strict=True):
        if a is None and b is None:
            assert whole is None or (whole == 0).all()
            continue
        expected = sum(g for g in (a, b) if g is not None)
        scale = expected.abs().max().clamp(min=1)
        torch.testing.assert_close(whole / scale, expected / scale, rtol=0, atol=2e-5)


def test_absent_slots_give_the_padding_point_no_gradient(own_sam, embedding):
    sam = own_sam.requires_grad_(True)
    prompts = Prompts.cat([one("box"), one("box+2 points", 1)])
    sam.decode(embedding, prompts, FRAME).logits.sum().backward()
    assert (sam.prompt_encoder.not_a_point_embed.weight.grad == 0).all()


def test_masks_of_prompts_that_have_none_leave_no_trace(own_sam, embedding):
    sam = own_sam.requires_grad_(True)
    prompts = Prompts.cat([one("box+mask"), one("box", 1)])
    assert prompts.has_mask.tolist() == [True, False]
    logits = sam.decode(embedding, prompts, FRAME).logits
    other = replace(prompts, masks=torch.cat([prompts.masks[:1], torch.full((1, 1, 32, 32), 1e4)]))
    assert torch.equal(sam.decode(embedding, other, FRAME).logits, logits)
    wanted = list(sam.prompt_encoder.mask_downscaling.parameters())
    grads = torch.autograd.grad(logits[1].sum(), wanted)
    assert all((g == 0).all() for g in grads)


def test_encoding_of_points_and_boxes_is_the_published_one(sam):
    """Fourier features of the pixel's centre over the frame, plus the kind's embedding."""
    encoder, frame = sam.prompt_encoder, (40, 56)
    matrix = encoder.pe_layer.positional_encoding_gaussian_matrix
    prompts = Prompts.of(
        boxes=torch.tensor([[4.0, 6, 30, 20]]),
        points=torch.tensor([[[10.0, 11], [3, 2]]]),
        labels=torch.tensor([[1, 0]]),
    )
    out = encoder(prompts, frame, (5, 7))
    assert out.present is None and out.dense.shape == (1, 32, 1, 1)
    xy = [(10.0, 11.0), (3.0, 2.0), (4.0, 6.0), (30.0, 20.0)]
    for i, (place, kind) in enumerate(zip(xy, (1, 0, 2, 3), strict=True)):
        unit = torch.tensor([(place[0] + 0.5) / 56, (place[1] + 0.5) / 40])
        angles = 2 * math.pi * ((2 * unit - 1) @ matrix)
        expected = (
            torch.cat([angles.sin(), angles.cos()]) + encoder.point_embeddings[kind].weight[0]
        )
        torch.testing.assert_close(out.sparse[0, i], expected, rtol=0, atol=1e-5)


def test_padding_point_comes_with_points_but_not_with_a_box(sam):
    point = one("point")
    out = sam.prompt_encoder(point, FRAME, GRID)
    assert out.sparse.shape == (1, 2, 32)
    assert torch.equal(out.sparse[0, 1], sam.prompt_encoder.not_a_point_embed.weight[0])
    assert sam.prompt_encoder(one("box+2 points"), FRAME, GRID).sparse.shape == (1, 4, 32)
    assert sam.prompt_encoder(one("none"), FRAME, GRID).sparse.shape == (1, 0, 32)


def test_dense_positions_are_the_cells_centres(sam):
    out = sam.prompt_encoder.dense_positions((5, 7))
    assert sam.prompt_encoder.dense_positions((5, 7)) is out  # made once for a size
    assert out.shape == (1, 32, 5, 7)
    point = torch.tensor([(3 + 0.5) / 7, (2 + 0.5) / 5])
    expected = sam.prompt_encoder.pe_layer(point)
    torch.testing.assert_close(out[0, :, 2, 3], expected, rtol=0, atol=1e-6)


def test_positions_keep_full_precision_under_autocast(sam):
    unit = torch.rand(50, 2)
    exact = sam.prompt_encoder.pe_layer(unit)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(sam.prompt_encoder.pe_layer(unit), exact)


def test_mask_prompts_of_another_size_are_refused(sam, refused):
    prompts = Prompts.of(masks=torch.zeros(1, 1, 64, 64))
    refused(["(64, 64)", "(32, 32)", "low_res"], sam.prompt_encoder, prompts, FRAME, GRID)


def test_mask_prompt_changes_the_dense_embedding(sam):
    out = sam.prompt_encoder(one("mask"), FRAME, GRID).dense
    mask = one("mask").masks
    assert out.shape == (1, 32, 8, 8)
    torch.testing.assert_close(out, sam.prompt_encoder.mask_downscaling(mask))
