"""What the frozen encoder gives is kept: the same numbers as without, fewer blocks, no more memory
than allowed."""

import pytest
import tiny
import tiny_vit_golden
import torch

from samtune.adapters import ADAPTERS, Stack
from samtune.data import DataConfig, PromptConfig, SegmentationDataset, splits
from samtune.data.changes import images_vary
from samtune.model.feature_cache import CachedImage, FeatureCache
from samtune.model.finetuned import FineTuned
from samtune.runs.config import resolve
from samtune.sam.image_encoder import Block
from samtune.training.engine import FitConfig, fit
from samtune.training.schedule import UNSAFE

PLENTY = 10**9
METHODS = [("none", "tuned"), ("none", "hq"), ("ts_sam_detached", "fusion")]
LATE = [("lora", "tuned"), ("lora", "hq"), ("bitfit+ts_sam_detached", "fusion")]
"""Methods that change the last two of four blocks."""
OPTIONS = {"lora": {"blocks": (-2, -1)}, "bitfit+ts_sam_detached": {"bitfit": {"blocks": (-2, -1)}}}
methods = pytest.mark.parametrize(("adapter", "decoder"), METHODS, ids=str)
all_methods = pytest.mark.parametrize(("adapter", "decoder"), METHODS + LATE, ids=str)


@pytest.fixture
def data(pairs):
    def make(train, **settings):
        config = DataConfig(root=str(pairs), **{"augment": "none", **settings})
        return SegmentationDataset(
            splits(config)["train" if train else "val"],
            config,
            (64, 64),
            prompts=PromptConfig(),
            mask_size=(32, 32),
            train=train,
        )

    return make


@pytest.fixture
def runs(monkeypatch):
    """How many images have been through a block, one entry a call."""
    calls, forward = [], Block.forward
    monkeypatch.setattr(
        Block, "forward", lambda self, x, *rest: (calls.append(len(x)), forward(self, x, *rest))[1]
    )
    return calls


def model_of(sam, adapter, decoder):
    torch.manual_seed(3)
    return FineTuned(sam, adapter, decoder, adapter_options=OPTIONS.get(adapter))


def bytes_of(cache):
    """What the kept tensors hold on to, whole storages."""
    kept = [t for image in cache._images.values() for t in image.streams.values()]
    return sum(t.untyped_storage().nbytes() for t in kept)


def one_image(sam, adapter, decoder):
    """Bytes that one image's streams take."""
    model = model_of(sam, adapter, decoder)
    model.cache = FeatureCache(PLENTY)
    model.encode(sam.preprocess(tiny.pixels(1)))
    return model.cache.used


def trained(sam, adapter, decoder, train, val, **values):
    model, rows = model_of(sam, adapter, decoder), []
    settings = {
        "max_steps": 6,
        "batch_size": 2,
        "eval_every": 3,
        "log_every": 1,
        **UNSAFE,
        **values,
    }
    result = fit(model, train, val, FitConfig(**settings), on_event=rows.append, device="cpu")
    return model, rows, result


@pytest.mark.slow
@pytest.mark.parametrize(
    ("adapter", "decoder", "size"),
    [*((*method, 1) for method in METHODS + LATE[:1]), ("none", "hq", 2)],
    ids=str,
)
def test_training_gives_the_same_with_and_without(sam, data, runs, adapter, decoder, size):
    """Bit for bit where each image is encoded alone; in pairs, kernels may round otherwise."""
    train, val, image = data(True), data(False), one_image(sam, adapter, decoder)
    values = {"batch_size": size, "max_steps": 12 // size, "eval_every": 6 // size}
    runs.clear()
    plain, rows, _ = trained(sam, adapter, decoder, train, val, **values)
    without = sum(runs)
    for fits in (99, 3):
        runs.clear()
        values["feature_cache"] = fits * image
        cached, again, result = trained(sam, adapter, decoder, train, val, **values)
        assert result.left_out == max(0, len(train) + len(val) - fits)
        assert sum(runs) < without
        assert cached.cache is None
        apart = flat(cached) - flat(plain)
        if size == 1:
            assert again == rows
            assert not apart.any()
        for row, other in zip(rows, again, strict=True):
            assert row.keys() == other.keys()
            assert row.get("loss", 0) == pytest.approx(other.get("loss", 0), rel=1e-4)
            assert row.get("iou", 0) == pytest.approx(other.get("iou", 0), rel=1e-3)
        # all together: alone, a weight whose true gradient is zero follows rounding (Adam)
        way = flat(plain) - flat(model_of(sam, adapter, decoder))
        assert apart.norm() < 1e-3 * way.norm()


def flat(model):
    return torch.cat([t.flatten().float() for _, t in sorted(model.state_dict().items())])


@all_methods
def test_what_is_kept_is_bit_for_bit_what_was_encoded(sam, adapter, decoder):
    model = model_of(sam, adapter, decoder).train()
    pixels, prompts = sam.preprocess(tiny.pixels()), tiny.boxes([0, 1, 1])

    def step():
        model.zero_grad()
        features = model.encode(pixels)
        masks = model.read(features, prompts)
        masks.logits.square().mean().backward()
        grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        return [features.embedding, *features.taps.values(), masks.logits, *grads]

    direct = step()
    model.cache = FeatureCache(PLENTY)
    for _ in range(2):  # made, then kept
        for one, other in zip(direct, step(), strict=True):
            assert torch.equal(one, other)
            assert one.stride() == other.stride()
    assert len(model.cache) == 2


@methods
def test_a_hit_runs_no_block_and_a_mixed_batch_only_what_is_missing(sam, runs, adapter, decoder):
    model, blocks = model_of(sam, adapter, decoder).eval(), len(sam.image_encoder.blocks)
    pixels = sam.preprocess(tiny.pixels(3))
    expected = model.encode(pixels)
    runs.clear()
    model.cache = FeatureCache(PLENTY)
    model.encode(pixels[:2])
    assert runs == [2] * blocks
    runs.clear()
    model.encode(pixels[[1, 0]])
    assert runs == []
    mixed = model.encode(pixels)
    assert runs == [1] * blocks
    torch.testing.assert_close(mixed.embedding, expected.embedding, rtol=1e-5, atol=1e-6)
    for i, tap in expected.taps.items():
        torch.testing.assert_close(mixed.taps[i], tap, rtol=1e-5, atol=1e-6)
    assert len(model.cache) == 3


def test_late_blocks_alone_run_and_have_a_gradient(sam, runs):
    model, depth = model_of(sam, "lora", "tuned").train(), len(sam.image_encoder.blocks)
    pixels = sam.preprocess(tiny.pixels())
    kept = []  # what each block keeps for the gradient
    run = model._run

    def counting(block, x, edits):
        with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(block), t)[1], _same):
            return run(block, x, edits)

    model._run = counting
    assert model.encode(pixels).embedding.requires_grad
    assert {block.name for block in kept} == {"blocks.2", "blocks.3"}
    model.cache = FeatureCache(PLENTY)
    model.encode(pixels)
    runs.clear()
    model.encode(pixels)
    assert runs == [2, 2]
    assert model.first_block == 2
    assert [ADAPTERS[name].may_leave_blocks() for name in ("lora", "vpt", "none+vpt")] == [
        True, False, False,
    ]  # fmt: skip
    everywhere = FineTuned(sam, "lora", "tuned")
    assert everywhere.first_block == 0
    assert model_of(sam, "none", "tuned").first_block == depth


def _same(tensor):
    return tensor


def test_half_precision_rounds_alike_whether_an_image_is_cached_or_not(sam):
    model = model_of(sam, "lora", "tuned").eval()
    pixels = sam.preprocess(tiny.pixels())
    exact = model.encode(pixels).embedding
    whole = one_image(sam, "lora", "tuned")
    found = []
    for budget in (PLENTY, PLENTY, 0):
        model.cache = model.cache if budget and model.cache else FeatureCache(budget, half=True)
        found.append(model.encode(pixels).embedding)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], exact)
    torch.testing.assert_close(found[0], exact, rtol=5e-3, atol=5e-3)
    model.cache = FeatureCache(PLENTY, half=True)
    model.encode(pixels)
    assert model.cache.used == whole  # of two images, each of half the bytes
    huge = {0: torch.tensor([[1e6, 1.0]])}
    assert torch.equal(CachedImage.of(huge, half=True).streams[0], huge[0])


def test_views_of_one_image_are_never_mixed_up(sam, runs):
    model = model_of(sam, "none", "tuned").eval()
    model.cache = FeatureCache(PLENTY)
    pixels = sam.preprocess(tiny.pixels(1))
    other = pixels.clone()
    other[0, 2, -1, -1] += 1e-6
    views = [pixels, pixels.flip(-1), other, pixels[..., :32], pixels.reshape(1, 3, 32, 128)]
    found = [model.encode(view).embedding for view in views]
    with torch.autocast("cpu", torch.bfloat16):
        model.encode(pixels)
    assert len(model.cache) == len(views) + 1
    model.cache = None
    for view, embedding in zip(views, found, strict=True):
        assert torch.equal(model.encode(view).embedding, embedding)


def test_memory_stays_within_the_budget(sam):
    model = model_of(sam, "ts_sam_detached", "fusion")
    image = one_image(sam, "ts_sam_detached", "fusion")
    model.cache = FeatureCache(3 * image - 1)
    pixels = sam.preprocess(tiny.pixels(4))
    for _ in range(2):
        model.encode(pixels)
        assert bytes_of(model.cache) == model.cache.used == 2 * image
        assert (len(model.cache), model.cache.left_out) == (2, 2)
    model.cache = FeatureCache(PLENTY)
    model.encode(pixels[[0, 0, 1]])
    assert bytes_of(model.cache) == model.cache.used == 2 * image


def test_images_of_validation_make_room_for_those_of_training(sam, runs):
    model, image = model_of(sam, "none", "tuned"), one_image(sam, "none", "tuned")
    blocks = len(sam.image_encoder.blocks)
    model.cache = FeatureCache(3 * image)
    pixels = sam.preprocess(tiny.pixels(6))
    model.eval().encode(pixels[4:])
    assert len(model.cache) == 2
    model.train().encode(pixels[:2])
    assert (len(model.cache), model.cache.left_out) == (3, 1)
    runs.clear()
    model.encode(pixels[[0, 1, 4]])
    assert runs == []
    model.encode(pixels[2:4])  # the one of both that training has read as well stays
    assert runs == [2] * blocks
    assert (model.cache.used, model.cache.left_out) == (3 * image, 3)
    model.eval().encode(pixels)
    runs.clear()
    model.train().encode(pixels[[0, 1, 4]])
    assert runs == []
    assert bytes_of(model.cache) == 3 * image


def test_only_what_is_read_is_kept(sam):
    grid, width, out, depth = 8 * 8, 32, 32, 4
    stream, embedding = 4 * grid * width, 4 * grid * out
    assert one_image(sam, "none", "tuned") == embedding
    assert one_image(sam, "none", "hq") == embedding + stream
    assert one_image(sam, "ts_sam_detached", "fusion") == embedding + (depth + 1) * stream


def test_half_precision_is_kept_as_it_is(sam):
    model = model_of(sam, "none", "tuned").eval()
    pixels = sam.preprocess(tiny.pixels())
    with torch.autocast("cpu", torch.bfloat16):
        direct = model.encode(pixels).embedding
        model.cache = FeatureCache(PLENTY)
        for _ in range(2):
            assert torch.equal(model.encode(pixels).embedding, direct)
    kept = {t.dtype for image in model.cache._images.values() for t in image.streams.values()}
    assert kept == {direct.dtype}


def test_mobile_sam_is_kept_too(monkeypatch):
    sam = tiny_vit_golden.base()
    model = FineTuned(sam, "none", "tuned").eval()
    pixels = sam.preprocess(tiny.pixels())
    direct = model.encode(pixels).embedding
    model.cache = FeatureCache(PLENTY)
    model.encode(pixels)
    monkeypatch.setattr(type(sam.image_encoder), "embed", None)  # no stage runs
    assert torch.equal(model.encode(pixels).embedding, direct)


def test_the_frozen_base_gets_no_gradient_and_the_checkpoint_holds_no_cache(sam, data):
    before = {name: t.clone() for name, t in sam.state_dict().items()}
    plain = set(model_of(sam, "ts_sam_detached", "fusion").state_dict())
    model, _, _ = trained(
        sam, "ts_sam_detached", "fusion", data(True), None, feature_cache=PLENTY, max_steps=4
    )
    assert set(model.state_dict()) == plain
    for name, tensor in sam.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_stack_reads_what_its_parts_read(sam):
    none, side = (ADAPTERS[name] for name in ("none", "ts_sam_detached"))
    parts = [none(sam, none.Config()), side(sam, side.Config())]
    assert Stack(parts[:1]).reads(4) == frozenset()
    assert Stack(parts).reads(4) == {-1, 0, 1, 2, 3}
    assert ADAPTERS["none+ts_sam_detached"].detached
    assert not ADAPTERS["none+lora"].detached


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"adapter": "vpt"}, ["train.feature_cache=5", "vpt", "adapter.name=none"]),
        ({"adapter": "ts_sam", "decoder": "fusion"}, ["ts_sam trains", "adapter.name=none"]),
        ({"data": {"augment": "flips"}}, ["data.redraw=false", "data.augment=none"]),
        ({"data": {"crop": [0.5, 1]}}, "data.redraw=false"),
        ({"data": {"rotate": 5}}, "data.redraw=false"),
        ({"input": {"tiles": "tiled"}}, "data.redraw=false"),
        ({"train": {"feature_cache": -1}}, ["train.feature_cache=-1", "at least 0 bytes"]),
    ],
)
def test_what_gives_nothing_twice_is_refused(refused, settings, words):
    own = {
        "adapter": "none",
        "data": {"augment": "none"},
        "train": {"feature_cache": 5},
    }
    whole = resolve([own, {"input": {"size": 64}}])
    assert whole.train.feature_cache == 5
    refused(words, resolve, [own, settings])


def test_draws_that_are_kept_come_the_same_in_every_epoch(sam, data, runs, refused):
    assert not images_vary(DataConfig(augment="standard", crop=(0.5, 1), redraw=False), "tiled")
    train = data(True, augment="flips", redraw=False)
    trained(sam, "none", "tuned", train, None, feature_cache=PLENTY, max_steps=9)
    assert sum(runs) == len(train) * len(sam.image_encoder.blocks)
    refused("redraw=False", trained, sam, "none", "tuned", data(True, augment="flips"), None,
            feature_cache=PLENTY)  # fmt: skip
    refused("vpt trains", trained, sam, "vpt", "tuned", data(True), None, feature_cache=PLENTY)
    runs.clear()
    views = data(True, augment="flips", views=2)
    trained(sam, "none", "tuned", views, None, feature_cache=PLENTY, max_steps=15)
    once = len(train) * len(sam.image_encoder.blocks)
    assert once < sum(runs) <= 2 * once
    train.set_epoch(1)
    pixels = [views[0].pixels for epoch in range(4) if views.set_epoch(epoch) is None]
    assert torch.equal(pixels[0], pixels[2])
    assert torch.equal(pixels[1], pixels[3])
    refused(["views=2", "redraw=False"], DataConfig, redraw=False, views=2)


def test_a_resumed_training_fills_it_anew(sam, data, tmp_path):
    def interrupt(row):
        if row["step"] == 4:
            raise KeyboardInterrupt

    def run(output, **how):
        model = model_of(sam, "none", "tuned")
        settings = FitConfig(max_steps=8, batch_size=1, log_every=1, feature_cache=PLENTY)
        try:
            fit(model, data(True), None, settings, output=tmp_path / output, device="cpu", **how)
        except KeyboardInterrupt:
            assert model.cache is None
        return model

    run("halves", on_event=interrupt)
    assert torch.equal(flat(run("halves", resume=True)), flat(run("whole")))


def test_a_run_says_how_many_images_did_not_fit(samtune, pairs, tiny_weights, tmp_path):
    words = [
        f"data.root={pairs}", "base.name=tiny", f"base.weights={tiny_weights}", "device=cpu",
        "adapter.name=none", "data.augment=none", "train.max_steps=6", "train.batch_size=2",
        "train.feature_cache=17000", f"output={tmp_path / 'run'}", "--json",
    ]  # fmt: skip
    remarks = samtune("train", *words).json["remarks"]
    # two of the six training images have room, and the validation image comes after them
    (remark,) = (remark for remark in remarks if "train.feature_cache=17000" in remark)
    assert remark.startswith("5 images did not fit")
