"""BitFit, norm tuning, SSF, FacT and Medical SAM Adapter, computed once more from their papers."""

import copy

import pytest
import tiny
import torch
import torch.nn.functional as F

from samtune.adapters import ADAPTERS
from samtune.model.finetuned import FineTuned
from samtune.ops import resize, windows
from samtune.sam.layers import shapes_alone
from samtune.sam.model import Sam
from samtune.sam.spec import SPECS

METHODS = ["bitfit", "norm_tuning", "ssf", "fact", "med_sa"]
SIZES = [(64, 64), (48, 88)]
OPERATIONS = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.lin1", "mlp.lin2")


def stirred(sam, name, **options) -> FineTuned:
    """A model whose every parameter is off its start, so that all of it acts."""
    torch.manual_seed(2)
    model = FineTuned(sam, name, adapter_options=options).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model


def assert_same(model, expected, size) -> None:
    """The model's embedding is what ``expected`` makes of the pixels, and not plain SAM's."""
    pixels = model.sam.preprocess(tiny.pixels(2, size))
    found = model.encode(pixels).embedding
    torch.testing.assert_close(found, expected(pixels), rtol=1e-5, atol=1e-5)
    assert (found - model.sam.image_encoder(pixels)).abs().max() > 0.01


def attention(block, x, follow=lambda name, y: y):
    """The block's attention on a normed grid, window by window; ``follow`` sees each product."""
    h, w = padded = x.shape[1:3]
    if block.window:
        x, padded = windows.partition(x, block.window)
    heads, (n, rows, columns, _) = block.attn.heads, x.shape
    qkv = follow("attn.qkv", F.linear(x, block.attn.qkv.weight, block.attn.qkv.bias))
    q, k, v = qkv.reshape(n, rows * columns, 3, heads, -1).permute(2, 0, 3, 1, 4)
    rel_h = resize.relative(block.attn.rel_pos_h, rows, rows)
    rel_w = resize.relative(block.attn.rel_pos_w, columns, columns)
    grid = q.unflatten(2, (rows, columns))
    bias = torch.einsum("nmhwd,hkd->nmhwk", grid, rel_h)[..., None]
    bias = bias + torch.einsum("nmhwd,wkd->nmhwk", grid, rel_w)[..., None, :]
    scores = q @ k.mT * q.shape[-1] ** -0.5 + bias.flatten(4).flatten(2, 3)
    out = (scores.softmax(-1) @ v).transpose(1, 2).reshape(n, rows, columns, -1)
    out = follow("attn.proj", F.linear(out, block.attn.proj.weight, block.attn.proj.bias))
    return windows.merge(out, padded, (h, w)) if block.window else out


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", METHODS)
@torch.no_grad()
def test_a_fresh_one_is_exactly_the_base(sam, name, size):
    model = FineTuned(sam, name).eval()
    pixels = sam.preprocess(tiny.pixels(2, size))
    assert torch.equal(model.encode(pixels).embedding, sam.image_encoder(pixels))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    ("name", "terms"), [("bitfit", ["bias"]), ("norm_tuning", ["weight", "bias"])]
)
@pytest.mark.golden("bitfit", "norm_tuning")
def test_trained_values_are_those_of_a_base_that_has_them(sam, own_sam, name, terms, size):
    model = stirred(sam, name)
    tuned = dict(model.adapter.named_parameters())
    operations = OPERATIONS if name == "bitfit" else ("norm1", "norm2")
    with torch.no_grad():
        for i, block in enumerate(own_sam.image_encoder.blocks):
            for key in (f"{op}.{term}" for op in operations for term in terms):
                value = tuned.pop(f"tuned.{i}.{key.replace('.', '_')}")
                block.get_parameter(key).copy_(value)
    assert not tuned, "more is trained than that"
    assert_same(model, own_sam.image_encoder, size)


def test_bitfit_on_queries_and_the_first_mlp_layer_is_the_papers_subset(sam, own_sam):
    model = stirred(sam, "bitfit", which="q+lin1")
    with torch.no_grad():
        for i, block in enumerate(own_sam.image_encoder.blocks):
            own = model.adapter.tuned[str(i)]
            assert own["attn_qkv_bias"].shape == (32,)
            block.attn.qkv.bias[:32] = own["attn_qkv_bias"]
            block.mlp.lin1.bias.copy_(own["mlp_lin1_bias"])
    assert len(list(model.adapter.parameters())) == 2 * 4
    assert_same(model, own_sam.image_encoder, SIZES[1])


def test_bitfit_on_two_thirds_leaves_the_other(sam, own_sam):
    model = stirred(sam, "bitfit", which="v+q", blocks=(1,))
    own = model.adapter.tuned["1"]["attn_qkv_bias"]
    with torch.no_grad():
        bias = own_sam.image_encoder.blocks[1].attn.qkv.bias
        bias[:32], bias[64:] = own[:32], own[32:]
    assert_same(model, own_sam.image_encoder, SIZES[0])


def test_a_bias_of_keys_has_no_effect(sam):
    model = stirred(sam, "bitfit", which="k")
    pixels = sam.preprocess(tiny.pixels())
    base = sam.image_encoder(pixels)
    torch.testing.assert_close(model.encode(pixels).embedding, base, rtol=1e-5, atol=1e-5)


def ssf_reference(sam, adapter, pixels):
    """Features scaled and shifted one operation after the other, in the frozen encoder."""
    encoder = sam.image_encoder
    patches = adapter.patch.scale * encoder.patch_embed(pixels) + adapter.patch.shift
    x = patches + resize.positions(encoder.pos_embed, patches.shape[1:3])
    for i, block in enumerate(encoder.blocks):
        own = adapter.features[str(i)]

        def follow(name, y, own=own):
            return own[name.split(".")[-1]].scale * y + own[name.split(".")[-1]].shift

        x = x + attention(block, follow("norm1", block.norm1(x)), follow)
        hidden = follow("mlp.lin1", block.mlp.lin1(follow("norm2", block.norm2(x))))
        x = x + follow("mlp.lin2", block.mlp.lin2(F.gelu(hidden)))
    return encoder.apply_neck(x)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.golden("ssf")
def test_ssf_scales_and_shifts_the_features_after_each_operation(sam, size):
    model = stirred(sam, "ssf")
    assert_same(model, lambda pixels: ssf_reference(sam, model.adapter, pixels), size)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_ssf_is_the_merged_base(sam, own_sam, size):
    model = stirred(sam, "ssf")
    state, trained = own_sam.state_dict(), dict(model.adapter.named_parameters())
    places = {op.split(".")[-1]: op for op in OPERATIONS}
    with torch.no_grad():
        for name in [n for n in trained if n.endswith(".scale")]:
            scale, shift = trained[name], trained[name.replace(".scale", ".shift")]
            _, *place = name.removesuffix(".scale").split(".")
            key = f"image_encoder.blocks.{place[0]}.{places[place[1]]}" if place else ""
            key = key or "image_encoder.patch_embed.proj"
            state[f"{key}.weight"].mul_(scale.view(-1, *[1] * (state[f"{key}.weight"].dim() - 1)))
            state[f"{key}.bias"].mul_(scale).add_(shift)
    assert_same(model, own_sam.image_encoder, size)


def test_ssf_without_the_patch_embedding_and_in_some_blocks(sam):
    model = stirred(sam, "ssf", which="norm2+qkv", blocks="global")
    assert sorted({n.rsplit(".", 1)[0] for n, _ in model.adapter.named_parameters()}) == [
        f"features.{i}.{part}" for i in (1, 3) for part in ("norm2", "qkv")
    ]
    pixels = sam.preprocess(tiny.pixels())
    assert torch.equal(
        model.adapter.embed(sam.image_encoder, pixels), sam.image_encoder.embed(pixels)
    )


def test_ssf_may_start_around_the_identity(sam):
    adapter = ADAPTERS["ssf"](sam, ADAPTERS["ssf"].Config(std=0.02))
    assert not adapter.identity_at_init
    for kind, mean in (("scale", 1), ("shift", 0)):
        values = torch.cat([p for n, p in adapter.named_parameters() if n.endswith(kind)])
        assert values.mean().item() == pytest.approx(mean, abs=0.003)
        assert values.std().item() == pytest.approx(0.02, rel=0.1)


def fact_tensor(adapter):
    """The update of all projections as one tensor, ``(slices, C, C)``, from the paper's formula."""
    if adapter.tucker:
        return adapter.scale * torch.einsum(
            "abc,ia,jb,kc->ijk", adapter.c, adapter.p, adapter.u, adapter.v
        )
    return adapter.scale * torch.einsum("iab,ja,kb->ijk", adapter.sigma, adapter.u, adapter.v)


@pytest.mark.parametrize("form", ["tt", "tk"])
@pytest.mark.parametrize(
    ("target", "blocks"), [("q+v", "all"), ("k", (0, 2)), ("all", (-1,))], ids=str
)
@torch.no_grad()
@pytest.mark.golden("fact")
def test_fact_is_the_explicit_tensor_product(sam, own_sam, form, target, blocks):
    model = stirred(sam, "fact", form=form, target=target, blocks=blocks, rank=5, scale=3.0)
    model.adapter.v.mul_(4)
    tensor = fact_tensor(model.adapter)
    thirds = {"q+v": [0, 2], "k": [1], "all": [0, 1, 2]}[target]
    chosen = {"all": [0, 1, 2, 3], (0, 2): [0, 2], (-1,): [3]}[blocks]
    assert tensor.shape == (len(thirds) * len(chosen), 32, 32)
    updates = iter(tensor)
    for i in chosen:
        weight = own_sam.image_encoder.blocks[i].attn.qkv.weight
        for (
            third
        ) in thirds:  # a slice multiplies rows x from the right, torch's weights from the left
            weight[third * 32 : third * 32 + 32] += next(updates).T
    delta = model.adapter.deltas(sam)
    base = sam.image_encoder
    assert sorted(delta) == [f"image_encoder.blocks.{i}.attn.qkv.weight" for i in chosen]
    for i in chosen:
        expected = own_sam.image_encoder.blocks[i].attn.qkv.weight - base.blocks[i].attn.qkv.weight
        found = delta[f"image_encoder.blocks.{i}.attn.qkv.weight"]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    pixels = sam.preprocess(tiny.pixels(2, SIZES[1]))
    found = model.encode(pixels).embedding
    torch.testing.assert_close(found, own_sam.image_encoder(pixels), rtol=1e-5, atol=1e-5)
    if target != "k":
        assert (found - sam.image_encoder(pixels)).abs().max() > 0.01


def test_fact_shares_its_outer_factors_and_drops_out_in_training_alone(sam):
    model = stirred(sam, "fact", dropout=0.5)
    assert {n for n, _ in model.adapter.named_parameters()} == {"u", "v", "sigma"}
    x = torch.randn(1, 3, 3, 32)
    assert torch.equal(model.adapter.update(0, x), model.adapter.update(0, x))
    model.train()
    assert not torch.equal(model.adapter.update(0, x), model.adapter.update(0, x))


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("i", [0, 1], ids=["windowed", "global"])
@pytest.mark.golden("med_sa")
def test_med_sa_is_its_paper_s_block(sam, i, activation):
    model = stirred(sam, "med_sa", ratio=0.5, scale=0.7, activation=activation)
    own = dict(model.adapter.named_parameters())

    def adapter(place, z):
        def linear(z, name):
            return F.linear(z, own[f"{place}.{name}.weight"], own[f"{place}.{name}.bias"])

        hidden = linear(z, "down")
        assert hidden.shape[-1] == 16
        return linear(hidden.relu() if activation == "relu" else F.gelu(hidden), "up")

    block, x = sam.image_encoder.blocks[i], torch.randn(2, 8, 7, 32)
    found = block(x, model.adapter.edits(i, None))
    a = attention(block, block.norm1(x))
    x = x + a + adapter(f"attention.{i}.bottleneck", a)
    n = block.norm2(x)
    x = x + block.mlp(n) + 0.7 * adapter(f"mlp.{i}", n)
    torch.testing.assert_close(found, x, rtol=1e-5, atol=1e-5)


def test_med_sa_may_start_at_random(sam):
    model = FineTuned(sam, "med_sa", adapter_options={"zero_init": False})
    assert not model.adapter.identity_at_init
    pixels = sam.preprocess(tiny.pixels())
    assert not torch.equal(model.encode(pixels).embedding, sam.image_encoder(pixels))
    with pytest.raises(NotImplementedError, match="med_sa"):
        model.adapter.deltas(sam)


def bottlenecks(dim: int, depth: int) -> int:
    hidden = dim // 4
    return depth * 2 * (dim * hidden + hidden + hidden * dim + dim)


COUNTS = {
    # norm1, qkv, proj, norm2, lin1, lin2: C + 3C + C + C + 4C + C
    ("bitfit", ""): lambda c, depth: 11 * c * depth,
    ("bitfit", "q+lin1"): lambda c, depth: 5 * c * depth,
    ("norm_tuning", ""): lambda c, depth: 4 * c * depth,
    ("ssf", ""): lambda c, depth: 2 * (11 * c * depth + c),
    ("fact", "tt"): lambda c, depth: 2 * c * 16 + 2 * depth * 16**2,
    ("fact", "tk"): lambda c, depth: 2 * c * 16 + 2 * depth * 16 + 16**3,
    ("med_sa", ""): bottlenecks,
}
PRINTED = {  # in docs/methods/neighbours.md
    "vit_b": [101_376, 46_080, 36_864, 204_288, 30_720, 29_056, 7_100_928],
    "vit_l": [270_336, 122_880, 98_304, 542_720, 45_056, 37_632, 25_227_264],
    "vit_h": [450_560, 204_800, 163_840, 903_680, 57_344, 46_080, 52_531_200],
}


@pytest.mark.parametrize(
    ("base", "dim", "depth"), [("vit_b", 768, 12), ("vit_l", 1024, 24), ("vit_h", 1280, 32)]
)
def test_counts(base, dim, depth):
    with shapes_alone():
        sam = Sam(SPECS[base])
        for ((name, value), count), number in zip(COUNTS.items(), PRINTED[base], strict=True):
            option = {"bitfit": "which", "fact": "form"}.get(name)
            config = ADAPTERS[name].Config(**({option: value} if option and value else {}))
            trained = sum(p.numel() for p in ADAPTERS[name](sam, config).parameters())
            assert trained == count(dim, depth) == number, name


@pytest.mark.parametrize("name", ["bitfit", "norm_tuning"])
def test_trained_copies_share_nothing_with_the_base(own_sam, name):
    before = copy.deepcopy(own_sam.state_dict())
    model = stirred(own_sam, name)
    assert model.trainable()
    assert all(torch.equal(before[key], t) for key, t in own_sam.state_dict().items())


@pytest.mark.parametrize("name", METHODS)
def test_stacked_with_lora_it_acts_as_itself_and_lora(sam, name):
    model = stirred(sam, f"{name}+lora")
    stack, pixels = model.adapter, sam.preprocess(tiny.pixels())
    both = model.encode(pixels).embedding
    for adapter in stack.adapters:
        alone = FineTuned(sam, adapter).eval().encode(pixels).embedding
        assert (both - alone).abs().max() > 0.01


def test_two_that_replace_the_same_tensor_are_refused(sam, refused):
    refused("norm1.bias of block 0", FineTuned, sam, "bitfit+norm_tuning")


def test_two_that_share_no_tensor_go_together(sam, own_sam):
    options = {"norm_tuning": {"terms": "weight"}}
    model = stirred(sam, "bitfit+norm_tuning", **options)
    with torch.no_grad():
        for key, delta in model.adapter.deltas(sam).items():
            own_sam.state_dict()[key].add_(delta)
    assert_same(model, own_sam.image_encoder, SIZES[0])


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("bitfit", "which", "bias"),
        ("bitfit", "which", "q+q"),
        ("bitfit", "blocks", "some"),
        ("norm_tuning", "norms", "norm3"),
        ("norm_tuning", "terms", "gain"),
        ("ssf", "which", "neck"),
        ("ssf", "std", -1.0),
        ("fact", "form", "cp"),
        ("fact", "target", "qkv"),
        ("fact", "rank", 0),
        ("fact", "dropout", 1.0),
        ("med_sa", "ratio", 0.0),
        ("med_sa", "activation", "tanh"),
    ],
)
def test_options_out_of_range(sam, refused, name, option, value):
    words = f"adapter_options={{{option!r}: {value!r}}}"
    refused(words, FineTuned, sam, name, adapter_options={option: value})
