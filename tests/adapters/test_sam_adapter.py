"""SAM-Adapter against numbers measured on the authors' code, with a deterministic fill."""

import deterministic
import pytest
import tiny
import torch
from sam_adapter_golden import SMALL, Golden, check, counted, descend, filled, norms
from sam_adapter_numbers import ENCODED, LOGITS, decoded

from samtune.adapters.sam_adapter import mixed_cells
from samtune.foreign import DIALECTS
from samtune.losses import bbce, bce, iou
from samtune.model.finetuned import FineTuned
from samtune.runs.words import from_words, recipes
from samtune.sam.spec import SPECS

MIDDLE = (-0.878003, -3.62146, 0.0464022), (-0.462969, -1.00385, -1.46845)
EMBEDDING = {
    "reference": Golden(
        -0.009228946, 1.160979, 5.293154, (-0.0868315, -0.868452, 0.121598), MIDDLE[0]
    ),
    "fixed": Golden(-0.1550019, 1.154444, 4.717113, (1.67379, 1.1604, -1.17829), MIDDLE[1]),
}
HIGH_PASS = Golden(
    -0.3470443, 1.44622, 4.702771, (-1.55385, -1.22998, -1.25808), (-1.0148, -1.02776, -0.0960376)
)
PROMPTS = {
    0: Golden(
        -0.02825986,
        1.36112,
        7.482465,
        (-0.0820394, 0.168888, -0.165389),
        (0.034822, 1.61435, -1.71742),
    ),
    2: Golden(
        -0.01733473,
        1.192659,
        9.234201,
        (-0.11041, -0.163015, 0.23133),
        (-0.745145, -2.07972, 1.18177),
    ),
}
GRADIENTS = {
    "adapter.up.weight": 0.1290449,
    "adapter.embedding.weight": 0.0274704,
    "adapter.tune.0.weight": 0.04540928,
    "adapter.high_pass.embed.proj.weight": 1.286118,
    "decoder.no_mask_embed.weight": 0.08819792,
    "decoder.mask_decoder.mask_tokens.weight": 0.1029041,
}
VIT_B_ENCODED = Golden(
    -0.005084803,
    1.004227,
    4.120345,
    (-0.859381, -1.22459, -0.699389),
    (1.37514, 0.123854, 0.699361),
)
VIT_B_LOGITS = Golden(
    0.1966916,
    0.3335976,
    1.439159,
    (0.406094, 0.406094, 0.426761),
    (0.00631161, 0.00631161, 0.0754381),
)


def model_of(spec, layout="reference") -> FineTuned:
    options = {
        "adapter_options": {"embedding_layout": layout},
        "decoder_options": {"start": "random"},
    }
    return filled(spec, "sam_adapter", "prompt_free", DIALECTS["sam_adapter"].theirs, **options)


@pytest.fixture(scope="module")
def pixels():
    return deterministic.tensor("input", (2, 3, 1024, 1024), -2, 2)


@pytest.fixture(scope="module")
def small():
    return model_of(SMALL)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.golden("sam_adapter", "prompt_free")
def test_forward(small, pixels):
    adapter, encoder = small.adapter, small.sam.image_encoder
    patches = encoder.patch_embed(pixels)
    check(adapter.embedding(mixed_cells(patches)), EMBEDDING["reference"])
    check(adapter.embedding(patches), EMBEDDING["fixed"])
    check(adapter.high_pass(pixels).permute(0, 3, 1, 2), HIGH_PASS)
    features = small.encode(pixels)
    for i, golden in PROMPTS.items():
        check(adapter.prompt(i, features.state), golden)
    check(features.embedding, ENCODED)
    check(decoded(small, features, 2), LOGITS)


@pytest.mark.slow
def test_training(pixels):
    model = model_of(SMALL)
    target = torch.zeros(2, 1024, 1024)
    target[0, 100:500, 200:800] = 1
    target[1, 600:, :300] = 1
    valid = torch.ones_like(target, dtype=torch.bool)

    def terms():
        logits = decoded(model, model.encode(pixels), 2)[:, 0]
        return {f.__name__: f(logits, target, valid).mean() for f in (bce, bbce, iou)}

    def loss():
        found = terms()
        return found["bce"] + found["iou"]

    found = terms()
    assert float(found["bce"].detach()) == pytest.approx(0.7271905, abs=1e-5)
    assert float(found["bbce"].detach()) == pytest.approx(0.2047576, abs=1e-5)
    total = found["bce"] + found["iou"]
    assert float(total.detach()) == pytest.approx(1.5785578, abs=1e-5)
    total.backward()
    found = norms(model)
    assert {n: found[n] for n in GRADIENTS} == pytest.approx(GRADIENTS, rel=1e-4)
    assert descend(model, loss) == pytest.approx([1.3900445, 1.3794477], abs=1e-3)


@pytest.mark.slow
@torch.no_grad()
def test_forward_on_vit_b(pixels):
    model = model_of(SPECS["vit_b"])
    x = pixels[:1].clone()
    x[:, :, 768:] = 0
    features = model.encode(x)
    check(features.embedding, VIT_B_ENCODED)
    check(decoded(model, features, 1), VIT_B_LOGITS)


def test_sizes_of_the_small_model(small):
    base = sum(p.numel() for p in small.sam.parameters())
    prompts = sum(p.numel() for p in small.sam.prompt_encoder.parameters())
    adapter = sum(p.numel() for p in small.adapter.parameters())
    assert small.trainable() == 4_062_888
    assert base - prompts + 256 + adapter == 5_915_624


@pytest.mark.parametrize(
    ("base", "prompts", "tensors", "trained", "total", "keys"),
    [
        ("vit_b", 63_312, 30, 4_121_908, 93_792_820, 329),
        ("vit_l", 116_544, 54, 4_175_140, 312_453_412, 521),
        ("vit_h", 186_960, 70, 4_245_556, 641_271_604, 649),
    ],
)
def test_sizes(base, prompts, tensors, trained, total, keys):
    model, kept = counted(base, "sam_adapter", "prompt_free")
    assert sum(p.numel() for p in model.adapter.parameters()) == prompts
    assert len(list(model.adapter.parameters())) == tensors
    assert sum(p.numel() for p in model.decoder.mask_decoder.parameters()) == 4_058_340
    assert model.trainable() == trained
    assert kept + prompts + 256 == total
    # The frozen encoder and the position code, which the published file holds as well.
    encoder = len(model.sam.image_encoder.state_dict())
    assert len(model.state_dict()) + encoder + 1 == keys


def test_the_published_reading_mixes_cells_and_the_other_does_not():
    x = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    mixed = mixed_cells(x)
    assert mixed.shape == x.shape
    for b, n, c in ((0, 0, 0), (0, 7, 3), (1, 11, 4)):
        assert mixed[b].reshape(12, 5)[n, c] == x[b].flatten()[c * 12 + n]


def test_with_the_fixed_layout_a_prompt_knows_its_own_patch(sam):
    pixels = sam.preprocess(tiny.pixels(1))
    model = FineTuned(sam, "sam_adapter", adapter_options={"embedding_layout": "fixed"})
    x = model.adapter.embed(sam.image_encoder, pixels)
    moved = pixels + 3.0  # high frequencies stay, the patches change
    moved[..., :8, :8] = pixels[..., :8, :8]
    with torch.no_grad():
        model.adapter.high_pass.embed.proj.weight.zero_()
        before, after = (
            model.adapter.begin(sam.image_encoder, p, x, None).tokens for p in (pixels, moved)
        )
    same = (before == after).all(-1)
    assert same[0, 0, 0]
    assert same.sum() == 1


def test_it_starts_with_small_prompts_and_zero_biases():
    torch.manual_seed(0)
    sam = tiny.base(SPECS["nano"])
    adapter = FineTuned(sam, "sam_adapter").adapter
    assert all(not p.any() for n, p in adapter.named_parameters() if n.endswith("bias"))
    weights = torch.cat([layer.weight.flatten() for layer in (adapter.embedding, adapter.up)])
    assert float(weights.detach().std()) == pytest.approx(0.02, rel=0.1)
    conv = adapter.high_pass.embed.proj.weight
    assert float(conv.detach().std()) == pytest.approx((2 / (8 * 8 * 4)) ** 0.5, rel=0.1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scale_factor": 0}, "adapter_options={'scale_factor': 0}"),
        ({"scale_factor": 33}, "width 0"),
        ({"rate": 1.5}, "adapter_options={'rate': 1.5}"),
    ],
)
def test_options_that_make_no_sense_are_refused(sam, refused, options, words):
    refused(words, FineTuned, sam, "sam_adapter", adapter_options=options)


@pytest.mark.parametrize("name", [n for n in recipes() if n.startswith("sam_adapter-")])
def test_recipes_are_the_published_form(name):
    config = from_words([name, "base.weights=none.pth"])
    assert config.adapter["embedding_layout"] == "reference"
    assert config.decoder == {"name": "prompt_free", "start": "random"}
    assert (config.train.lr, config.train.epochs, config.train.batch_size) == (2e-4, 20, 2)
    assert config.input.resize == "stretch"
    assert config.train.loss == ("bbce" if "istd" in name else "bce + iou")
