"""SAMUS and SM-AdaptFormer: their golden numbers, counts, and options."""

import gsam_reference as reference
import pytest
import torch

from samtune.adapters import ADAPTERS
from samtune.adapters.strided import strided_patches
from samtune.model.finetuned import FineTuned
from samtune.sam.layers import shapes_alone
from samtune.sam.model import Sam
from samtune.sam.spec import SPECS

METHODS = {
    "samus": ("SAMUS", reference.TINY, reference.TINY3),
    "sm_adaptformer": ("SMAdaptFormer", reference.PLAIN, reference.PLAIN3),
}
each = pytest.mark.parametrize("name", METHODS)


@pytest.mark.slow
@each
@pytest.mark.golden("samus", "sm_adaptformer")
def test_golden_forward_loss_and_gradients(name):
    title, spec, _ = METHODS[name]
    golden = reference.GOLDEN[f"tiny/{title}/C2/256x256"]
    model = reference.model(spec, name, classes=2)
    with torch.no_grad():
        embedding, masks, full = reference.run(model, reference.image((256, 256)))
    reference.assert_summary(embedding, golden["E"])
    reference.assert_summary(masks.logits, golden["L"])
    reference.assert_summary(full, golden["M"])
    reference.assert_gradients(model, (256, 256), golden)


@pytest.mark.slow
@each
@pytest.mark.parametrize("classes", [2, 5])
def test_golden_training_steps(name, classes):
    title, _, spec = METHODS[name]
    golden = reference.GOLDEN[f"train3/{title}/C{classes}"]
    # SAMUS was published with its decoder frozen, also where its tokens are random.
    frozen = name == "samus"
    model = reference.model(spec, name, classes=classes, frozen=frozen)
    assert model.trainable() == golden["trainable"]
    reference.assert_steps(model, (256, 256), classes, golden["losses"])


@pytest.mark.slow
@each
@torch.no_grad()
def test_golden_vit_b(name):
    size = {"samus": (256, 256), "sm_adaptformer": (1024, 1024)}[name]
    model = reference.model(SPECS["vit_b"], name, classes=2)
    golden = reference.GOLDEN[f"vit_b/{METHODS[name][0]}/C2/{size[0]}x{size[1]}"]
    reference.assert_vit_b(model, size, golden)


def test_trained_parameters_are_those_of_the_table():
    count = reference.count
    with shapes_alone():
        sam = Sam(SPECS["vit_b"])
        samus = ADAPTERS["samus"](sam, ADAPTERS.config("samus"))
        pyramid = ADAPTERS["sm_adaptformer"](sam, ADAPTERS.config("sm_adaptformer"))
    assert count(samus.stem) == 2_142_272
    assert count(samus.positions) == 5_309_952
    assert count(samus.input) == 295_872
    assert count(samus.bottlenecks) == 1_183_488
    assert count(samus.cross) == 9_449_472
    assert count(samus.refine) == 21_239_808
    assert count(samus.tables) == 32_256
    assert count(samus) == 39_653_120
    assert {count(cross) for cross in samus.cross.values()} == {2_362_368}
    blocks = [sam.image_encoder.blocks[int(i)].attn for i in samus.tables]
    replaced = sum(b.rel_pos_h.numel() + b.rel_pos_w.numel() for b in blocks)
    assert count(sam) - replaced + count(samus) == 133_323_568
    assert count(pyramid) == 19_918_080
    assert count(pyramid) + 4_058_340 == 23_976_420
    assert count(pyramid.bottlenecks[0]) == 1_659_840


def test_samus_with_the_frozen_decoder_is_the_published_binary_form():
    """The base's own decoder without prompts is the frozen single-mask decoder."""
    published = reference.model(reference.TINY, "samus", classes=2, frozen=True)
    plain = FineTuned(published.sam, published.adapter, "frozen").eval()
    with torch.no_grad():
        x = reference.image((64, 64), 1)
        assert torch.equal(reference.run(plain, x)[1].logits, reference.run(published, x)[1].logits)
    assert reference.count(published.decoder) == 0


def test_cross_attention_comes_before_the_projection():
    """The edit adds W cross(n) to W n + b, which must be W (n + cross(n)) + b."""
    model = reference.model(reference.TINY, "samus")
    attention = model.sam.image_encoder.blocks[1].attn
    state = model.adapter.begin(model.sam.image_encoder, reference.image((64, 64)), None, None)
    n = torch.randn(2, 8, 8, 48)
    edit = model.adapter.edits(1, state).qkv(n)
    crossed = n + model.adapter.cross["1"](n, state.c.permute(0, 2, 3, 1))
    assert torch.allclose(attention.qkv(n) + edit, attention.qkv(crossed), atol=1e-5)


@torch.no_grad()
def test_overlapping_patches_are_as_many_as_strides():
    sam = reference.base(reference.TINY)
    x = reference.image((40, 72), 1)
    assert strided_patches(sam.image_encoder, x).shape == (1, 5, 9, 48)


def test_zero_init_starts_as_sam(sam):
    model = FineTuned(sam, "sm_adaptformer", adapter_options={"zero_init": True})
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.encode(x).embedding, sam.image_encoder(x))


@each
def test_options_out_of_range(sam, refused, name):
    refused("{'ratio': 0.0}", FineTuned, sam, name, adapter_options={"ratio": 0.0})
