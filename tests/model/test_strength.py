"""The strength of a model: the base at 0, what was trained at 1, and a way between them."""

import copy
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from steps import IMAGE, fresh, stirred

import samtune
from samtune.adapters import ADAPTERS
from samtune.decoders import DECODERS
from samtune.geometry import InputPolicy
from samtune.inference.predictor import PromptMismatch
from samtune.model.checkpoint import read_header
from samtune.model.finetuned import FineTuned
from samtune.model.merging import merge
from samtune.model.parts import check_fit, check_pair
from samtune.model.strength import Strength, no_middle, starts
from samtune.prompts import PromptModes
from samtune.sam.model import Sam


def fits(adapter: str, decoder: str) -> bool:
    try:
        check_pair(adapter, decoder)
        check_fit(adapter, decoder, tiny.TINY)
    except samtune.InputError:
        return False
    return True


def first(part: int, name: str) -> str:
    """What of the other kind a method is first paired with."""
    pairs = ((a, d) for a in ADAPTERS for d in DECODERS)
    return next(pair[1 - part] for pair in pairs if pair[part] == name and fits(*pair))


def forms(registry, name: str) -> list[str]:
    return [name, *(f"{name}:{form}" for form in registry.forms(name))]


TINY_ADAPTERS = [a for a in ADAPTERS if any(fits(a, d) for d in DECODERS)]
MODELS = [(form, first(0, a)) for a in TINY_ADAPTERS for form in forms(ADAPTERS, a)]
MODELS += [(first(1, d), form) for d in DECODERS for form in forms(DECODERS, d)]
MODELS = [pair for pair in MODELS if pair != ("none", "frozen")]
MODELS += [("lora+adaptformer", "tuned"), ("lora+vpt", "tuned")]


@pytest.fixture(scope="module")
def sam() -> Sam:
    """One block of each kind: more of the same take time and show no more."""
    return tiny.base(tiny.SHALLOW)


def answer(model) -> torch.Tensor:
    """The answer in the frame that the model has at its strength."""
    masks = model(tiny.pixels(2, model.input.size), tiny.boxes(IMAGE, model.input.size))
    return torch.cat([masks.logits.flatten(), masks.iou.flatten()])


@pytest.mark.parametrize(("adapter", "decoder"), MODELS, ids=str)
@torch.no_grad()
def test_a_model_is_turned_down_to_its_base(sam, adapter, decoder, refused):
    model = stirred(sam, adapter, decoder)
    raw = {name: t.clone() for name, t in model.state_dict().items()}
    tuned, base = answer(model), answer(FineTuned(sam).eval())
    model.strength = 0
    assert torch.equal(answer(model), base), "nothing of the training acts"
    assert all(p is not q for p in model.acting for q in (model.adapter, model.decoder))
    if reason := no_middle(model):
        # what does not start as the base says why, and a fresh one proves it
        refused(["strength=0.5", reason, "set 0"], setattr, model, "strength", 0.5)
        assert not torch.equal(answer(fresh(sam, adapter, decoder).eval()), base) or (
            not model.decoder.prompted or model.decoder.dense_targets
        )
        assert model.strength == 0
    else:
        model.strength = 1e-5
        near = (answer(model) - base).norm() / (tuned - base).norm()
        assert 0 < near < 1e-2, "a little of it is near the base"
        model.strength = 0.5
        assert not torch.equal(answer(model), base) and not torch.equal(answer(model), tuned)
    assert all(torch.equal(raw[name], t) for name, t in model.state_dict().items())
    model.strength = 1
    assert torch.equal(answer(model), tuned)


def test_what_starts_at_random_stays_and_the_rest_goes_back(sam):
    model = stirred(sam, "lora+norm_tuning", "tuned")
    before = torch.get_rng_state()
    known = starts(model)
    assert torch.equal(torch.get_rng_state(), before), "no draw of a training is moved"
    random = model.state_dict().keys() - known.keys()
    assert random == {n for n in model.state_dict() if ".a." in n}, "LoRA's A alone"
    model.strength = 0.25
    tuned = model.state_dict()
    for kind, part in model.acting._asdict().items():
        for name, tensor in part.state_dict().items():
            key = f"{kind}.{name}"
            expected = tuned[key]
            if key in known:
                expected = known[key] + 0.25 * (tuned[key] - known[key])
            assert torch.equal(tensor, expected), key


def test_what_acts_follows_the_weights_and_the_mode(sam):
    model = stirred(sam, "lora", "tuned")
    model.strength = 0.5
    half = answer(model)
    other = copy.deepcopy(model)
    assert torch.equal(answer(other), half) and other.strength == 0.5
    state = {name: t + 0.1 for name, t in model.state_dict().items()}
    other.load_state_dict(state)
    assert not torch.equal(answer(other), half)
    with torch.no_grad():
        model.train()
        assert model.acting.adapter is model.adapter, "all of it is trained"
        for p in model.parameters():
            p.add_(0.1)
    assert torch.equal(answer(model.eval()), answer(other))


def test_another_normalisation_leaves_nothing_between(sam, refused):
    policy = InputPolicy((64, 64), mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0))
    model = FineTuned(sam, "lora", "tuned", input=policy).eval()
    refused("normalised", setattr, model, "strength", 0.5)
    model.strength = 0
    assert model.input.mean is None and model.tuned_input.mean == policy.mean
    assert torch.equal(answer(model), answer(FineTuned(sam).eval()))
    for wrong in (-0.1, 1.5, float("nan")):
        refused("from 0 to 1", setattr, model, "strength", wrong)


def test_the_strength_travels_in_the_checkpoint(sam, tmp_path, refused):
    model = stirred(sam, "lora", "tuned")
    full = answer(model)
    model.strength = 0.5
    path = samtune.save(model, tmp_path / "half.safetensors")
    assert read_header(path)["strength"] == 0.5
    assert torch.equal(answer(samtune.load(path, sam)), answer(model))
    assert torch.equal(answer(samtune.load(path, sam, strength=1)), full)
    assert torch.equal(answer(samtune.load(path, sam, strength=0)), answer(model.plain()))
    refused("strength=2", samtune.load, path, sam, strength=2)
    del model  # a merged file is of the strength that is set
    merged = merge(samtune.load(path, sam), tmp_path / "merged.safetensors")
    assert merged.max_difference < 1e-4


def mixed() -> samtune.Prompts:
    """A box, a point and no prompt for image 0, and a box with a point for image 1."""
    at = torch.tensor([[[30.0, 30.0]]])
    box, one = torch.tensor([[8.0, 8.0, 50.0, 50.0]]), torch.ones(1, 1)
    parts = [
        samtune.Prompts.of(boxes=box),
        samtune.Prompts.of(points=at, labels=one),
        samtune.Prompts.of(count=1),
        replace(samtune.Prompts.of(box, at, one), image=torch.ones(1, dtype=torch.long)),
    ]
    return samtune.Prompts.cat(parts)


@torch.no_grad()
def test_each_kind_of_prompt_is_answered_at_its_own_strength(sam, tmp_path, refused):
    model = stirred(sam, "lora", "tuned")
    levels = {"none": 1.0, "point": 0.5, "box": 0.0}
    pixels, prompts = tiny.pixels(2, (64, 64)), mixed()
    whole = {level: model.at(level)(pixels, prompts) for level in (0.0, 0.5, 1.0)}
    model.strength = 0.25
    model.strength = levels
    rows = [0.0, 0.5, 1.0, 0.0]  # a box selects, whatever refines it
    before = model.encodings
    found = model(pixels, prompts)
    assert model.encodings == before + 6, "views of other strengths count as the model"
    for i, level in enumerate(rows):
        torch.testing.assert_close(found.logits[i], whole[level].logits[i], atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(found.iou[i], whole[level].iou[i], atol=1e-4, rtol=1e-3)
    assert float(model.strength) == 0.25 and str(model.strength).startswith(
        "none:1,point:0.5,box:0"
    )
    assert model.strength.of("mask") == 0.25 and bool(model.strength)
    path = samtune.save(model, tmp_path / "by_kind.safetensors")
    header = read_header(path)
    assert header["strength"] == 0.25 and header["strengths"] == {**levels, "mask": 0.25}
    loaded = samtune.load(path, sam)
    assert torch.equal(loaded(pixels, prompts).logits, found.logits)
    again = samtune.load(path, sam, strength="none:0,mask:0").strength
    assert (again.of("none"), again.of("point"), again.of("mask")) == (0, 0.5, 0)
    assert samtune.load(path, sam, strength={k: 1 for k in (*levels, "mask")}).strength == 1
    assert not samtune.load(path, sam, strength=0.5).strength.by_kind
    copied = copy.deepcopy(model)
    assert copied.strength.by_kind == model.strength.by_kind
    loaded.prompt_modes = PromptModes.read("box,point")
    merged = merge(loaded, tmp_path / "merged.safetensors")
    assert merged.max_difference < 1e-4 and merged.strength == 0.25
    strength = loaded.strength
    assert strength.changed_by("point") == 0.5, "one kind's for all"
    for asked, trained, one in (
        (("box", "point"), ("point",), 0.5),
        (("box",), ("point", "box"), 0.0),
        (("box", "point"), ("box", "point"), 0.25),  # the one for all prompts together
        (("box",), ("none",), 0.25),
    ):
        assert strength.in_one(asked, trained) == one
    demanded = strength.changed_by("box:1")
    assert demanded.in_one(("box", "point"), ("point",)) == 1, "somebody has set it"
    refused(["circle", "none, point, box, mask"], setattr, model, "strength", {"circle": 1})
    for wrong in ({"box": 2}, {"box": None}, "box:2", "boxes", ["box:x"], None, object()):
        refused("from 0 to 1", setattr, model, "strength", wrong)
    refused("none twice", setattr, model, "strength", "none:1,none:0")
    model.strength = {"box": np.float32(0.5), "none": -0.0}
    assert str(model.strength).startswith("none:0,point:0.5,box:0.5"), "any real number, without -0"
    model.strength = np.float32(0.5)
    assert model.strength == 0.5 and not model.strength.by_kind
    alike = stirred(sam, "lora", "semantic")
    refused(["whatever is asked", "one number"], setattr, alike, "strength", {"box": 0})
    assert alike.strength == 1


def test_an_image_is_encoded_once_for_each_strength_that_is_asked(sam):
    model = stirred(sam, "lora", "tuned")
    model.prompt_modes = PromptModes.read("none,point,box,mask")
    image = np.random.default_rng(0).integers(0, 256, (48, 60, 3), np.uint8)
    asks = {
        "box": {"box": np.array([5, 5, 40, 40])},
        "point": {"point_coords": [[20, 20]], "point_labels": [1]},
        "none": {},
    }
    one = {}
    for level in (0.0, 1.0):
        model.strength = level
        predictor = model.predictor()
        predictor.set_image(image)
        for kind, ask in asks.items():
            one[level, kind] = predictor.predict(**ask, multimask_output=False, return_logits=True)
    model.strength = {"none": 1, "point": 1, "box": 0, "mask": 0}
    predictor = model.predictor()
    before = model.encodings
    predictor.set_image(image)
    assert model.encodings == before, "nobody has asked yet"
    words = "prompt box has strength 0: the base answers it"
    for i, kind in enumerate(("point", "none", "box", "point", "none", "box")):
        with pytest.warns(PromptMismatch, match=words) if i == 2 else nullcontext():  # once
            found = predictor.predict(**asks[kind], multimask_output=False, return_logits=True)
        expected = one[model.strength.of(kind), kind]
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    low = found[2]
    refined = predictor.predict(**asks["point"], mask_input=low, multimask_output=False)
    assert refined[0].any() and model.encodings == before + 2, "a click keeps its strength"
    assert predictor.get_image_embedding().shape[0] == 1
    model.prompt_modes = PromptModes.read("none")
    ask = asks["point"]
    for strength, words in (
        (Strength(1.0, {"none": 1, "point": 0.5, "box": 0}), None),  # as a training chose them
        ("box:1", None),
        ("point:1,none:0.5", "trained with prompt none, but used with point"),
        ("point:0", "prompt point has strength 0"),
    ):
        model.strength = strength
        with pytest.warns(PromptMismatch, match=words) if words else nullcontext():
            predictor = model.predictor()
            predictor.set_image(image)
            predictor.predict(**ask, multimask_output=False)
            predictor.predict(**ask, multimask_output=False)
        with pytest.warns(PromptMismatch) if words else nullcontext():
            samtune.MaskGenerator(model)
