"""Checkpoints: what is in the file, what comes back, what is refused."""

import json
import os
from importlib.metadata import version

import numpy as np
import pytest
import safetensors.torch
import tiny
import torch
from predicting import one_mask
from safetensors import safe_open

import samtune
from samtune.adapters import Adapter, Stack
from samtune.adapters.lora import LoRA
from samtune.adapters.resnet import ResNet
from samtune.decoders.frozen import FrozenDecoder
from samtune.geometry import InputPolicy
from samtune.model import checkpoint
from samtune.model.finetuned import FineTuned
from samtune.model.header import BUNDLE_FORMAT
from samtune.runs.config import RunConfig
from samtune.runs.places import without_places
from samtune.runs.source import Source
from samtune.sam.weights import fingerprint


@pytest.fixture
def model(sam) -> FineTuned:
    model = FineTuned(
        sam,
        "lora",
        "tuned",
        input=InputPolicy((48, 88), "stretch"),
        adapter_options={"rank": 2, "blocks": (1, 3)},
        prompts="point",
    )
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model.eval()


@pytest.fixture
def path(model, tmp_path):
    return samtune.save(model, tmp_path / "new" / "model.safetensors", classes=["polyp"])


def rewritten(path, header=None, tensors=None, **metadata):
    """The file again with parts of it replaced."""
    old = checkpoint.read_header(path)
    kept = safetensors.torch.load_file(path) if tensors is None else tensors
    metadata = metadata or {"samtune": json.dumps({**old, **(header or {})})}
    other = path.with_name("other.safetensors")
    safetensors.torch.save_file(kept, other, metadata=metadata)
    return other


def test_the_file_holds_what_was_trained_and_no_more(model, path):
    with safe_open(path, "pt") as file:
        names = set(file.keys())
        assert all(torch.equal(file.get_tensor(n), t) for n, t in model.state_dict().items())
    assert names == set(model.state_dict())
    assert os.listdir(path.parent) == ["model.safetensors"]


def test_the_header_says_how_to_rebuild_the_model(sam, path):
    assert checkpoint.read_header(path) == {
        "format": checkpoint.FORMAT,
        "samtune": version("samtune"),
        "base": {"name": "tiny", "sha256": fingerprint(sam)},
        "adapter": {
            "name": "lora",
            "target": "q+v",
            "rank": 2,
            "alpha": None,
            "dropout": 0.0,
            "blocks": [1, 3],
        },
        "decoder": {"name": "tuned", "prompt_encoder": False},
        "input": {"size": [48, 88], "resize": "stretch"},
        "prompts": "point",
        "classes": ["polyp"],
    }


def test_a_loaded_model_is_the_saved_one(sam, model, path):
    loaded = samtune.load(str(path), base=sam)
    assert loaded.sam is sam
    assert (loaded.input, loaded.prompts) == (model.input, model.prompts)
    assert not loaded.training
    assert all(p.requires_grad for p in loaded.parameters())
    image = np.random.default_rng(0).integers(0, 256, (37, 51, 3), np.uint8)
    answers = []
    for predictor in (model.predictor(), loaded.predictor()):
        predictor.set_image(image)
        asked = {"point_coords": [[5, 6]], "point_labels": [1]}
        answers.append(one_mask(predictor, **asked, return_logits=True))
    for mine, theirs in zip(*answers, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_the_base_may_be_given_as_a_path(model, path, tiny_weights):
    loaded = samtune.load(path, base=tiny_weights)
    image = tiny.pixels(1, (48, 88))
    box = tiny.boxes([0], (48, 88))
    assert torch.equal(loaded(image, box).logits, model(image, box).logits)
    assert torch.equal(samtune.load(path, str(tiny_weights))(image, box).logits,
                       model(image, box).logits)  # fmt: skip


def test_a_base_file_in_half_precision_is_another_base(sam, path, tiny_weights, refused):
    """What counts is the weights that the model runs on; rounding them changes the answer."""
    half = {key: t.half() for key, t in sam.state_dict().items()}
    safetensors.torch.save_file(half, tiny_weights)
    refused(["another tiny", "any_base=True"], samtune.load, path, tiny_weights)
    assert samtune.load(path, tiny_weights, any_base=True).sam is not sam


def test_weights_saved_in_half_precision_and_back_are_the_same_base(sam, tiny_weights, tmp_path):
    """A base that came from a half-precision file is the same from whatever file holds it."""
    rounded = {key: t.half() for key, t in sam.state_dict().items()}
    safetensors.torch.save_file(rounded, tiny_weights)
    half = samtune.load_sam("tiny", tiny_weights)
    assert all(t.dtype == torch.float32 for t in half.state_dict().values())
    saved = samtune.save(FineTuned(half, "lora"), tmp_path / "on_half.safetensors")
    full = {key: t.float() for key, t in rounded.items()}
    safetensors.torch.save_file(full, tiny_weights)
    assert samtune.load(saved, tiny_weights)


def test_buffers_travel_too(sam, tmp_path):
    class Normed(LoRA):
        def __init__(self, sam, config) -> None:
            super().__init__(sam, config)
            self.norm = torch.nn.BatchNorm2d(4)

    model = FineTuned(sam, "lora")
    model.adapter = Normed(sam, LoRA.Config())
    model.adapter.norm(torch.randn(2, 4, 3, 3) + 5)
    saved = samtune.save(model, tmp_path / "normed.safetensors")
    fresh = FineTuned(sam, "lora")
    fresh.adapter = Normed(sam, LoRA.Config())
    checkpoint.load_tensors(fresh, safetensors.torch.load_file(saved), str(saved))
    assert torch.equal(fresh.adapter.norm.running_mean, model.adapter.norm.running_mean)
    assert fresh.adapter.norm.num_batches_tracked == 1


def test_adapters_joined_by_name_come_back_with_their_options(sam, tmp_path):
    options = {"lora": {"rank": 2, "alpha": 7.0}, "adaptformer": {"hidden": 3, "scale": None}}
    model = FineTuned(sam, "lora+adaptformer", adapter_options=options)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1)
    loaded = samtune.load(samtune.save(model, tmp_path / "joined.safetensors"), sam)
    assert isinstance(loaded.adapter, Stack)
    assert loaded.adapter_options == model.adapter_options
    image, box = tiny.pixels(1), tiny.boxes([0])
    assert torch.equal(loaded(image, box).logits, model(image, box).logits)


class Gain(Adapter):
    """An adapter without a name: one gain per channel of the embedding, which has two names."""

    def __init__(self, channels):
        super().__init__()
        self.gain = self.twin = torch.nn.Parameter(torch.ones(channels, 1, 1))

    def after_neck(self, embedding, state):
        return embedding * self.gain


@pytest.mark.parametrize("kind", ["adapter", "decoder"])
def test_own_modules_are_saved_and_loaded_into_a_module(sam, tmp_path, refused, kind):
    def module():
        return Gain(32) if kind == "adapter" else FrozenDecoder(sam, FrozenDecoder.Config())

    model = FineTuned(sam, **{kind: module()}).eval()
    for p in model.parameters():
        p.data += 1
    path = samtune.save(model, tmp_path / "own.safetensors")
    cls = type(getattr(model, kind))
    assert checkpoint.read_header(path)[kind]["module"] == f"{cls.__module__}:{cls.__qualname__}"
    loaded = samtune.load(path, sam, **{kind: module()})
    image, box = tiny.pixels(1), tiny.boxes([0])
    assert torch.equal(loaded(image, box).logits, model(image, box).logits)
    said = [cls.__qualname__, f"samtune.load(path, {kind}=module)"]
    refused(said, samtune.load, path, sam)
    if kind == "adapter":
        assert "adapter: a module of your own" in repr(loaded)
        refused("as in adapter=Gain(...)", samtune.load, path, sam, adapter=Gain)
    refused(said, Source(str(path)).settings)
    again = samtune.save(loaded, tmp_path / "again.safetensors")
    assert checkpoint.read_header(again) == checkpoint.read_header(path)
    for key, tensor in safetensors.torch.load_file(path).items():
        assert torch.equal(tensor, safetensors.torch.load_file(again)[key])


def test_what_is_no_adapter_or_holds_the_base_is_refused_before_any_step(sam, refused):
    refused(["adapter=Linear: is no adapter", "built on"], FineTuned, sam, torch.nn.Linear(2, 2))
    refused("decoder=Gain: is no decoder", FineTuned, sam, "none", Gain(32))
    greedy = Gain(32)
    greedy.base = sam
    refused(["adapter=Gain: holds tensors of the base", "tuple"], FineTuned, sam, greedy)


def test_a_file_of_initial_weights_is_needed_only_at_the_start(sam, tmp_path, monkeypatch):
    weights, given = tmp_path / "resnet.safetensors", {"depth": 1, "ratio": 1.0}
    state = ResNet(1).state_dict()
    safetensors.torch.save_file(state, weights)
    options = {"gsam": {**given, "resnet": str(weights)}}
    model = FineTuned(sam, "lora+gsam", adapter_options=options).eval()
    config = RunConfig(adapter={"name": "lora+gsam", "lora": {"rank": 4}, **options}).tree()
    paths = [samtune.save(model, tmp_path / "new.safetensors", config=without_places(config))]
    assert str(tmp_path) not in json.dumps(checkpoint.read_header(paths[0]))
    described = checkpoint.describe(model)  # files of earlier versions had the path
    old = {**described, "adapter": {**described["adapter"], **options}}
    monkeypatch.setattr(checkpoint, "describe", lambda model: old)
    paths.append(samtune.save(model, tmp_path / "old.safetensors", config=config))
    assert str(weights) in json.dumps(checkpoint.read_header(paths[1]))
    weights.unlink()
    for path in paths:
        loaded = samtune.load(path, sam)
        for key, tensor in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[key], tensor), key


# --- writing


def test_what_no_file_has_is_refused_with_the_entry_that_is_meant(model, tmp_path, refused):
    file = tmp_path / "a.safetensors"
    typo = ["clases: is no entry", "did you mean 'classes'?"]
    refused(typo, samtune.save, model, file, clases=[])
    refused("notes={'site': ...}", samtune.save, model, file, site="north")
    refused("strength: is no entry", samtune.save, model, file, strength=0.5)
    refused("must be a dictionary", samtune.save, model, file, config="train.lr=1")
    refused("metrics=dict: is no JSON value", samtune.save, model, file, metrics={"iou": model})
    assert not file.exists()
    refused("epoch: is no entry that header takes", samtune.fit, model, [], header={"epoch": 3})
    samtune.save(model, file, notes={"site": "north"})
    assert samtune.load(file, model.sam).about["notes"] == {"site": "north"}


@pytest.mark.parametrize("ending", [".pt", ".pth", ".CKPT", ".bin"])
def test_an_ending_of_pickles_is_refused_and_none_is_taken(model, tmp_path, refused, ending):
    refused(["model.safetensors", ending], samtune.save, model, tmp_path / f"model{ending}")
    assert not list(tmp_path.iterdir())
    assert samtune.save(model, tmp_path / "model").name == "model"


def test_arguments_in_the_wrong_order_are_refused(model, path, refused):
    refused("save(model, path)", samtune.save, path, model)


def test_a_failed_write_leaves_the_earlier_file(model, path, monkeypatch, refused):
    before = path.read_bytes()

    def full(tensors, to, metadata):
        to.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    refused([path, "No space left", "free some space"], samtune.save, model, path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["model.safetensors"]


def test_a_folder_that_cannot_be_made_is_refused(model, tmp_path, refused):
    (tmp_path / "file").write_text("")
    refused("could not be written", samtune.save, model, tmp_path / "file" / "x.safetensors")
    for folder in (tmp_path, f"{tmp_path}/new/"):
        refused(["is a folder", "model.safetensors"], samtune.save, model, folder)
    assert not (tmp_path / "new").exists()


def test_saving_again_replaces(sam, model, path):
    with torch.no_grad():
        next(model.parameters()).add_(1)
    samtune.save(model, path)
    loaded = samtune.load(path, sam)
    assert torch.equal(next(loaded.parameters()), next(model.parameters()))
    assert os.listdir(path.parent) == ["model.safetensors"]


# --- reading


def test_what_is_no_checkpoint_is_refused(sam, path, tiny_weights, tmp_path, refused):
    refused([tmp_path / "no.safetensors", "no such checkpoint"], samtune.load,
            tmp_path / "no.safetensors")  # fmt: skip
    refused("without best.safetensors", samtune.load, tmp_path)
    refused([tiny_weights, "not a samtune checkpoint"], samtune.load, tiny_weights)
    refused("not a samtune checkpoint", samtune.load, rewritten(path, format="pt"), sam)
    text = tmp_path / "text.safetensors"
    text.write_text("not a safetensors file, but long enough to have a header")
    refused([text, "not a readable checkpoint"], samtune.load, text, sam)
    text.write_bytes(b"")
    refused("not a readable checkpoint", samtune.load, text, sam)


@pytest.mark.parametrize("header", ["{", "[]", "3", '"words"', "{}", '{"format": 1}'])
def test_broken_headers_are_refused(sam, path, refused, header):
    broken = rewritten(path, samtune=header)
    refused(broken, samtune.load, broken, sam)


@pytest.mark.parametrize("kept", [0.5, 0.95])
def test_a_file_cut_short_is_refused(sam, path, refused, kept):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    refused([path, "cut short"], samtune.load, path, sam)


def test_a_newer_format_is_refused(sam, path, refused):
    newer = rewritten(path, {"format": BUNDLE_FORMAT + 1, "samtune": "99.0"})
    refused(["99.0", "upgrade"], samtune.load, newer, sam)


def test_another_base_is_refused(sam, own_sam, model, path, refused):
    with torch.no_grad():
        own_sam.image_encoder.pos_embed[0, 0, 0, 0] += 1e-3
    given = fingerprint(own_sam)[:12]
    refused(
        ["another tiny", given, fingerprint(sam)[:12], "any_base=True"], samtune.load, path, own_sam
    )
    loaded = samtune.load(path, own_sam, any_base=True)
    assert loaded.sam is own_sam
    assert torch.equal(next(loaded.parameters()), next(model.parameters()))


def test_a_base_of_another_kind_is_refused(path, refused):
    from dataclasses import replace

    other = tiny.base(replace(tiny.TINY, name="small"))
    refused(["trained on tiny", "small"], samtune.load, path, other)


def test_a_base_can_be_named(tmp_path, refused):
    model = FineTuned(samtune.load_sam("nano", "nano"), "lora")
    path = samtune.save(model, tmp_path / "a.safetensors")
    assert samtune.load(path, "nano").sam.spec.name == "nano"
    refused("is the name of a base, but nano is needed", samtune.load, path, base="vit_b")


def test_a_base_that_does_not_ship_must_be_given(path, tiny_registered, refused):
    refused("give their file with base=", samtune.load, path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("adapter.updates.1.a.0"), "missing adapter.updates.1.a.0"),
        (lambda t: t.update(extra=torch.ones(1)), "unexpected extra"),
        (
            lambda t: t.update({"adapter.updates.1.a.0": torch.ones(3, 32)}),
            "of another shape adapter.updates.1.a.0",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused(sam, path, refused, change, words):
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    broken = rewritten(path, tensors=tensors)
    refused([broken, words], samtune.load, broken, sam)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"adapter": {"name": "lorra"}}, "did you mean 'lora'"),
        ({"adapter": {"name": "lora", "rnk": 1}}, "did you mean 'rank'"),
        ({"decoder": {"name": "unheard"}}, "decoder=unheard"),
    ],
)
def test_methods_that_this_version_does_not_know_are_refused(sam, path, refused, header, words):
    refused(words, samtune.load, rewritten(path, header), sam)


def test_where_weights_started_is_kept_of_no_adapter_of_a_stack(sam, monkeypatch):
    monkeypatch.setattr(LoRA, "initial", ("alpha",))
    model = FineTuned(sam, "lora+adaptformer", "frozen", adapter_options={"lora": {"alpha": 2}})
    assert "alpha" not in model.adapter_options["lora"]
    assert {"rank", "blocks"} <= model.adapter_options["lora"].keys()
    assert "hidden" in model.adapter_options["adaptformer"]
