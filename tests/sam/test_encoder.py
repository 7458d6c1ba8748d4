"""What encoders declare is so: each kind is held to its own words."""

from dataclasses import fields

import hierarchical
import pytest
import tiny
import tiny_vit_golden
import torch

from samtune.model.finetuned import FineTuned
from samtune.sam.edits import BlockEdits
from samtune.sam.encoder import ABILITIES, ENCODERS, OPERATIONS
from samtune.sam.model import Sam

EDITS = [field.name for field in fields(BlockEdits)]
BASES = {"vit": tiny.base, "tiny_vit": tiny_vit_golden.base, "hierarchical": hierarchical.base}


@pytest.fixture(scope="module", params=BASES)
def base(request) -> Sam:
    return BASES[request.param]()


def test_every_kind_is_held_to_it():
    assert set(ENCODERS) == set(BASES)


def test_all_that_a_block_lets_change_is_an_ability():
    assert list(ABILITIES)[: len(EDITS)] == EDITS


def test_offers_are_abilities(base):
    assert ABILITIES.keys() >= base.image_encoder.offers


def edit(word: str, block) -> BlockEdits:
    """An edit that changes much if it acts."""
    table = block.get_parameter(f"{block.places['lin2']}.bias")
    return {
        "qkv": BlockEdits(qkv=lambda n: torch.randn(*n.shape[:-1], 3 * block.dim)),
        "heads": BlockEdits(heads=lambda q, k, v, grid: (q, k, -v, grid)),
        "tokens": BlockEdits(tokens=torch.randn(4, block.dim_in)),
        "attended": BlockEdits(attended=torch.zeros_like),
        "mlp": BlockEdits(mlp=torch.ones_like),
        "params": BlockEdits(params={f"{block.places['lin2']}.bias": table + 1}),
        "norm": BlockEdits(norm=lambda name, norm, x: x),
    }[word]


@torch.no_grad()
def test_every_edit_acts_in_every_block_of_an_encoder_that_offers_it(base):
    encoder = base.image_encoder
    x = encoder.embed(base.preprocess(tiny.pixels(1)))
    for block in encoder.blocks:
        plain = block(x)
        for word in [word for word in EDITS if word in encoder.offers]:
            changed = block(x, edit(word, block))
            assert changed.shape == plain.shape
            assert not torch.allclose(changed, plain, atol=1e-4), word
        x = plain


@torch.no_grad()
def test_blocks_say_the_width_and_stride_of_their_streams(base):
    encoder, (h, w) = base.image_encoder, (64, 128)
    x = encoder.embed(base.preprocess(tiny.pixels(1, (h, w))))
    assert x.shape[1:3] == (h // encoder.patch, w // encoder.patch)
    shapes, projected = {x.shape}, []

    def record(normed):
        projected.append(normed.shape[-1])
        return normed.new_zeros(*normed.shape[:-1], 3 * encoder.blocks[len(projected) - 1].dim)

    for block in encoder.blocks:
        x = block(x, BlockEdits(qkv=record))
        assert x.shape[1:] == (h // block.stride, w // block.stride, block.dim)
        shapes.add(x.shape)
    assert projected == [block.dim_in for block in encoder.blocks]
    assert (len(shapes) == 1) == ("uniform" in encoder.offers)
    embedding = encoder.apply_neck(x)
    assert embedding.shape[2:] == (h // encoder.stride, w // encoder.stride)
    assert x.shape[-1] == encoder.dim


def test_blocks_have_the_operations_and_rows_that_they_name(base):
    names = dict(base.image_encoder.named_parameters())
    assert len({tuple(block.places.items()) for block in base.image_encoder.blocks}) == 1
    for block in base.image_encoder.blocks:
        assert block.dim % block.heads == 0
        for short in OPERATIONS:
            name = f"{block.places[short]}.weight"
            assert names[f"{block.name}.{name}"] is block.get_parameter(name)
            assert block.operation(short).bias.shape == block.operation(short).weight.shape[:1]
        weight = block.operation("qkv").weight
        parts = block.parts(weight)
        assert [part.shape for part in parts] == [(block.dim, block.dim_in)] * 3
        assert torch.equal(block.fused(parts), weight)


@torch.no_grad()
def test_patches_positions_tables_and_norms_are_where_they_are_offered(base):
    encoder, pixels = base.image_encoder, base.preprocess(tiny.pixels(1))
    x = encoder.embed(pixels)
    if "patches" in encoder.offers:
        patches = encoder.patch_embed(pixels)
        assert patches.shape == x.shape
        assert torch.equal(encoder.patch_projection(pixels).permute(0, 2, 3, 1), patches)
    if "positions" in encoder.offers:
        torch.testing.assert_close(patches + encoder.pos_embed, x)
    for block in encoder.blocks if "tables" in encoder.offers else ():
        assert block.get_parameter("attn.rel_pos_h").shape[1] == block.dim // block.heads
        assert block.get_parameter("attn.rel_pos_w").shape[1] == block.dim // block.heads
    assert bool(encoder.norms) == ("norm" in encoder.offers)


@torch.no_grad()
def test_uniform_blocks_that_take_tokens_carry_them_on(base):
    block = base.image_encoder.blocks[0]
    x, tokens = torch.randn(2, 3, 4, block.dim_in), torch.randn(2, 5, block.dim_in)
    if {"tokens", "uniform"} <= base.image_encoder.offers:
        assert block.carry(x, tokens).shape == tokens.shape
    else:
        with pytest.raises(NotImplementedError, match="does not carry tokens"):
            block.carry(x, tokens)


def test_an_image_enters_as_the_encoder_says(base):
    policy = FineTuned(base).input
    assert (policy.size, policy.resize) == ((64, 64), base.image_encoder.resize)
