"""LoRA, AdaptFormer and stacks in particular; what holds for all methods is in test_matrix."""

from dataclasses import dataclass

import pytest
import tiny
import torch
import torch.nn.functional as F
from torch import nn

import samtune
from samtune.adapters import ADAPTERS, Adapter, Stack
from samtune.adapters.adaptformer import AdaptFormer
from samtune.adapters.lora import LoRA, chosen_blocks
from samtune.model.finetuned import FineTuned
from samtune.sam.edits import BlockEdits
from samtune.sam.layers import shapes_alone
from samtune.sam.model import Sam
from samtune.sam.spec import SPECS

GRID = (2, 3, 5, 32)


def stir(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for p in module.parameters():
            p.normal_(0, 0.3)
    return module


def lora(sam, **options) -> LoRA:
    return stir(LoRA(sam, LoRA.Config(**options)))


# --- LoRA


@pytest.mark.parametrize(
    ("target", "slots"),
    [("qkv", [(0, 1, 2)]), ("q+v", [(0,), (2,)]), ("v", [(2,)]), ("k+q", [(1,), (0,)])],
)
@pytest.mark.golden("lora")
def test_lora_is_the_textbook_update_of_the_projection(sam, target, slots):
    """Hu et al. 2021, equation 3: W x + (alpha / r) B A x, on the rows that the target names."""
    adapter = lora(sam, target=target, rank=3, alpha=12.0)
    x = torch.randn(*GRID)
    update = adapter.updates["2"]
    delta = torch.zeros(3, 32, 32)
    for thirds, a, b in zip(slots, update.a, update.b, strict=True):
        assert a.shape == (3, 32)
        assert b.shape == (32 * len(thirds), 3)
        delta[list(thirds)] = (4.0 * b @ a).reshape(len(thirds), 32, 32)
    expected = F.linear(x, delta.flatten(0, 1))
    torch.testing.assert_close(adapter.edits(2, None).qkv(x), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(update.weight(), delta.flatten(0, 1))


def test_lora_scales_by_alpha_over_rank(sam):
    scales = [lora(sam, rank=4, alpha=a).updates["0"].scale for a in (None, 4, 1)]
    assert scales == [1.0, 1.0, 0.25]


@pytest.mark.parametrize(
    ("options", "count"),
    [({}, 147_456), ({"target": "qkv"}, 147_456), ({"rank": 8, "target": "q"}, 147_456)],
)
def test_lora_has_the_published_number_of_parameters(options, count):
    """SAMed (arXiv:2304.13785) at rank 4 on ViT-B: 12 blocks, two pairs of 4 x 768 + 768 x 4."""
    with shapes_alone():
        adapter = LoRA(Sam(SPECS["vit_b"]), LoRA.Config(**options))
    assert sum(p.numel() for p in adapter.parameters()) == count


@pytest.mark.parametrize(
    ("blocks", "chosen"),
    [
        ("all", {0, 1, 2, 3}),
        ("global", {1, 3}),
        ("windowed", {0, 2}),
        ((0, -1), {0, 3}),
        ([2], {2}),
    ],
)
def test_lora_sits_in_the_chosen_blocks_alone(sam, blocks, chosen):
    adapter = lora(sam, blocks=blocks)
    assert {i for i in range(4) if adapter.edits(i, None).qkv is not None} == chosen
    assert chosen_blocks(blocks, sam) == chosen
    assert {int(name.split(".")[2]) for name in adapter.deltas(sam)} == chosen


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target": "q+q"}, "adapter_options={'target': 'q+q'}"),
        ({"target": "o"}, "adapter_options={'target': 'o'}"),
        ({"rank": 0}, "adapter_options={'rank': 0}"),
        ({"dropout": 1.0}, "adapter_options={'dropout': 1.0}"),
        ({"blocks": "some"}, "adapter_options={'blocks': 'some'}"),
        ({"blocks": (0, 4)}, ["4 is no block of tiny", "0 to 3"]),
        ({"blocks": (-5,)}, "-5 is no block"),
    ],
)
def test_lora_refuses(sam, refused, options, words):
    refused(words, FineTuned, sam, "lora", adapter_options=options)


# --- AdaptFormer


@pytest.mark.parametrize("scale", [0.1, 2.0, None])
@pytest.mark.golden("adaptformer")
def test_adaptformer_is_the_published_bottleneck(sam, scale):
    """Chen et al. 2022, equation 3: s ReLU(n W_down) W_up, beside the MLP."""
    adapter = stir(AdaptFormer(sam, AdaptFormer.Config(hidden=5, scale=scale)))
    branch, n = adapter.bottlenecks[1], torch.randn(*GRID)
    down, up = branch.down, branch.up
    s = branch.scale if scale is None else scale
    hidden = torch.relu(n @ down.weight.T + down.bias)
    expected = s * (hidden @ up.weight.T + up.bias)
    assert down.weight.shape == (5, 32)
    torch.testing.assert_close(adapter.edits(1, None).mlp(n), expected)


def test_adaptformer_learns_its_scale_when_none_is_given(sam):
    adapter = AdaptFormer(sam, AdaptFormer.Config(scale=None))
    scales = [b.scale for b in adapter.bottlenecks]
    assert all(isinstance(s, nn.Parameter) and s.item() == 1 for s in scales)
    fixed = AdaptFormer(sam, AdaptFormer.Config())
    assert not any("scale" in name for name in fixed.state_dict())


def test_adaptformer_has_the_published_number_of_parameters():
    """12 blocks of (768 x 64 + 64) + (64 x 768 + 768) on ViT-B: the paper's 1.19 M."""
    with shapes_alone():
        adapter = AdaptFormer(Sam(SPECS["vit_b"]), AdaptFormer.Config())
    assert sum(p.numel() for p in adapter.parameters()) == 12 * (2 * 768 * 64 + 64 + 768)


@pytest.mark.parametrize(("key", "value"), [("hidden", 0), ("dropout", 1.5)])
def test_adaptformer_refuses(sam, refused, key, value):
    words = f"adapter_options={{{key!r}: {value}}}"
    refused(words, FineTuned, sam, "adaptformer", adapter_options={key: value})


# --- dropout, for both


@pytest.mark.parametrize("name", ["lora", "adaptformer"])
def test_dropout_acts_in_training_alone_and_repeats_under_checkpointing(sam, name):
    torch.manual_seed(1)
    model = FineTuned(sam, name, adapter_options={"dropout": 0.5})
    stir(model.adapter)
    pixels = sam.preprocess(tiny.pixels())
    model.eval()
    calm = model.encode(pixels).embedding
    assert torch.equal(calm, model.encode(pixels).embedding)
    model.train()
    assert not torch.equal(model.encode(pixels).embedding, model.encode(pixels).embedding)

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        torch.manual_seed(5)
        model.encode(pixels).embedding.square().sum().backward()
        return [p.grad.clone() for p in model.parameters()]

    plain = gradients()
    model.checkpointing = True
    assert all(torch.equal(a, b) for a, b in zip(plain, gradients(), strict=True))


# --- stacks


class Probe(Adapter):
    """Adds or multiplies in every place; such maps do not commute, so order shows."""

    name = "probe"

    def __init__(self, change, tokens=None, params=None) -> None:
        super().__init__()
        self.change, self.tokens, self.params = change, tokens, params or {}

    def begin(self, encoder, pixels, x, tokens):
        return self.change

    def _through(self, x, state):
        assert state is self.change, "each adapter gets the state that it began with"
        return self.change(x)

    def enter(self, i, x, state):
        return self._through(x, state)

    def leave(self, i, x, state):
        return self._through(x, state)

    def before_neck(self, x, state):
        return self._through(x, state)

    def after_neck(self, embedding, state):
        return self._through(embedding, state)

    def edits(self, i, state):
        def heads(q, k, v, grid):
            return self.change(q), self.change(k), self.change(v), (grid[0] + 1, grid[1])

        change = self.change
        return BlockEdits(change, heads, self.tokens, change, change, self.params)


def double(x):
    return 2 * x


def plus_one(x):
    return x + 1


@pytest.fixture
def stacked(sam):
    tokens = torch.randn(2, 32), torch.randn(3, 1, 32)
    stack = Stack([Probe(double, tokens[0], {"a": 1}), Probe(plus_one, tokens[1], {"b": 2})])
    state = stack.begin(sam.image_encoder, torch.zeros(1), torch.zeros(1), None)
    return stack, state, tokens


@pytest.mark.parametrize("place", ["enter", "leave", "before_neck", "after_neck"])
def test_a_stack_runs_its_streams_in_order(stacked, place):
    stack, state, _ = stacked
    x = torch.tensor([3.0])
    block = (0,) if place in ("enter", "leave") else ()
    assert getattr(stack, place)(*block, x, state).item() == 7


def test_a_stack_joins_the_edits_of_a_block(stacked):
    stack, state, tokens = stacked
    edits, x = stack.edits(0, state), torch.tensor([3.0])
    assert edits.qkv(x).item() == 6 + 4
    assert edits.mlp(x).item() == 6 + 4
    assert edits.attended(x).item() == 7
    q, k, v, grid = edits.heads(x, 2 * x, 3 * x, (4, 5))
    assert (q.item(), k.item(), v.item(), grid) == (7, 13, 19, (6, 5))
    assert edits.params == {"a": 1, "b": 2}
    assert torch.equal(edits.tokens, torch.cat([tokens[0].expand(3, 2, 32), tokens[1]], 1))


def test_a_stack_leaves_unset_what_none_of_its_adapters_sets(sam):
    stack = Stack([ADAPTERS["none"](sam, Adapter.Config()) for _ in range(2)])
    state = stack.begin(sam.image_encoder, torch.zeros(1), torch.zeros(1), None)
    assert stack.edits(0, state) == BlockEdits()


def test_a_stack_of_tokens_without_images_keeps_them_so():
    stack = Stack([Probe(double, torch.ones(1, 4)), Probe(double, torch.zeros(2, 4))])
    state = stack.begin(None, torch.zeros(1), torch.zeros(1), None)
    assert stack.edits(0, state).tokens.shape == (3, 4)


class Replacing(Probe):
    def replaces(self):
        return frozenset({"3.norm1.bias"})


def test_a_stack_refuses_one_tensor_twice(refused):
    stack = Stack([Probe(double, None, {"norm1.bias": 1}), Probe(double, None, {"norm1.bias": 1})])
    state = stack.begin(None, torch.zeros(1), torch.zeros(1), None)
    refused(["norm1.bias of block 3", "keep one"], stack.edits, 3, state)


def test_a_stack_refuses_when_built_what_its_parts_declare_twice(refused):
    refused(["norm1.bias of block 3", "keep one"], Stack, [Replacing(double), Replacing(double)])
    Stack([Replacing(double), Probe(double)])


class Embedder(Probe):
    name = "embedder"

    def embed(self, encoder, pixels):
        return self.change(encoder.embed(pixels))


def test_a_stack_takes_one_patch_embedding(sam, refused):
    pixels = sam.preprocess(tiny.pixels(1))
    plain = sam.image_encoder.embed(pixels)
    for position in (0, 1):
        parts = [Probe(double), Probe(double)]
        parts[position] = Embedder(plus_one)
        assert torch.equal(Stack(parts).embed(sam.image_encoder, pixels), plain + 1)
    assert torch.equal(Stack([Probe(double)]).embed(sam.image_encoder, pixels), plain)
    refused("embedder and embedder", Stack, [Embedder(double), Embedder(double)])


def test_stacks_within_stacks_are_one(sam):
    inner = Stack([Probe(double), Probe(double)])
    outer = Stack([inner, Stack([Embedder(plus_one)]), Probe(plus_one)])
    assert [a.name for a in outer.adapters] == ["probe", "probe", "embedder", "probe"]


def test_a_stack_declares_what_its_adapters_declare(sam):
    @dataclass
    class Marked:
        name: str
        identity_at_init: bool = True
        changes_at_start: str = "not told where it does not"
        detached: bool = True
        decoders: tuple | None = None
        untrained: tuple = ()

    def declared(*marks):
        parts = []
        for mark in marks:
            part = Probe(double)
            for key, value in vars(mark).items():
                setattr(part, key, value)
            parts.append(part)
        return Stack(parts)

    stack = declared(
        Marked("a", decoders=("x", "y"), untrained=("up",)),
        Marked("b", False, "it adds one", detached=False, decoders=("y", "z")),
        Marked("c", untrained=("down",)),
    )
    assert stack.name == "a+b+c"
    assert (stack.identity_at_init, stack.detached) == (False, False)
    assert stack.changes_at_start == "it adds one"
    assert stack.decoders == ("y",)
    assert stack.untrained == ("adapters.0.up", "adapters.2.down")
    same = declared(Marked("a"), Marked("b"))
    assert (same.identity_at_init, same.detached, same.decoders) == (True, True, None)
    with pytest.raises(samtune.InputError, match="no decoder fits all"):
        declared(Marked("a", decoders=("x",)), Marked("b", decoders=("z",)))


def test_the_deltas_of_stacked_loras_add_up(sam):
    both = Stack([lora(sam, target="q"), lora(sam, target="q+v", blocks=(1,))])
    first, second = (a.deltas(sam) for a in both.adapters)
    total = both.deltas(sam)
    assert total.keys() == first.keys()
    for name in total:
        expected = first[name] + second[name] if name in second else first[name]
        torch.testing.assert_close(total[name], expected)
    merged = tiny.base()
    for name, delta in total.items():
        merged.get_parameter(name).add_(delta)
    pixels = sam.preprocess(tiny.pixels())
    found = FineTuned(sam, both).encode(pixels).embedding
    torch.testing.assert_close(found, merged.image_encoder(pixels), rtol=1e-5, atol=1e-5)


def test_what_has_no_closed_form_says_so(sam):
    with pytest.raises(NotImplementedError, match="adaptformer has no form"):
        AdaptFormer(sam, AdaptFormer.Config()).deltas(sam)


def test_a_name_joined_by_plus_is_a_stack_with_options_by_part(sam):
    options = {"lora": {"rank": 2, "blocks": "global"}, "adaptformer": {"hidden": 3}}
    model = FineTuned(sam, "lora+adaptformer", adapter_options=options)
    first, second = model.adapter.adapters
    assert isinstance(model.adapter, Stack)
    assert first.updates["1"].a[0].shape == (2, 32)
    assert list(first.updates) == ["1", "3"]
    assert second.bottlenecks[0].down.out_features == 3
    assert FineTuned(sam, "adaptformer+lora").adapter.name == "adaptformer+lora"


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("lora+", {}, "adapter="),
        ("lora+adaptfromer", {}, "did you mean 'adaptformer'"),
        ("lora+lora", {}, ["lora+lora", "twice"]),
        (
            "lora+adaptformer",
            {"rank": 2},
            ["adapter_options['rank']", "its options are lora, adaptformer"],
        ),
        ("lora+adaptformer", {"lora": {"rnk": 2}}, "did you mean 'rank'"),
        (
            "lora+adaptformer",
            {"adaptformer": {"hidden": 0}},
            "adapter_options={'adaptformer': {'hidden': 0}}",
        ),
    ],
)
def test_names_joined_by_plus_are_checked(sam, refused, name, options, words):
    refused(words, FineTuned, sam, name, adapter_options=options)
