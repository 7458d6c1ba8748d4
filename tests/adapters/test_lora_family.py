"""Generalized SAM's forms of LoRA, ConvLoRA and AdaptFormer, and Conv-LoRA of its paper."""

from dataclasses import replace

import gsam_reference as reference
import pytest
import tiny
import torch
import torch.nn.functional as F

import samtune
from samtune.adapters import ADAPTERS
from samtune.adapters.conv_lora import Gate, Mixture
from samtune.adapters.head_conv_lora import HeadConvLowRank
from samtune.losses import DEFAULT_LOSS, Loss
from samtune.model.finetuned import FineTuned
from samtune.sam.layers import shapes_alone
from samtune.sam.model import Sam
from samtune.sam.spec import SPECS

PUBLISHED = {"hidden": 192, "scale": 0.5, "activation": "gelu", "zero_init": False}
METHODS = {
    "head_lora": "SAM_LoRA",
    "head_conv_lora": "SAM_ConvLoRA",
    "adaptformer": "SAM_AdaptFormer",
}
each = pytest.mark.parametrize("name", METHODS)


def options(name: str, **other) -> dict | None:
    return {**PUBLISHED, **other} if name == "adaptformer" else None


@pytest.mark.slow
@each
@pytest.mark.parametrize("classes", [2, 5])
@torch.no_grad()
@pytest.mark.golden("head_lora", "head_conv_lora")
def test_golden_forward(name, classes):
    golden = reference.GOLDEN[f"tiny/{METHODS[name]}/C{classes}/256x256"]
    model = reference.model(reference.PLAIN, name, options(name, hidden=12), classes=classes)
    embedding, masks, full = reference.run(model, reference.image((256, 256)))
    reference.assert_summary(embedding, golden["E"])
    reference.assert_summary(masks.logits, golden["L"])
    reference.assert_summary(full, golden["M"])


@each
def test_golden_loss_and_gradients(name):
    golden = reference.GOLDEN[f"tiny/{METHODS[name]}/C2/256x256"]
    model = reference.model(reference.PLAIN, name, options(name, hidden=12), classes=2)
    reference.assert_gradients(model, (256, 256), golden)


@pytest.mark.slow
@each
@pytest.mark.parametrize("classes", [2, 5])
def test_golden_training_steps(name, classes):
    golden = reference.GOLDEN[f"train3/{METHODS[name]}/C{classes}"]
    model = reference.model(reference.PLAIN3, name, options(name, hidden=12), classes=classes)
    assert model.trainable() == golden["trainable"]
    total = model.trainable() + reference.count(model.sam) - reference.count(model.sam.mask_decoder)
    assert total == golden["total"]
    reference.assert_steps(model, (256, 256), classes, golden["losses"])


@pytest.mark.slow
@each
@torch.no_grad()
def test_golden_vit_b(name):
    golden = reference.GOLDEN[f"vit_b/{METHODS[name]}/C2/1024x1024"]
    model = reference.model(SPECS["vit_b"], name, options(name), classes=2)
    reference.assert_vit_b(model, (1024, 1024), golden)


def built(name: str, base: str = "vit_b", **given):
    """An adapter without values, for counting."""
    with shapes_alone():
        return ADAPTERS[name](Sam(SPECS[base]), ADAPTERS.config(name, given))


def test_trained_parameters_are_those_of_the_table():
    lora, conv = built("head_lora"), built("head_conv_lora")
    adaptformer = built("adaptformer", **PUBLISHED)
    count = reference.count
    assert count(lora.updates["0"].q) == 2 * 64 * 16
    assert count(lora) == 73_728
    assert count(lora) + 4_058_340 == 4_132_068
    assert count(conv.updates["0"].q) == 11_908
    assert count(conv) == 428_688
    assert count(conv) + 4_058_340 == 4_487_028
    assert count(adaptformer.bottlenecks[0]) == 295_872
    assert count(adaptformer) == 3_550_464
    assert count(adaptformer) + 4_058_340 == 7_608_804


@pytest.mark.parametrize(
    ("base", "blocks", "dim"), [("vit_b", 12, 768), ("vit_l", 24, 1024), ("vit_h", 32, 1280)]
)
def test_conv_lora_counts(base, blocks, dim):
    """A and B, eight 3 x 3 convolutions with biases, and the gate's two matrices."""
    each = 3 * dim + 3 * dim * 3 + 8 * (3 * 3 * 9 + 3) + 2 * 3 * 8
    assert reference.count(built("conv_lora", base)) == blocks * each


PRINTED = {  # in docs/methods/lora.md, on ViT-B, ViT-L and ViT-H
    "lora": (147_456, 393_216, 655_360),
    "conv_lora": (119_232, 312_192, 514_560),
    "head_lora": (73_728, 147_456, 307_200),
    "head_conv_lora": (428_688, 857_376, 1_766_784),
}


@pytest.mark.parametrize("name", PRINTED)
def test_the_page_prints_the_sizes(name):
    found = tuple(reference.count(built(name, base)) for base in ("vit_b", "vit_l", "vit_h"))
    assert found == PRINTED[name]


# --- on split heads


def stir(module: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for p in module.parameters():
            p.normal_(0, 0.3)
    return module


@torch.no_grad()
@pytest.mark.parametrize("grid", [(4, 7), (5, 1), (14, 14)], ids=str)
def test_experts_are_convolutions_of_maps_enlarged_by_nearest_neighbours(grid):
    residual = stir(HeadConvLowRank(8, 3, 0.5))
    t = torch.randn(2, 5, grid[0] * grid[1], 8)
    z = (t @ residual.a).reshape(10, *grid, 3).permute(0, 3, 1, 2)
    gate = residual.gate(z).relu().softmax(1)
    mixed = torch.zeros_like(z)
    for e in range(1, 5):
        large = F.interpolate(z, (e * grid[0], e * grid[1]), mode="nearest")
        found = F.interpolate(residual.experts[str(e)](large), grid, mode="nearest")
        mixed += gate[:, e - 1 : e] * found
    expected = mixed.permute(0, 2, 3, 1).reshape(2, 5, -1, 3) @ residual.b * 0.5 / 3
    torch.testing.assert_close(residual(t, grid), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["head_lora", "head_conv_lora"])
def test_initial_residuals_read_with_a_fan_of_the_rank_and_write_nothing(sam, name):
    adapter = FineTuned(sam, name, adapter_options={"ratio": 0.5}).adapter
    downs = torch.stack([p for n, p in adapter.named_parameters() if n.endswith(".a")])
    assert downs.shape == (12, 16, 8)
    assert 0.99 * 8**-0.5 < downs.abs().max() <= 8**-0.5
    assert not any(p.any() for n, p in adapter.named_parameters() if n.endswith(".b"))


@pytest.mark.parametrize("name", ["head_lora", "head_conv_lora", "conv_lora"])
def test_blocks_are_chosen(sam, name):
    adapter = FineTuned(sam, name, adapter_options={"blocks": "global"}).adapter
    assert list(adapter.updates) == ["1", "3"]


def test_head_lora_changes_what_enters_the_positions_too(sam):
    """Queries are changed before relative positions read them, so the merged form is exact."""
    model = FineTuned(sam, "head_lora")
    stir(model.adapter)
    x = sam.preprocess(tiny.pixels())
    merged = tiny.base()
    with torch.no_grad():
        for name, delta in model.adapter.deltas(sam).items():
            merged.state_dict()[name].add_(delta)
        found = model.encode(x).embedding
        torch.testing.assert_close(merged.image_encoder(x), found, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(found, sam.image_encoder(x), atol=1e-2)


# --- AdaptFormer's options


def test_adaptformer_starts_as_sam_unless_told(sam):
    x = sam.preprocess(tiny.pixels())
    for zero, activation in [(True, "gelu"), (False, "relu")]:
        chosen = {"zero_init": zero, "activation": activation}
        model = FineTuned(sam, "adaptformer", adapter_options=chosen)
        assert model.adapter.identity_at_init is zero
        with torch.no_grad():
            assert torch.equal(model.encode(x).embedding, sam.image_encoder(x)) is zero


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("adaptformer", "activation", "tanh"),
        ("head_lora", "ratio", 0.0),
        ("head_conv_lora", "ratio", 0.01),
        ("conv_lora", "rank", 0),
        ("conv_lora", "experts", 0),
        ("conv_lora", "top_k", 9),
        ("conv_lora", "balance", -0.1),
        ("conv_lora", "target", "qk"),
    ],
)
def test_options_out_of_range(sam, refused, name, option, value):
    refused(f"{{{option!r}: {value!r}}}", FineTuned, sam, name, adapter_options={option: value})


# --- Conv-LoRA


def gate(top_k: int, experts: int = 5, training: bool = True) -> Gate:
    return stir(Gate(3, experts, top_k)).train(training)


def conv_lora(sam, **given) -> FineTuned:
    torch.manual_seed(1)
    model = FineTuned(sam, "conv_lora", adapter_options=given)
    stir(model.adapter)
    return model


def loss_of(model, batch, auxiliary: bool = True) -> torch.Tensor:
    masks = model(batch.pixels, batch.prompts, batch.sizes)
    if not auxiliary:
        masks = type(masks)(masks.logits, masks.iou)
    return Loss.parse(DEFAULT_LOSS)(masks, batch)


@torch.no_grad()
@pytest.mark.parametrize("top_k", [1, 2, 5])
def test_the_gate_weighs_the_best_and_no_other(top_k):
    features = torch.randn(40, 3)
    chooser = gate(top_k, training=False)
    weights, loss = chooser(features)
    assert loss is None
    logits = features @ chooser.choice
    best = logits.argsort(1, descending=True)[:, :top_k]
    for row, chosen, scores in zip(weights, best, logits, strict=True):
        expected = torch.zeros(5)
        expected[chosen] = scores[chosen].softmax(0)
        torch.testing.assert_close(row, expected)


@torch.no_grad()
@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_load_is_the_probability_to_be_chosen_with_noise_drawn_again(top_k):
    clean, spread = torch.randn(6, 5), torch.rand(6, 5) + 0.1
    noisy = clean + torch.randn(6, 5) * spread
    load = gate(top_k)._load(clean, noisy, spread)
    draws = 40_000
    for e in range(5):
        again = noisy[None].repeat(draws, 1, 1)
        again[:, :, e] = clean[:, e] + torch.randn(draws, 6) * spread[:, e]
        chosen = (again.topk(top_k).indices == e).any(-1).float().mean(0)
        torch.testing.assert_close(load[:, e], chosen, rtol=0, atol=0.015)


@torch.no_grad()
def test_balanced_use_costs_less_and_noise_spreads_it():
    one_sided, even = gate(1), gate(1)
    one_sided.choice.copy_(torch.tensor([[9.0, 0, 0, 0, 0]] * 3))
    one_sided.noise.fill_(-9)  # almost none
    even.choice.zero_()
    even.noise.zero_()
    features = torch.rand(400, 3) + 0.5
    weights, cost = one_sided(features)
    assert torch.equal(weights.argmax(1), torch.zeros(400, dtype=torch.long))
    assert cost == pytest.approx(2 * 5, rel=1e-3)  # of (n, 0, 0, 0, 0): the variance is n² / 5
    weights, cost = even(features)
    assert set(weights.argmax(1).tolist()) == set(range(5))
    assert cost < 0.1


@pytest.mark.parametrize("top_k", [1, 3])
def test_without_a_choice_there_is_nothing_to_balance(top_k):
    weights, loss = gate(top_k, experts=top_k)(torch.randn(6, 3))
    assert loss.isfinite()
    assert (weights > 0).all()
    if top_k == 1:
        assert not loss


@torch.no_grad()
@pytest.mark.golden("conv_lora")
def test_a_window_goes_through_the_experts_it_chose():
    """The paper's equation, one window at a time, with the experts alone that its gate chose."""
    mix = stir(Mixture(3, 4))
    z = torch.randn(6, 5, 7, 3)
    weights, _ = gate(2, experts=4, training=False)(z.mean((1, 2)))
    found = mix(z, weights)
    for k in range(6):
        channels = z[k : k + 1].permute(0, 3, 1, 2)
        expected = channels.clone()
        for e in weights[k].nonzero()[:, 0].tolist():
            large = F.interpolate(channels, scale_factor=float(e + 1), mode="bicubic")
            small = F.interpolate(F.gelu(mix.convs[e](large)), (5, 7), mode="bicubic")
            expected += weights[k, e] * small
        torch.testing.assert_close(found[k], expected[0].permute(1, 2, 0), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("target", ["qkv", "q+v"])
def test_gates_read_the_means_of_what_is_projected(sam, target):
    """They are computed outside of the block, so they have to agree with its inside."""
    model = conv_lora(sam, target=target).eval()
    adapter, seen = model.adapter, {}
    edits = adapter.edits

    def watched(i, state):
        inner = edits(i, state)

        def qkv(x):
            seen[i] = x
            return inner.qkv(x)

        return type(inner)(qkv=qkv)

    adapter.edits = watched
    features = model.encode(sam.preprocess(tiny.pixels(2, (48, 88))))
    for i in range(4):
        for pair, weights in enumerate(features.state.weights[i]):
            mean = seen[i].mean((1, 2)) @ adapter.updates[str(i)].a[pair].T
            expected, _ = adapter.gates[str(i)][pair](mean)
            assert len(weights) == len(seen[i])
            torch.testing.assert_close(weights, expected)


def test_the_balance_joins_the_loss_in_training_alone(sam):
    model, batch = conv_lora(sam, balance=0.5), tiny.batch([0, 1, 1])
    assert model.eval()(batch.pixels, batch.prompts).auxiliary is None
    model.train()
    torch.manual_seed(5)
    features = model.encode(sam.preprocess(batch.pixels.float()))
    assert len(features.state.losses) == 4
    expected = 0.5 * sum(features.state.losses)
    torch.testing.assert_close(model.adapter.auxiliary(features.state), expected)
    both, alone = [], []
    for given, found in ((True, both), (False, alone)):
        for of in (batch, tiny.batch([1]), tiny.batch([])):
            torch.manual_seed(5)
            found.append(loss_of(model, of, given).detach())
    added = torch.stack(both) - torch.stack(alone)
    # of both images, of the one that has prompts, of none
    torch.testing.assert_close(added, expected.detach() * torch.tensor([1.0, 0.5, 0.0]))


def test_all_experts_and_gates_learn_in_time(sam):
    model = FineTuned(sam, "conv_lora", adapter_options={"experts": 3})
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-2)
    idle = {n for n, _ in model.named_parameters()}
    for _ in range(12):
        optimizer.zero_grad()
        loss_of(model, tiny.batch([0, 1])).backward()
        idle -= {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        optimizer.step()
    assert not idle


@pytest.mark.slow
def test_the_noise_compiles_in_one_graph():
    sam = tiny.base(replace(tiny.TINY, depth=1, global_blocks=()))
    model = conv_lora(sam).train()
    x = sam.preprocess(tiny.pixels())
    torch._dynamo.reset()
    compiled = torch.compile(model.encode, backend="eager", fullgraph=True)
    found = []
    for encode in (compiled, model.encode):
        torch.manual_seed(4)
        features = encode(x)
        found.append((features.embedding, model.adapter.auxiliary(features.state)))
    torch.testing.assert_close(*found)


def test_stacks_add_up_what_their_parts_add_to_the_loss(sam):
    parts = [conv_lora(sam).adapter for _ in range(2)]
    stack = samtune.adapters.Stack(parts)
    model = FineTuned(sam, stack).train()
    features = model.encode(sam.preprocess(tiny.pixels()))
    each = [p.auxiliary(s) for p, s in zip(parts, features.state.states, strict=True)]
    torch.testing.assert_close(stack.auxiliary(features.state), each[0] + each[1])
    plain = FineTuned(sam, "lora+adaptformer").train()
    assert plain.adapter.auxiliary(plain.encode(sam.preprocess(tiny.pixels())).state) is None
