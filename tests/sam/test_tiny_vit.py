"""MobileSAM's encoder: its measured numbers, its files, and which methods it takes."""

import itertools

import deterministic
import pytest
import tiny
import torch
import torch.nn.functional as F
from steps import answer, gradients, snapshot, stirred, train
from tiny_vit_golden import TINY, base, check, classifier, mobile_sam, timm_names

import samtune
from samtune.adapters import ADAPTERS, Adapter, Stack
from samtune.cli.catalogue import describe_method
from samtune.decoders import DECODERS
from samtune.model.finetuned import FineTuned
from samtune.model.parts import check_fit, check_pair
from samtune.prompts import Prompts
from samtune.runs.config import resolve
from samtune.sam import weights
from samtune.sam.edits import BlockEdits
from samtune.sam.image_encoder import ImageEncoder
from samtune.sam.layers import shapes_alone
from samtune.sam.model import Sam
from samtune.sam.spec import SPECS
from samtune.sam.tiny_vit import Attention, Block, ConvNorm

SIZES = [(64, 64), (48, 80)]
STAGES = {
    "stem": (0.1022658, 0.7222673, 4.108126, (0.552705, -0.0596223, 0.632122)),
    "merged 0": (0.002026126, 0.2462677, 1.207644, (0.0435942, 0.170412, -0.0208993)),
    "merged 1": (0.1222844, 0.9418547, 2.812671, (0.128711, 0.911819, -0.0473382)),
    "merged 2": (0.01745633, 0.8830129, 3.429962, (0.771658, 0.183699, 0.956611)),
    "last block": (0.05982533, 1.693866, 9.305231, (-1.12203, -0.199016, -1.31735)),
    "neck": (-0.01686128, 1.012496, 3.40268, (-0.193954, -0.610065, -0.273217)),
}
MIDDLES = {
    "stem": (0.0725789, 0.618924, 0.292267),
    "merged 0": (-0.0188432, 0.238701, 0.0436098),
    "merged 1": (0.445107, 1.16062, -0.173479),
    "merged 2": (1.70536, 0.76763, 0.86154),
    "last block": (-1.33793, -0.497903, -1.52267),
    "neck": (-0.780963, -0.126614, -0.154192),
}


def fits(adapter, decoder) -> bool:
    try:
        check_pair(adapter, decoder)
        check_fit(adapter, decoder, TINY)
    except samtune.InputError:
        return False
    return True


SHARED = base()


def trains(adapter, decoder) -> bool:
    return FineTuned(SHARED, adapter, decoder).trainable() > 0


FITTING = [(a, d) for a in ADAPTERS for d in DECODERS if fits(a, d)]
# Each adapter once and each decoder once: how they meet is told by tests/model/test_matrix.py.
PAIRS = [pair for pair in FITTING if pair[0] == "none"]
PAIRS += [
    next(p for p in FITTING if p[0] == a and trains(*p)) for a in dict(FITTING) if a != "none"
]
PAIRS = list(dict.fromkeys([*PAIRS, ("lora+adaptformer", "tuned")]))
TRAINED = [pair for pair in PAIRS if trains(*pair)]
COMPILED = ("lora+adaptformer", "med_sa", "norm_tuning", "batch_norm")
"""They change a block at projections, MLP, after attention, in parameters and normalisations."""
every = pytest.mark.parametrize(("adapter", "decoder"), PAIRS, ids=str)
trained = pytest.mark.parametrize(("adapter", "decoder"), TRAINED, ids=str)


@pytest.fixture(scope="module")
def sam():
    return SHARED


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(SPECS, TINY.name, TINY)


def stages(encoder, pixels):
    """The stream at every step that was measured, and the embedding."""
    found = {"stem": encoder.patch_embed(pixels)}
    x = encoder.embed(pixels)
    for step in encoder.blocks:
        if step.merging is not None:
            merged = step.merging(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            found[f"merged {len(found) - 1}"] = merged
        x = step(x)
    return found | {"last block": x, "neck": encoder.apply_neck(x)}


@pytest.mark.slow
@torch.no_grad()
def test_the_full_model_computes_the_measured_numbers():
    sam = mobile_sam()
    found = stages(sam.image_encoder, deterministic.tensor("input", (1, 3, 1024, 1024), -2, 2))
    shapes = {name: tuple(tensor.shape) for name, tensor in found.items()}
    assert shapes == {
        "stem": (1, 64, 256, 256),
        "merged 0": (1, 128, 128, 128),
        "merged 1": (1, 64, 64, 160),
        "merged 2": (1, 64, 64, 320),
        "last block": (1, 64, 64, 320),
        "neck": (1, 256, 64, 64),
    }
    for name, golden in STAGES.items():
        check(found[name], *golden, MIDDLES[name])
    box = torch.tensor([[100 * 1024 / 120, 60 * 819 / 96, 119 * 1024 / 120, 95 * 819 / 96]])
    single, three = (
        sam.decode(found["neck"], Prompts.of(boxes=box), (1024, 1024), multimask)
        for multimask in (False, True)
    )
    check(single.logits, 0.243183, 0.5031283, 1.797736, (0.235549, 0.639881, -0.66205))
    assert single.iou.tolist() == [[pytest.approx(-0.1196101, abs=1e-4)]]
    check(three.logits, 0.3500056, 0.6409134, None, (0.554259, -0.0970461, 0.00416651))
    assert three.iou[0].tolist() == pytest.approx([-0.6975682, -0.0324119, 0.1900557], abs=1e-4)


def test_the_full_model_has_the_published_sizes():
    with shapes_alone():
        sam = Sam(SPECS["vit_t"])

    def count(*modules):
        return sum(p.numel() for module in modules for p in module.parameters())

    encoder, file = sam.image_encoder, sam.state_dict() | classifier()
    assert [count(layer) for layer in encoder.layers] == [98_944, 448_232, 2_030_520, 2_473_940]
    assert (count(encoder.patch_embed), count(encoder.neck)) == (19_488, 672_768)
    assert count(encoder) == 5_743_892
    assert count(encoder) + sum(t.numel() for t in classifier().values()) == 6_065_532
    assert count(sam) + sum(t.numel() for t in classifier().values()) == 10_130_092
    assert len(file) == 439
    assert len(list(sam.parameters())) + len(classifier()) == 357
    assert sum(isinstance(m, torch.nn.BatchNorm2d) for m in sam.modules()) == 27
    assert len([t for name, t in file.items() if ".bn." in name and "num_b" not in name]) == 108
    assert file["image_encoder.layers.2.downsample.conv2.c.weight"].shape == (320, 1, 3, 3)
    for layer, shape in ((1, (4, 49)), (2, (5, 196)), (3, (10, 49))):
        name = f"image_encoder.layers.{layer}.blocks.1.attn.attention_biases"
        assert file[name].shape == shape
    assert encoder.layers[2]["downsample"].conv2.c.stride == (1, 1)
    assert (sam.spec.grid, encoder.dim, len(encoder.blocks)) == ((64, 64), 320, sam.spec.depth)


@pytest.mark.parametrize("window", [1, 3, 7])
def test_biases_stand_for_distances_in_the_published_order(window):
    attention = Attention(8, 2, window)
    places, order, index = list(itertools.product(range(window), repeat=2)), {}, []
    for a, b in itertools.product(places, repeat=2):
        distance = (abs(a[0] - b[0]), abs(a[1] - b[1]))
        index.append(order.setdefault(distance, len(order)))
    attention.attention_biases.data.normal_()
    wanted = attention.attention_biases[:, torch.tensor(index)].unflatten(1, (window**2, -1))
    assert torch.equal(attention.bias(), wanted)


def textbook(block: Block, x):
    """The block token by token and head by head, ``(1, H, W, C)``."""
    attention, (h, w), side = block.attn, x.shape[1:3], block.window
    padded = F.pad(x, (0, 0, 0, -w % side, 0, -h % side))
    out = torch.zeros_like(padded)
    for top, left in itertools.product(
        range(0, padded.shape[1], side), range(0, padded.shape[2], side)
    ):
        here = slice(top, top + side), slice(left, left + side)
        tokens = attention.norm(padded[0][here]).flatten(0, 1)
        heads = []
        for head, rows in enumerate(attention.qkv(tokens).chunk(attention.heads, -1)):
            q, k, v = rows.chunk(3, -1)
            logits = q @ k.T / q.shape[-1] ** 0.5 + attention.bias()[head]
            heads.append(logits.softmax(-1) @ v)
        out[0][here] = attention.proj(torch.cat(heads, -1)).unflatten(0, (side, side))
    x = x + out[:, :h, :w]
    x = block.local_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    mlp = block.mlp
    return x + mlp.fc2(F.gelu(mlp.fc1(mlp.norm(x))))


@torch.no_grad()
@pytest.mark.parametrize("grid", [(3, 3), (6, 3), (5, 4), (1, 7)])
def test_a_block_is_the_textbook_form(sam, grid):
    block = sam.image_encoder.blocks[1].block
    x = deterministic.tensor("stream", (1, *grid, block.dim), -2, 2)
    torch.testing.assert_close(block(x), textbook(block, x), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_edits_act_inside_a_block_in_sams_order(sam):
    block = sam.image_encoder.blocks[1].block
    x, dim = deterministic.tensor("stream", (2, 4, 5, 24), -2, 2), 24
    update = deterministic.tensor("update", (3 * dim, dim), -1, 1)
    changed = base().image_encoder.blocks[1].block
    changed.attn.qkv.weight += changed.attn.by_head(update, -2)
    torch.testing.assert_close(block(x, BlockEdits(qkv=lambda n: n @ update.T)), changed(x))
    rows = changed.attn.by_head(torch.arange(3 * dim)).tolist()
    assert rows[:8] == [0, 1, 2, 3, 4, 5, 6, 7]  # queries of head 0, 8 wide
    assert rows[8:24] == [*range(24, 32), *range(48, 56)]  # its keys and values
    assert rows[24:32] == [*range(8, 16)]  # queries of head 1
    without = block(x, BlockEdits(attended=torch.zeros_like))
    alone = block.local_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    assert torch.equal(without, alone + block.mlp(alone, BlockEdits()))
    torch.testing.assert_close(block(x, BlockEdits(mlp=torch.ones_like)), block(x) + 1)
    bias = {"mlp.fc2.bias": block.mlp.fc2.bias + 1}
    torch.testing.assert_close(block(x, BlockEdits(params=bias)), block(x) + 1)


def test_edits_without_a_place_are_refused(sam):
    block, x = sam.image_encoder.blocks[0].block, torch.zeros(1, 3, 3, 16)
    for edits in (BlockEdits(tokens=torch.zeros(1, 16)), BlockEdits(heads=lambda *a: a)):
        with pytest.raises(ValueError, match="does not support"):
            block(x, edits)
    with pytest.raises(ValueError, match=r"no parameter mlp\.lin1"):
        block(x, BlockEdits(params={"mlp.lin1.bias": torch.zeros(1)}))


@pytest.mark.parametrize("size", SIZES)
def test_any_size_that_a_token_divides(sam, size):
    pixels = sam.preprocess(tiny.pixels(2, size))
    embedding = sam.image_encoder(pixels)
    assert embedding.shape == (2, 32, size[0] // 16, size[1] // 16)
    assert torch.equal(FineTuned(sam).encode(pixels).embedding, embedding)


def test_other_sizes_are_refused(sam, refused):
    words = ["input of 64x72", "multiples of the patch, 16", "64x80"]
    refused(words, sam.image_encoder, torch.zeros(1, 3, 64, 72))


def test_biases_are_never_stale(registered):
    sam = base()
    pixels = sam.preprocess(tiny.pixels(1))
    before = sam.image_encoder(pixels)
    state = sam.state_dict()
    changed = {n: t + 0.5 * ("biases" in n) * torch.rand_like(t.float()) for n, t in state.items()}
    sam.load_state_dict(changed)
    after = sam.image_encoder(pixels)
    assert (after - before).abs().max() > 1e-3
    assert torch.equal(after, weights.from_state(TINY, changed).image_encoder(pixels))


class TestFiles:
    """``mobile_sam.pt`` in its forms."""

    @pytest.fixture
    def state(self, sam, registered):
        return dict(sam.state_dict()) | classifier(32)

    @pytest.mark.parametrize(
        "form",
        {
            "as published": lambda s: s,
            "without the classifier": lambda s: {k: s[k] for k in s.keys() - classifier().keys()},
            "of a parallel model": lambda s: {f"module.{k}": t for k, t in s.items()},
            "with timm's names": timm_names,
            "in double precision": lambda s: {
                k: t.double() if t.is_floating_point() else t for k, t in s.items()
            },
        }.items(),
        ids=lambda item: item[0],
    )
    def test_forms(self, sam, state, tmp_path, form):
        torch.save(form[1](state), tmp_path / "mobile_sam.pt")
        loaded = weights.load_sam(TINY.name, tmp_path / "mobile_sam.pt").state_dict()
        assert loaded.keys() == sam.state_dict().keys()
        assert not any("norm_head" in name or "encoder.head" in name for name in loaded)
        for name, tensor in sam.state_dict().items():
            assert torch.equal(loaded[name], tensor), name
            assert loaded[name].dtype == tensor.dtype
        assert weights.fingerprint(weights.load_sam(TINY.name, tmp_path / "mobile_sam.pt"))

    def test_what_is_missing_is_named(self, state, tmp_path, refused):
        del state["image_encoder.layers.1.blocks.0.attn.attention_biases"]
        torch.save(state, tmp_path / "mobile_sam.pt")
        words = "missing image_encoder.layers.1.blocks.0.attn.attention_biases"
        refused(words, weights.load_sam, TINY.name, tmp_path / "mobile_sam.pt")

    def test_another_base_is_recognised(self, tmp_path, refused):
        state = Sam(SPECS["vit_t"]).state_dict()
        torch.save(state, tmp_path / "mobile_sam.pt")
        refused("set name=vit_t", weights.load_sam, "vit_b", tmp_path / "mobile_sam.pt")
        patches = {ImageEncoder.anchor: torch.empty(768, 3, 16, 16)}
        torch.save(patches, tmp_path / "sam_vit_b.pth")
        refused("set name=vit_b", weights.load_sam, "vit_t", tmp_path / "sam_vit_b.pth")

    def test_a_vit_has_no_classifier(self, tmp_path, tiny_registered, refused):
        state = dict(tiny.base().state_dict()) | classifier()
        torch.save(state, tmp_path / "sam.pth")
        refused(
            "unexpected image_encoder.norm_head", weights.load_sam, "tiny", tmp_path / "sam.pth"
        )


class TestMethods:
    """What of the registry fits; the rest is refused before any weight is read."""

    def test_what_fits(self):
        assert {d for _, d in PAIRS} == {d for _, d in FITTING}
        assert {a for a, _ in PAIRS} >= {"none", "lora", "adaptformer"}
        assert {d for a, d in PAIRS if a == "none"} >= {"frozen", "tuned", "semantic"}

    @pytest.mark.parametrize("adapter", [a for a in ADAPTERS if a not in dict(PAIRS)])
    def test_what_does_not_is_refused_by_the_configuration(self, adapter, refused):
        with shapes_alone():
            sam = Sam(TINY).freeze()
        decoder = (ADAPTERS[adapter].decoders or ("tuned",))[0]
        tree = {"base": {"name": "vit_t", "weights": "none.pt"}, "adapter": adapter}
        words = ["base.name=vit_t", adapter, "adapter.name to one of", "none"]
        refused(words, resolve, [tree | {"decoder": decoder}])
        refused("base=tiny_t", FineTuned, sam, adapter, decoder)
        assert "vit_t" not in describe_method(adapter)["backbones"]

    def test_parts_of_a_combination_count(self, refused):
        check_fit("lora+adaptformer", "tuned", TINY)
        refused("lora+vpt", check_fit, "lora+vpt", "tuned", TINY)
        with shapes_alone():
            stack = Stack([ADAPTERS["vpt"](Sam(tiny.TINY), ADAPTERS["vpt"].Config())])
        refused("base.name=tiny_t", check_fit, stack, "tuned", TINY)

    def test_a_decoder_that_reads_global_blocks_is_refused(self, refused):
        tree = {"base": {"name": "vit_t"}, "adapter": "none", "decoder": "hq"}
        refused(["decoder.name=hq", "vit_t has none"], resolve, [tree])

    def test_it_is_listed_as_a_backbone(self):
        for adapter in dict(PAIRS):
            if "+" not in adapter:
                assert "vit_t" in describe_method(adapter)["backbones"]
        assert describe_method("lora", "vit_t")["trainable_parameters"] == 4 * 2 * (
            2 * 2 * 128 + 6 * 2 * 160 + 2 * 2 * 320
        )

    def test_there_are_no_global_blocks_to_choose(self, sam, refused):
        options = {"blocks": "global"}
        refused("tiny_t has no such block", FineTuned, sam, "lora", adapter_options=options)
        chosen = FineTuned(sam, "lora", adapter_options={"blocks": (-1,)}).adapter.updates
        assert list(chosen) == ["3"]


@every
@pytest.mark.parametrize("size", SIZES)
def test_forward_and_backward(sam, adapter, decoder, size):
    model = stirred(sam, adapter, decoder)
    masks = model(tiny.pixels(2, size), tiny.boxes([0, 1, 1], size))
    assert masks.logits.shape[-2:] == (size[0] // 4, size[1] // 4)
    assert masks.logits.isfinite().all()
    if model.trainable():
        found = gradients(model, tiny.batch([0, 1, 1], size=size))
        assert all(g.isfinite().all() for g in found.values())


@every
def test_saved_and_loaded_it_answers_bit_for_bit(sam, registered, adapter, decoder, tmp_path):
    model = stirred(sam, adapter, decoder)
    loaded = samtune.load(samtune.save(model, tmp_path / "model.safetensors"), base=sam)
    for size in SIZES:
        assert torch.equal(answer(loaded, size), answer(model, size))


@pytest.mark.slow
@trained
def test_training_moves_what_is_trained_and_leaves_the_base(adapter, decoder):
    sam = base()
    before = snapshot(sam)
    model = FineTuned(sam, adapter, decoder)
    moved = set.union(*train(model))
    idle = {n for n, _ in model.named_parameters()} - moved
    parts = ("adapter", model.adapter), ("decoder", model.decoder)
    declared = tuple(f"{part}.{name}" for part, module in parts for name in module.untrained)
    assert not {n for n in idle if not n.startswith(declared)}
    assert snapshot(sam) == before  # batch statistics too: nothing of a frozen part trains
    assert not any(m.training for m in sam.modules())
    plain = gradients(model, tiny.batch([0, 1, 1]))
    model.checkpointing = True
    again = gradients(model, tiny.batch([0, 1, 1]))
    assert all(torch.equal(plain[n], again[n]) for n in plain)


@every
def test_fresh_it_is_the_plain_encoder_or_says_why_not(sam, adapter, decoder):
    pixels = sam.preprocess(tiny.pixels())
    model = FineTuned(sam, adapter, decoder).eval()
    same = torch.equal(model.encode(pixels).embedding, sam.image_encoder(pixels))
    assert same == model.adapter.identity_at_init


@pytest.mark.slow
@pytest.mark.parametrize("adapter", COMPILED)
def test_compiled_in_one_graph_it_computes_the_same(sam, adapter):
    model = stirred(sam, adapter, "frozen")
    pixels = sam.preprocess(tiny.pixels())
    torch._dynamo.reset()
    compiled = torch.compile(model.encode, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(pixels).embedding, model.encode(pixels).embedding)


@pytest.mark.parametrize("adapter", list(dict.fromkeys(a for a, _ in PAIRS)))
def test_in_half_precision_it_is_close(sam, adapter):
    model = stirred(sam, adapter, "frozen")
    exact = answer(model)
    with torch.autocast("cpu", torch.bfloat16):
        rough = answer(model).float()
    assert (rough - exact).norm() < 0.06 * exact.norm()


@pytest.mark.parametrize("options", [{}, {"target": "qkv"}, {"target": "k", "blocks": (0, 2)}])
def test_lora_merges_into_rows_ordered_by_head(sam, options):
    model = FineTuned(sam, "lora", adapter_options=options).eval()
    with torch.no_grad():
        for i, p in enumerate(model.adapter.parameters()):
            p.copy_(deterministic.tensor(f"parameter {i}", p.shape, -0.3, 0.3))
    deltas = model.adapter.deltas(sam)
    assert ADAPTERS["lora"].deltas is not Adapter.deltas
    merged = base()
    state = merged.state_dict()
    for name, delta in deltas.items():
        state[name].add_(delta)
        thirds = delta.unflatten(0, (-1, 3, 8)).abs().sum((0, 2, 3))  # heads are 8 wide
        touched = {"q+v": [0, 2], "qkv": [0, 1, 2], "k": [1]}[options.get("target", "q+v")]
        assert thirds.nonzero().flatten().tolist() == touched
    pixels = sam.preprocess(tiny.pixels())
    found = model.encode(pixels).embedding
    assert (found - sam.image_encoder(pixels)).abs().max() > 1e-3
    torch.testing.assert_close(merged.image_encoder(pixels), found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("adapter", "options", "parts"),
    [
        ("bitfit", {}, {0, 1, 2}),
        ("bitfit", {"which": "v+q"}, {0, 2}),
        ("bitfit", {"which": "k+lin1", "blocks": (1, -1)}, {1}),
        ("norm_tuning", {}, set()),
    ],
)
def test_tuned_biases_and_norms_merge(sam, adapter, options, parts):
    model = FineTuned(sam, adapter, adapter_options=options).eval()
    with torch.no_grad():
        for i, p in enumerate(model.adapter.parameters()):
            p.add_(deterministic.tensor(f"parameter {i}", p.shape, 0.1, 0.3))
    merged, deltas = base(), model.adapter.deltas(sam)
    for name, delta in deltas.items():
        merged.state_dict()[name].add_(delta)
        if name.endswith("qkv.bias"):
            touched = delta.unflatten(0, (-1, 3, 8)).abs().amin((0, 2)) > 0.05  # heads are 8 wide
            assert set(touched.nonzero().flatten().tolist()) == parts
            assert not delta.unflatten(0, (-1, 3, 8))[:, ~touched].any()
    assert len(deltas) == sum(1 for _ in model.adapter.parameters())
    pixels = sam.preprocess(tiny.pixels())
    found = model.encode(pixels).embedding
    torch.testing.assert_close(merged.image_encoder(pixels), found, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, sam.image_encoder(pixels), atol=1e-3)


def test_convolutions_round_up():
    assert ConvNorm(3, 4, 3, stride=2).eval()(torch.zeros(1, 3, 5, 8)).shape == (1, 4, 3, 4)
