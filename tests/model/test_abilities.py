"""What adapters use meets what an encoder offers, also one that no adapter file knows."""

from dataclasses import fields, replace

import hierarchical
import pytest
import tiny
import tiny_vit_golden
import torch
from steps import IMAGE, answer, fresh, gradients, snapshot, stirred, train

import samtune
from samtune.adapters import ADAPTERS, Adapter
from samtune.adapters.base import lacking
from samtune.decoders import DECODERS
from samtune.model.finetuned import FineTuned
from samtune.model.parts import check_fit, check_pair
from samtune.sam.edits import BlockEdits
from samtune.sam.encoder import ABILITIES
from samtune.sam.layers import shapes_alone
from samtune.sam.model import Sam
from samtune.sam.spec import SPECS

SIZES = [(64, 64), (48, 80)]
EDITS = {field.name for field in fields(BlockEdits)}


def readers(adapter: str, spec) -> list[str]:
    """The decoders that an adapter goes with on a base."""
    fitting = []
    for decoder in DECODERS:
        try:
            check_pair(adapter, decoder)
            check_fit(adapter, decoder, spec)
        except samtune.InputError:
            continue
        fitting.append(decoder)
    return fitting


FITS = [a for a in ADAPTERS if not lacking(ADAPTERS[a], hierarchical.TINY)]
OTHERS = [a for a in ADAPTERS if a not in FITS]
PAIRS = [(a, d) for a in FITS for d in readers(a, hierarchical.TINY)[:1]]
PAIRS += [(f"{a}:{form}", d) for a, d in PAIRS for form in ADAPTERS.forms(a)]
PAIRS += [("none", d) for d in readers("none", hierarchical.TINY)[1:]]
PAIRS += [("lora+adaptformer", "tuned")]
every = pytest.mark.parametrize(("adapter", "decoder"), PAIRS, ids=str)


@pytest.fixture(scope="module")
def unknown():
    """A base that no adapter file knows."""
    return hierarchical.base()


def base_of(adapter: str):
    """A small base that an adapter fits."""
    return tiny_vit_golden.base() if lacking(ADAPTERS[adapter], tiny.TINY) else tiny.base()


def edited(model: FineTuned) -> set[str]:
    """The fields of the edits that an adapter makes in one pass."""
    seen, edits = set(), model.adapter.edits

    def recorded(i, state):
        made = edits(i, state)
        values = {field: getattr(made, field) for field in EDITS}
        seen.update(f for f, v in values.items() if v is not None and (f != "params" or v))
        return made

    model.adapter.edits = recorded
    with torch.no_grad():
        model.encode(model.preprocess(tiny.pixels(1)))
    return seen


@pytest.mark.parametrize("adapter", list(ADAPTERS))
def test_an_adapter_edits_what_it_says_it_uses(adapter):
    uses, sam = ADAPTERS[adapter].uses, base_of(adapter)
    assert list(uses) == [word for word in ABILITIES if word in uses], "in the order of the words"
    decoder = readers(adapter, sam.spec)[0]
    forms = [adapter, *(f"{adapter}:{form}" for form in ADAPTERS.forms(adapter))]
    found = set.union(*(edited(fresh(sam, form, decoder)) for form in forms))
    assert found == EDITS & set(uses)


class Watched:
    """Hands on what an object has, and notes each word whose part of it is read."""

    def __init__(self, seen: set[str], thing, words: dict[str, str]):
        self._seen, self._thing, self._words = seen, thing, words

    def __getattr__(self, name):
        if name in self._words:
            self._seen.add(self._words[name])
        return getattr(self._thing, name)


class WatchedBlock(Watched):
    """A block, of which the tables of relative positions are watched too."""

    def __call__(self, x, edits):
        return self._thing(x, edits)

    def get_parameter(self, name):
        if "rel_pos" in name:
            self._seen.add("tables")
        return self._thing.get_parameter(name)


OF_ENCODERS = {
    "dim": "uniform",
    "patch_embed": "patches",
    "patch_projection": "patches",
    "pos_embed": "positions",
}
OF_SPECS = dict.fromkeys(
    ("embed_dim", "depth", "heads", "global_blocks", "window", "mlp_ratio", "stages"), "spec"
)


def watched(sam, seen: set[str]) -> Watched:
    """A base that notes which words an adapter acts on."""
    encoder = Watched(seen, sam.image_encoder, OF_ENCODERS)
    of_blocks = {"carry": "uniform"}
    encoder.blocks = [WatchedBlock(seen, b, of_blocks) for b in sam.image_encoder.blocks]
    base = Watched(seen, sam, {})
    base.image_encoder, base.spec = encoder, Watched(seen, sam.spec, OF_SPECS)
    return base


def words_read(adapter: str, form: dict, sam) -> set[str]:
    """The words of an encoder that an adapter reads, built and run as ``FineTuned`` does."""
    seen: set[str] = set()
    base, cls = watched(sam, seen), ADAPTERS[adapter]
    made = cls(base, ADAPTERS.config(adapter, {**cls.small, **form}))
    encoder, pixels = base.image_encoder, sam.preprocess(tiny.pixels(1))
    token = torch.zeros(1, sam.spec.prompt_dim)
    x = made.embed(encoder, pixels)
    state = made.begin(encoder, pixels, x, token)
    for i, block in enumerate(encoder.blocks):
        x = made.enter(i, x, state)
        x = made.leave(i, block(x, made.edits(i, state)), state)
    x = made.before_neck(x, state)
    made.after_neck(sam.image_encoder.apply_neck(x), state)
    if cls.deltas is not Adapter.deltas:
        made.deltas(base)
    return seen


@torch.no_grad()
@pytest.mark.parametrize("adapter", list(ADAPTERS))
def test_an_adapter_reads_of_an_encoder_what_it_says_it_uses(adapter):
    """No more and no less; and sizes from the encoder, for a specification is of one kind."""
    sam, forms = base_of(adapter), [{}, *ADAPTERS.forms(adapter).values()]
    seen = set.union(*(words_read(adapter, form, sam) for form in forms))
    assert seen == set(ADAPTERS[adapter].uses) - EDITS


@pytest.mark.parametrize(
    ("name", "now"), [("end", "before_neck"), ("finish", "after_neck"), ("encoders", "uses")]
)
def test_an_adapter_with_a_name_of_the_first_version_is_refused(name, now):
    with pytest.raises(TypeError, match=rf"Mine\.{name}: .*{now}"):
        type("Mine", (Adapter,), {name: None})


def test_a_stack_uses_what_its_parts_use():
    assert ADAPTERS["vpt+adaptformer"].uses == ("tokens", "mlp", "uniform")
    sam = tiny.base()
    assert FineTuned(sam, "vpt+adaptformer").adapter.uses == ("tokens", "mlp", "uniform")


def test_some_fit_an_unknown_encoder_and_some_do_not():
    assert {"none", "lora", "adaptformer"} <= set(FITS)
    assert {"fact", "vpt", "batch_norm"} <= set(OTHERS)
    assert {a for a, _ in PAIRS} >= set(FITS), "each has a decoder"


@pytest.mark.parametrize("adapter", OTHERS)
def test_what_does_not_fit_is_refused_with_what_is_lacking(unknown, adapter, refused):
    reasons = [ABILITIES[word] for word in lacking(ADAPTERS[adapter], hierarchical.TINY)]
    decoder = (ADAPTERS[adapter].decoders or ("tuned",))[0]
    words = ["base=tiny_hierarchical: ", f"{adapter} needs ", *reasons, ", ".join(FITS)]
    refused(words, FineTuned, unknown, adapter, decoder)
    refused(words[:1] + reasons, FineTuned, unknown, f"{adapter}+lora", decoder)


def test_the_refusal_names_the_bases_that_fit(refused):
    said = "set base.name to one of vit_t, or adapter.name to one of adaptformer, "
    refused(said, check_fit, "batch_norm", "tuned", SPECS["vit_b"])


@every
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_fresh_adapter_is_the_identity_or_says_why_not(unknown, adapter, decoder, size):
    model = fresh(unknown, adapter, decoder).eval()
    pixels = unknown.preprocess(tiny.pixels(2, size))
    embedding = model.encode(pixels).embedding
    assert embedding.shape == (2, 32, size[0] // 16, size[1] // 16)
    same = torch.equal(embedding, unknown.image_encoder(pixels))
    assert same == model.adapter.identity_at_init


@pytest.mark.slow
@every
def test_it_answers_and_trains_and_leaves_the_base(unknown, adapter, decoder):
    before = snapshot(unknown)
    model = fresh(unknown, adapter, decoder)
    masks = model(tiny.pixels(2, SIZES[1]), tiny.boxes(IMAGE, SIZES[1]))
    assert masks.logits.shape[-2:] == (SIZES[1][0] // 4, SIZES[1][1] // 4)
    if model.trainable():
        moved = set.union(*train(model))
        idle = {n for n, _ in model.named_parameters() if n.startswith("adapter.")} - moved
        assert not {n for n in idle if not n.startswith(tuple(model.adapter.untrained))}
        plain = gradients(model, tiny.batch(IMAGE))
        model.checkpointing = True
        again = gradients(model, tiny.batch(IMAGE))
        assert all(torch.equal(plain[n], again[n]) for n in plain)
    assert snapshot(unknown) == before


@pytest.mark.slow
@every
def test_saved_and_loaded_it_answers_bit_for_bit(unknown, adapter, decoder, tmp_path, monkeypatch):
    monkeypatch.setitem(SPECS, hierarchical.TINY.name, hierarchical.TINY)
    model = stirred(unknown, adapter, decoder)
    loaded = samtune.load(samtune.save(model, tmp_path / "model.safetensors"), base=unknown)
    for size in SIZES:
        assert torch.equal(answer(loaded, size), answer(model, size))


@torch.no_grad()
@pytest.mark.parametrize("adapter", [a for a in FITS if ADAPTERS[a].deltas is not Adapter.deltas])
def test_merged_is_unmerged_where_there_is_a_closed_form(unknown, adapter):
    model, merged = stirred(unknown, adapter, "frozen"), hierarchical.base()
    for name, delta in model.adapter.deltas(unknown).items():
        merged.state_dict()[name].add_(delta)
    for size in SIZES:
        pixels = unknown.preprocess(tiny.pixels(2, size))
        expected = model.encode(pixels).embedding
        torch.testing.assert_close(merged.image_encoder(pixels), expected, rtol=1e-4, atol=1e-4)


def test_the_hq_decoder_taps_no_stream_of_a_finer_grid_than_the_embedding(unknown, refused):
    assert FineTuned(unknown, "none", "hq").decoder.taps == (4,)
    first, *others = hierarchical.TINY.stages
    stages = (replace(first, window=0), *(replace(stage, window=4) for stage in others))
    with shapes_alone():
        sam = Sam(replace(hierarchical.TINY, global_blocks=(0,), stages=stages)).freeze()
    words = ["decoder=hq", "first global block", "choose another decoder"]
    refused(words, FineTuned, sam, "none", "hq")
