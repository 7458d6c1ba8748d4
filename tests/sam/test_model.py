"""The bases' sizes, and the model as a whole."""

import deterministic
import pytest
import tiny
import torch

from samtune.prompts import Prompts
from samtune.sam.layers import shapes_alone
from samtune.sam.model import Sam, content_mask
from samtune.sam.spec import SPECS


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "total", "image_encoder", "keys"),
    [
        ("vit_b", 93_735_472, 89_670_912, 314),
        ("vit_l", 312_342_832, 308_278_272, 482),
        ("vit_h", 641_090_608, 637_026_048, 594),
    ],
)
def test_parameter_counts_are_the_official_ones(name, total, image_encoder, keys):
    with shapes_alone():
        sam = Sam(SPECS[name])
    assert count(sam) == total
    assert count(sam.image_encoder) == image_encoder
    assert count(sam.prompt_encoder) == 6_220
    assert count(sam.mask_decoder) == 4_058_340
    assert len(list(sam.mask_decoder.parameters())) == 120
    assert len(sam.state_dict()) == keys
    assert len(list(sam.parameters())) == keys - 1  # the position code is a buffer
    state = {key: tuple(t.shape) for key, t in sam.state_dict().items()}
    depth, width, head = SPECS[name].depth, SPECS[name].embed_dim, {"vit_h": 80}.get(name, 64)
    assert state["image_encoder.pos_embed"] == (1, 64, 64, width)
    for i in range(depth):
        rows = 127 if i in SPECS[name].global_blocks else 27
        assert state[f"image_encoder.blocks.{i}.attn.rel_pos_w"] == (rows, head)


def test_epsilons_are_the_official_ones(sam):
    for block in sam.image_encoder.blocks:
        assert block.norm1.eps == block.norm2.eps == 1e-6
    transformer = sam.mask_decoder.transformer
    norms = [getattr(layer, f"norm{i}") for layer in transformer.layers for i in range(1, 5)]
    assert {norm.eps for norm in [*norms, transformer.norm_final_attn]} == {1e-5}
    assert sam.mask_decoder.output_upscaling[1].eps == sam.image_encoder.neck[1].eps == 1e-6


def test_preprocess_normalises_then_pads_with_zero(sam):
    pixels = deterministic.tensor("raw", (2, 3, 16, 24), 0, 256).to(torch.uint8)
    pixels[0, :, 10:] = 0
    out = sam.preprocess(pixels, torch.tensor([[10, 24], [16, 20]]))
    assert out.shape == (2, 3, 16, 24) and out.dtype == torch.float32
    assert (out[0, :, 10:] == 0).all() and (out[1, :, :, 20:] == 0).all()
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    for c in range(3):
        expected = (pixels[0, c, :10].float() - mean[c]) / std[c]
        torch.testing.assert_close(out[0, c, :10], expected, rtol=0, atol=1e-6)
    whole = sam.preprocess(pixels)
    assert torch.equal(whole[1, :, :, :20], out[1, :, :, :20])
    assert (whole[0, :, 10:] < -1).all()  # black, not padding


def test_content_mask():
    mask = content_mask(torch.tensor([[1, 3], [2, 2]]), (2, 3))
    assert mask.tolist() == [[[True] * 3, [False] * 3], [[True, True, False]] * 2]


def test_freeze(sam, own_sam):
    for model in (sam, own_sam.requires_grad_(True).train().freeze()):
        assert not any(p.requires_grad for p in model.parameters())
        assert not any(m.training for m in model.modules())


def test_each_prompt_sees_its_own_image(sam):
    pixels = tiny.pixels(3)
    prompts = tiny.boxes([2, 0, 2, 1])
    masks = sam(pixels, prompts)
    assert masks.logits.shape == (4, 1, 32, 32) and masks.iou.shape == (4, 1)
    for i, b in enumerate([2, 0, 2, 1]):
        one = Prompts.of(boxes=prompts.boxes()[i : i + 1])
        alone = sam(pixels[b : b + 1], one)
        torch.testing.assert_close(masks.logits[i], alone.logits[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(masks.iou[i], alone.iou[0], rtol=0, atol=1e-5)
    assert (masks.logits[0] - masks.logits[1]).abs().max() > 1e-3


@pytest.mark.parametrize("multimask", [False, True])
def test_no_prompts_at_all(sam, multimask):
    masks = sam(tiny.pixels(1), Prompts.of(count=0), multimask=multimask)
    k = 3 if multimask else 1
    assert masks.logits.shape == (0, k, 32, 32) and masks.iou.shape == (0, k)


def test_any_frame(sam):
    masks = sam(tiny.pixels(1, (40, 72)), tiny.boxes([0], (40, 72)))
    assert masks.logits.shape == (1, 1, 20, 36)


def test_decode_takes_another_decoder_and_prompt_encoder(sam):
    embedding = sam.image_encoder(sam.preprocess(tiny.pixels(1)))
    plain = sam.decode(embedding, tiny.boxes([0]), (64, 64)).logits
    other = tiny.base()
    with torch.no_grad():
        other.mask_decoder.mask_tokens.weight.add_(1)
        other.prompt_encoder.no_mask_embed.weight.add_(1)
    for part in ({"decoder": other.mask_decoder}, {"prompt_encoder": other.prompt_encoder}):
        assert not torch.allclose(
            sam.decode(embedding, tiny.boxes([0]), (64, 64), **part).logits, plain
        )


def test_shapes_alone_are_those_of_a_base_without_its_values(sam):
    with shapes_alone():
        hollow = Sam(tiny.TINY)
        late = torch.nn.init.normal_(tensor=torch.zeros(3))
    assert late.is_meta and all(t.is_meta for t in hollow.state_dict().values())
    shapes = {name: (t.shape, t.dtype) for name, t in sam.state_dict().items()}
    assert {name: (t.shape, t.dtype) for name, t in hollow.state_dict().items()} == shapes
    assert torch.nn.Linear(2, 2).weight.any(), "outside of it all is as ever"
