"""What holds for every method: each registered adapter with each decoder that it goes with.

Everything here comes from the registries; a new method is tested by being registered.
"""

import copy
import pickle
from dataclasses import replace

import pytest
import tiny
import torch
from steps import IMAGE, MAPS, SIZES, answer, fresh, gradients, loss_of, snapshot, stirred, train

import samtune
from samtune.adapters import ADAPTERS, Adapter
from samtune.adapters.base import lacking
from samtune.decoders import DECODERS
from samtune.decoders.base import Decoder
from samtune.model.checkpoint import describe
from samtune.model.finetuned import FineTuned
from samtune.model.parts import check_fit, check_pair
from samtune.prompts import Prompts
from samtune.sam.model import Sam


def fits(adapter: str, decoder: str) -> bool:
    try:
        check_pair(adapter, decoder)
        check_fit(adapter, decoder, tiny.TINY)
    except samtune.InputError:
        return False
    return True


FITTING = [(a, d) for a in ADAPTERS for d in DECODERS if fits(a, d)]
FITTING.append(("lora+adaptformer", "tuned"))  # joined by name, they are held to the same


def first(part: int, name: str) -> str:
    """What of the other kind a method is first paired with."""
    return next(pair[1 - part] for pair in FITTING if pair[part] == name)


def meet(adapter: str, decoder: str) -> bool:
    """Whether a decoder reads more of an adapter than its embedding, or is read by it."""
    reads = [getattr(DECODERS[decoder], name) is not getattr(Decoder, name) for name in READ]
    return any(reads) or DECODERS[decoder].adapters is not None


READ = ("tokens", "taps")
"""What a decoder shows to adapters, and reads of them beside the embedding."""
# The other forms that a method declares stand as ``name:form``, each in one pair.
FORMS = [(f"{a}:{f}", first(0, a)) for a in ADAPTERS for f in ADAPTERS.forms(a)]
FORMS += [(first(1, d), f"{d}:{f}") for d in DECODERS for f in DECODERS.forms(d)]
FORMS += [(first(1, d), f"{d}:") for d in MAPS]
# Adapter and decoder meet only in tokens, taps and state. All pairs run where they do; each
# adapter and each decoder once, and what tunes a decoder alone, is enough elsewhere.
ALONE = [pair for pair in FITTING if pair[0] == "none"]
READ_OUTS = ALONE + [(first(1, d), d) for d in DECODERS if ("none", d) not in ALONE]
ENCODERS = [(a, first(0, a)) for a in dict(FITTING)]
COVER = sorted({*READ_OUTS, *ENCODERS})
PAIRS = [pair for pair in FITTING if pair in COVER or meet(*pair)] + FORMS
PLAIN = ("none", "frozen")
"""The one pair that trains nothing."""
TRAINED = [pair for pair in PAIRS if pair != PLAIN]
MERGES = [a for a in ADAPTERS if ADAPTERS[a].deltas is not Adapter.deltas]
MERGED = [*(a for a in MERGES if a in dict(FITTING)), "lora+none"]
every = pytest.mark.parametrize(("adapter", "decoder"), PAIRS, ids=str)
trained = pytest.mark.parametrize(("adapter", "decoder"), TRAINED, ids=str)
covered = pytest.mark.parametrize(("adapter", "decoder"), COVER, ids=str)
formed = pytest.mark.parametrize(("adapter", "decoder"), COVER + FORMS, ids=str)
formed_trained = pytest.mark.parametrize(
    ("adapter", "decoder"), [p for p in COVER + FORMS if p in TRAINED], ids=str
)
covered_trained = pytest.mark.parametrize(
    ("adapter", "decoder"), [pair for pair in COVER if pair in TRAINED], ids=str
)


@pytest.fixture(scope="module")
def sam() -> Sam:
    """One windowed and one global block: more of the same take time and show no more."""
    return tiny.base(tiny.SHALLOW)


@pytest.fixture(scope="module")
def deep_sam() -> Sam:
    """Two blocks of each kind."""
    return tiny.base()


@pytest.fixture
def own_sam() -> Sam:
    """One that a test may change."""
    return tiny.base(tiny.SHALLOW)


def test_the_registries_hold_the_core_of_the_matrix():
    assert {"none", "lora", "adaptformer"} <= set(ADAPTERS)
    assert {"frozen", "tuned"} <= set(DECODERS)
    # what is made for a TinyViT alone is held to the same in tests/sam/test_tiny_vit.py
    assert {a for a, _ in PAIRS} >= {a for a in ADAPTERS if not lacking(ADAPTERS[a], tiny.TINY)}
    assert {d for _, d in PAIRS} >= set(DECODERS)
    assert len(FORMS) > 15
    assert {pair for pair in FITTING if pair[1] == "hq"} < set(PAIRS), "a bridge and taps"


@pytest.mark.parametrize("registry", [ADAPTERS, DECODERS], ids=["adapters", "decoders"])
def test_every_method_says_what_it_is(registry):
    for name in registry:
        cls = registry[name]
        assert cls.name == name
        assert cls.__doc__ and cls.paper and cls.sits, name


@every
def test_forward_and_backward_at_another_size(sam, adapter, decoder):
    size = SIZES[1]  # the native one is trained on below
    model = fresh(sam, adapter, decoder).train()
    masks = model(tiny.pixels(2, size), tiny.boxes(IMAGE, size))
    assert masks.logits.shape[0] == masks.iou.shape[0] == len(IMAGE)
    assert masks.logits.shape[1] == masks.iou.shape[1]
    assert masks.logits.isfinite().all()
    assert masks.iou.isfinite().all()
    three = model(tiny.pixels(2, size), tiny.boxes(IMAGE, size), multimask=True)
    assert three.logits.shape[2:] == masks.logits.shape[2:]
    if model.trainable():
        (masks.logits.sum() + masks.iou.sum()).backward()
        found = [p.grad for p in model.parameters() if p.grad is not None]
        assert found
        assert all(g.isfinite().all() for g in found)


@pytest.mark.slow
@formed_trained
def test_the_base_stays_as_it_is(own_sam, sam, adapter, decoder):
    before = snapshot(own_sam)
    plain = own_sam(tiny.pixels(), tiny.boxes(IMAGE)).logits
    model = fresh(own_sam, adapter, decoder)
    train(model, 1)
    model.checkpointing = True
    train(model, 1)
    model.eval()
    model.train()
    model.requires_grad_(True)
    assert snapshot(own_sam) == before
    assert torch.equal(own_sam(tiny.pixels(), tiny.boxes(IMAGE)).logits, plain)
    assert torch.equal(answer(FineTuned(own_sam)), answer(FineTuned(sam)))


@every
def test_everything_saved_is_trained_or_a_buffer(sam, adapter, decoder):
    model = fresh(sam, adapter, decoder)
    state = model.state_dict(keep_vars=True)
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    assert all(p.requires_grad for p in parameters.values())
    assert state.keys() <= parameters.keys() | buffers.keys()
    assert parameters.keys() <= state.keys()
    assert all(name.startswith(("adapter.", "decoder.")) for name in state)
    base = {t.data_ptr() for t in sam.state_dict().values()}
    assert not base & {t.data_ptr() for t in state.values() if t.numel()}, "shares with the base"
    assert model.trainable() == sum(p.numel() for p in model.parameters())
    assert bool(model.trainable()) == ((adapter, decoder) != PLAIN)


@formed
@pytest.mark.parametrize("size", SIZES, ids=lambda s: "x".join(map(str, s)))
@torch.no_grad()
def test_a_fresh_adapter_is_the_identity_or_says_why_not(sam, adapter, decoder, size):
    model = fresh(sam, adapter, decoder).eval()
    pixels = sam.preprocess(tiny.pixels(2, size))
    same = torch.equal(model.encode(pixels).embedding, sam.image_encoder(pixels))
    assert same == model.adapter.identity_at_init
    assert same or model.adapter.changes_at_start


@pytest.mark.parametrize("adapter", list(ADAPTERS))
def test_what_changes_at_the_start_is_a_clause(adapter):
    cls = ADAPTERS[adapter]
    clause = cls.changes_at_start
    assert cls.identity_at_init or clause
    assert clause == clause.strip(" .") and "\n" not in clause and len(clause) < 100
    # A clause of its own: what a base class says need not hold for what is made from it.
    inherited = any(base.__dict__.get("changes_at_start") for base in cls.__mro__[1:])
    assert "changes_at_start" in cls.__dict__ or not inherited


@pytest.mark.slow
@formed_trained
def test_checkpointed_gradients_are_the_plain_ones(sam, adapter, decoder):
    model = stirred(sam, adapter, decoder)
    buffers = {n: b.clone() for n, b in model.named_buffers()}
    plain = gradients(model, tiny.batch(IMAGE))
    after_plain = {n: b.clone() for n, b in model.named_buffers()}
    with torch.no_grad():
        for n, b in model.named_buffers():
            b.copy_(buffers[n])
    model.checkpointing = True
    again = gradients(model, tiny.batch(IMAGE))
    assert plain.keys() == again.keys()
    assert all(torch.equal(plain[n], again[n]) for n in plain)
    for n, b in model.named_buffers():  # running statistics must not advance twice
        assert torch.equal(b, after_plain[n]), n


@pytest.mark.slow
@trained
def test_every_trained_tensor_gets_a_gradient_and_the_answer_changes(sam, adapter, decoder):
    model = fresh(sam, adapter, decoder)
    before = answer(model.eval())
    moved = set.union(*train(model))
    assert not torch.equal(answer(model.eval()), before)
    idle = {n for n, _ in model.named_parameters()} - moved
    declared = tuple(
        f"{part}.{name}"
        for part, module in (("adapter", model.adapter), ("decoder", model.decoder))
        for name in module.untrained
    )
    assert not {n for n in idle if not n.startswith(declared)}
    if ":" in adapter + decoder:
        return  # what is declared holds for the defaults
    for prefix in declared:  # a declaration that is no longer true is worth as little
        assert any(n.startswith(prefix) for n in idle), f"{prefix} is trained after all"


@pytest.mark.slow
@every
def test_saved_and_loaded_it_answers_bit_for_bit(sam, adapter, decoder, tmp_path):
    model = stirred(sam, adapter, decoder)
    loaded = samtune.load(samtune.save(model, tmp_path / "model.safetensors"), base=sam)
    assert not loaded.training
    assert describe(loaded) == describe(model)
    for size in SIZES:
        assert torch.equal(answer(loaded, size), answer(model, size))


def test_without_adapter_and_decoder_it_is_plain_sam(sam):
    model = FineTuned(sam, "none", "frozen")
    assert model.trainable() == 0
    for size in SIZES:
        for multimask in (False, True):
            mine = model(tiny.pixels(2, size), tiny.boxes(IMAGE, size), None, multimask)
            plain = sam(tiny.pixels(2, size), tiny.boxes(IMAGE, size), None, multimask)
            assert torch.equal(mine.logits, plain.logits)
            assert torch.equal(mine.iou, plain.iou)


@pytest.fixture(scope="module")
def windowed() -> Sam:
    """One windowed block, which is padded: time to trace goes with the number of blocks."""
    return tiny.base(replace(tiny.TINY, depth=1, global_blocks=()))


@pytest.fixture(scope="module")
def thin() -> Sam:
    """Both kinds of block, and one layer of the decoder, which traces those that it has alike."""
    sam = tiny.base(tiny.SHALLOW)
    del sam.mask_decoder.transformer.layers[1:]
    return sam


@pytest.mark.parametrize(
    ("adapter", "decoder"), [pair for pair in ENCODERS if pair not in READ_OUTS], ids=str
)
@pytest.mark.slow
def test_compiled_in_one_graph_an_encoder_computes_the_same(sam, windowed, adapter, decoder):
    model = stirred(sam if meet(adapter, decoder) else windowed, adapter, decoder)
    pixels = sam.preprocess(tiny.pixels())
    torch._dynamo.reset()
    compiled = torch.compile(model.encode, backend="eager", fullgraph=True)
    found, expected = compiled(pixels), model.encode(pixels)
    torch.testing.assert_close(found.embedding, expected.embedding)
    for i, tap in expected.taps.items():
        torch.testing.assert_close(found.taps[i], tap)


@pytest.mark.parametrize(("adapter", "decoder"), READ_OUTS, ids=str)
@pytest.mark.slow
def test_compiled_in_one_graph_a_model_computes_the_same(thin, adapter, decoder):
    """The whole model if a decoder needs an adapter, else what reads the plain encoder."""
    model = stirred(thin, adapter, decoder)
    pixels, prompts = tiny.pixels(), tiny.boxes(IMAGE)
    features = model.encode(model.preprocess(pixels, None))
    is_whole = adapter != "none"
    torch._dynamo.reset()
    compiled = torch.compile(model if is_whole else model.read, backend="eager", fullgraph=True)
    found, expected = (
        compiled(pixels if is_whole else features, prompts),
        model.read(features, prompts),
    )
    torch.testing.assert_close(found.logits, expected.logits)
    torch.testing.assert_close(found.iou, expected.iou)


# Without AVX-512 the CPU's bfloat16 products round more often: GSAM's ResNet is then off by 0.104.
ROUGHLY = 0.06 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 0.15


@pytest.mark.slow
@formed
def test_bfloat16_is_close(deep_sam, adapter, decoder):
    model = stirred(deep_sam, adapter, decoder)
    exact = answer(model)
    with torch.autocast("cpu", torch.bfloat16):
        rough = answer(model).float()
    assert not torch.equal(rough, exact)
    assert (rough - exact).norm() < ROUGHLY * exact.norm()


@pytest.mark.parametrize("adapter", MERGED)
def test_merged_is_unmerged_where_there_is_a_closed_form(sam, adapter):
    decoder = first(0, adapter.split("+")[0])
    model = stirred(sam, adapter, decoder)
    merged = tiny.base(tiny.SHALLOW)
    state = merged.state_dict()
    deltas = model.adapter.deltas(sam)
    assert deltas.keys() <= state.keys()
    with torch.no_grad():
        for name, delta in deltas.items():
            state[name].add_(delta)
    for size in SIZES:
        pixels = sam.preprocess(tiny.pixels(2, size))
        expected = model.encode(pixels).embedding
        torch.testing.assert_close(merged.image_encoder(pixels), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@covered_trained
def test_the_loss_of_two_images_is_the_mean_of_each(sam, adapter, decoder):
    model = stirred(sam, adapter, decoder)
    both = tiny.batch(IMAGE)
    each = []
    for i in (0, 1):
        mine = both.prompts.image == i
        one = replace(
            both,
            pixels=both.pixels[i : i + 1],
            sizes=both.sizes[i : i + 1],
            prompts=Prompts.of(boxes=both.prompts.boxes()[mine]),
            targets=both.targets[mine],
            valid=both.valid[i : i + 1],
            classes=both.classes[mine],
        )
        each.append((loss_of(model, one), gradients(model, one, mode=False)))
    mean = (each[0][0] + each[1][0]) / 2
    torch.testing.assert_close(loss_of(model, both), mean, rtol=1e-5, atol=1e-6)
    found = gradients(model, both, mode=False)
    for name in found:
        expected = (each[0][1][name] + each[1][1][name]) / 2
        torch.testing.assert_close(found[name], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@covered
def test_ragged_prompts_are_answered_as_if_alone(sam, adapter, decoder):
    model = stirred(sam, adapter, decoder)
    xy = torch.tensor([[[20.0, 30.0], [40.0, 12.0], [9.0, 50.0]]])
    kinds = [
        tiny.boxes([0]),
        Prompts.of(points=xy, labels=torch.tensor([[1, 0, 1]])),
        Prompts.of(points=xy[:, :1], labels=torch.tensor([[1]])),
        Prompts.of(boxes=tiny.boxes([0]).boxes(), points=xy[:, :2], labels=torch.tensor([[1, 0]])),
        Prompts.of(count=1),
    ]
    placed = [kind.at(i % 2) for i, kind in enumerate(kinds)]
    together = model(tiny.pixels(), Prompts.cat(placed))
    for i, alone in enumerate(placed):
        one = model(tiny.pixels(), alone)
        torch.testing.assert_close(together.logits[i], one.logits[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(together.iou[i], one.iou[0], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@covered
def test_images_without_prompts(sam, adapter, decoder):
    model = fresh(sam, adapter, decoder).train()
    nothing = tiny.batch([])
    masks = model(nothing.pixels, nothing.prompts, nothing.sizes)
    assert masks.logits.shape[0] == masks.iou.shape[0] == 0
    if model.trainable() and not model.decoder.dense_targets:  # those need no prompts
        assert all(not g.any() for g in gradients(model, nothing).values())
    only_second = tiny.batch([1])
    assert loss_of(model.eval(), only_second).isfinite()


@covered
def test_the_mode_reaches_adapter_and_decoder_alone(sam, adapter, decoder):
    model = fresh(sam, adapter, decoder)
    for mode in (True, False):
        model.train(mode)
        assert all(m.training is mode for m in model.modules())
        assert not any(m.training for m in sam.modules())
    assert torch.equal(answer(model), answer(model))


@pytest.mark.slow
@covered
def test_copies_and_pickles_answer_the_same(sam, adapter, decoder):
    model = stirred(sam, adapter, decoder)
    copied = copy.deepcopy(model)
    assert copied.sam is model.sam, "a copy shares the base"
    assert torch.equal(answer(copied), answer(model))
    pickled = pickle.loads(pickle.dumps(model))
    assert torch.equal(answer(pickled), answer(model))
    before = answer(model)
    if model.trainable():
        train(copied, 1)
    assert torch.equal(answer(model), before)


@pytest.mark.slow
@covered_trained
def test_two_models_over_one_base_do_not_meet(sam, adapter, decoder):
    first, second = fresh(sam, adapter, decoder), stirred(sam, adapter, decoder)
    expected = answer(second)
    train(first, 1)
    assert torch.equal(answer(second), expected)
    own = {p.data_ptr() for p in first.parameters()}
    assert not own & {p.data_ptr() for p in second.parameters()}


@pytest.mark.slow
@covered_trained
def test_equal_seeds_make_equal_models(sam, adapter, decoder):
    one, two = (fresh(sam, adapter, decoder) for _ in range(2))
    for model in (one, two):
        torch.manual_seed(2)  # of what is drawn while training
        train(model, 1)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert torch.equal(answer(one.eval()), answer(two.eval()))
