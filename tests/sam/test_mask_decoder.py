"""The mask decoder: which tokens answer, and what gets gradients."""

import deterministic
import pytest
import tiny
import torch

from samtune.sam.prompt_encoder import PromptEmbedding


@pytest.fixture
def decoder(own_sam):
    return own_sam.mask_decoder.requires_grad_(True)


@pytest.fixture
def given(sam):
    embedding = deterministic.tensor("embedding", (2, 32, 8, 8), -1, 1)
    prompts = sam.prompt_encoder(tiny.boxes([0, 1]), (64, 64), (8, 8))
    return embedding, sam.prompt_encoder.dense_positions((8, 8)), prompts


def test_tokens_and_heads_of_each_answer(decoder, given):
    """Token 0 alone, or tokens 1 to 3, each through its own head, against the written-out sum."""
    tokens, image = decoder.transform(*given)
    assert tokens.shape == (2, 5, 32) and image.shape == (2, 32, 8, 8)
    upscaled = decoder.output_upscaling(image)
    every_iou = decoder.iou_prediction_head(tokens[:, 0])
    for multimask, chosen in ((False, [0]), (True, [1, 2, 3])):
        masks = decoder(*given, multimask)
        assert masks.logits.shape == (2, len(chosen), 32, 32)
        for place, i in enumerate(chosen):
            weight = decoder.output_hypernetworks_mlps[i](tokens[:, 1 + i])
            expected = (weight[:, :, None, None] * upscaled).sum(1)
            torch.testing.assert_close(masks.logits[:, place], expected, rtol=0, atol=1e-5)
            torch.testing.assert_close(masks.iou[:, place], every_iou[:, i])


@pytest.mark.parametrize("multimask", [False, True])
def test_heads_that_are_not_used_get_no_gradient(decoder, given, multimask):
    decoder(*given, multimask).logits.square().sum().backward()
    used = {1, 2, 3} if multimask else {0}
    for i, head in enumerate(decoder.output_hypernetworks_mlps):
        for p in head.parameters():
            assert (p.grad is not None and p.grad.abs().sum() > 0) == (i in used)
    assert all(p.grad is None for p in decoder.iou_prediction_head.parameters())
    last = decoder.iou_prediction_head.layers[-1]
    decoder(*given, multimask).iou.sum().backward()
    assert {i for i in range(4) if last.weight.grad[i].abs().sum() > 0} == used


def test_extra_output_tokens_follow_the_own_five(decoder, given):
    extra = deterministic.tensor("extra", (2, 32), -1, 1)
    tokens, image = decoder.transform(*given, extra)
    assert tokens.shape == (2, 7, 32)
    plain, plain_image = decoder.transform(*given)
    assert not torch.allclose(tokens[:, :5], plain)  # they attend to each other
    assert not torch.allclose(image, plain_image)
    swapped, _ = decoder.transform(*given, extra.flip(0))
    torch.testing.assert_close(swapped[:, [5, 6]], tokens[:, [6, 5]], rtol=0, atol=1e-5)


def test_hidden_slots_change_nothing_whatever_they_hold(decoder, given):
    embedding, positions, prompts = given
    noise = torch.full((2, 3, 32), 50.0, requires_grad=True)
    present = torch.tensor([[True, True, False, False, False]] * 2)
    filled = PromptEmbedding(torch.cat([prompts.sparse, noise], 1), prompts.dense, present)
    plain, padded = decoder(embedding, positions, prompts), decoder(embedding, positions, filled)
    torch.testing.assert_close(padded.logits, plain.logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(padded.iou, plain.iou, rtol=0, atol=1e-5)
    (grad,) = torch.autograd.grad(padded.logits.square().sum() + padded.iou.sum(), noise)
    assert (grad == 0).all()


@pytest.mark.slow
def test_compiles_in_one_graph(decoder, given):
    torch.compiler.reset()
    compiled = torch.compile(decoder, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(*given).logits, decoder(*given).logits, rtol=0, atol=1e-6)
