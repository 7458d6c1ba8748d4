"""Every dialect: a file of its layout comes in and computes what the model it came from does."""

import json
from dataclasses import replace

import deterministic
import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from foreign_layouts import NAMES, NEEDS_BASE, layout, written
from safetensors.torch import load_file, save_file
from tiny_vit_golden import timm_names

import samtune as st
from samtune.data.transforms import fit
from samtune.foreign import DIALECTS, convert
from samtune.geometry import InputPolicy
from samtune.model.checkpoint import read_header
from samtune.prompts import Prompts
from samtune.sam.model import Sam
from samtune.sam.spec import SPECS, Stage
from samtune.sam.weights import from_state

SMALL = [name for name in NAMES if name != "gsam:gsam"]
NECK = "image_encoder.neck.0.weight"
STAGES = Stage(8, 1), Stage(16, 1, 2, 3), Stage(24, 1, 2, 4), Stage(32, 1, 4, 3)
TINY_T = replace(tiny.TINY, name="tiny_t", depth=3, global_blocks=(), patch_size=16)
TINY_T = replace(TINY_T, encoder="tiny_vit", stages=STAGES)


def outputs(model, size=(64, 64)):
    prompts = tiny.boxes([0, 1], size)
    with torch.no_grad():
        return model(tiny.pixels(2, size), prompts).logits


@pytest.fixture
def bring(samtune, tmp_path, tiny_weights):
    """Imports a state: ``bring(state, dialect, *words)``; the answer and the checkpoint's path."""

    def run(state, name, *words, wrapped=None, base=True):
        file = written(state, tmp_path / "foreign.pth", wrapped)
        out = tmp_path / "out" / "x.safetensors"
        given = ("--base", tiny_weights) if base else ()
        return samtune("import", file, "--from", name, "--out", out, *given, *words), out

    return run


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_comes_in_and_computes_the_same(bring, tiny_weights, name):
    made = layout(name)
    answer, out = bring(made.released, name, "--model", "tiny", "--json")
    assert answer.code == 0, answer.err
    said = answer.json
    assert (said["checkpoint"], said["from"], said["model"]) == (str(out), name, "tiny")
    assert said["trainable_parameters"] == made.model.trainable()
    loaded = st.load(out, base=tiny_weights)
    assert loaded.adapter_options == {
        key: pytest.approx(value, abs=0.05) if key == "ratio" else value
        for key, value in made.model.adapter_options.items()
    }
    assert loaded.decoder_options == made.model.decoder_options
    assert (loaded.input, loaded.prompts) == (made.model.input, made.model.prompts)
    assert torch.equal(outputs(loaded), outputs(made.model))
    for key, tensor in made.model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor), key


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in SMALL if DIALECTS[n].holds == "either"])
@pytest.mark.parametrize("part", ["whole", "trained"])
def test_whole_and_partial_files_of_parallel_training(bring, tiny_weights, name, part):
    made = layout(name)
    state = {"module." + key: t for key, t in getattr(made, part).items()}
    answer, out = bring(state, name, "--model", "tiny", wrapped="model")
    assert answer.code == 0, answer.err
    assert torch.equal(outputs(st.load(out, base=tiny_weights)), outputs(made.model))


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in SMALL if n not in NEEDS_BASE])
def test_the_base_is_split_off(bring, tmp_path, name):
    made, base = layout(name), tmp_path / "out" / "base.safetensors"
    answer, out = bring(made.whole, name, "--save-base", base, "--json", base=False)
    assert answer.code == 0, answer.err
    assert (answer.json["base"], answer.json["model"]) == (str(base), "tiny")
    assert torch.equal(outputs(st.load(out, base=base)), outputs(made.model))
    saved, given = load_file(base), made.model.sam.state_dict()
    assert saved.keys() == given.keys()
    if made.model.decoder.name == "hq":  # the frozen decoder is in the file
        assert all(torch.equal(saved[key], given[key]) for key in given)
    for key in given:
        if key.startswith(("image_encoder.", "prompt_encoder.")):
            assert torch.equal(saved[key], given[key]), key
    assert sorted(path.name for path in out.parent.iterdir()) == [base.name, out.name]


@pytest.mark.parametrize("name", [n for n in SMALL if n in NEEDS_BASE])
def test_what_lacks_a_part_of_the_base_needs_it(bring, tmp_path, name):
    base = tmp_path / "out" / "base.safetensors"
    words = ("--model", "tiny", "--save-base", base)
    answer, out = bring(layout(name).released, name, *words, base=False)
    assert "does not hold its base" in answer.line and "give the base's weights with --base" in (
        answer.line
    )
    assert not out.exists() and not base.exists()


def test_neither_a_base_nor_where_to_write_it(bring):
    answer, out = bring(layout("cat_sam_t").whole, "cat_sam_t", base=False)
    assert "--save-base=FILE.safetensors" in answer.line and not out.exists()


def test_a_partial_file_alone_does_not_tell_its_base(bring):
    answer, _ = bring(layout("sam_finetune_kyyle").released, "sam_finetune_kyyle", base=False)
    assert "do not show which base" in answer.line and "--model" in answer.line


@pytest.fixture(scope="module")
def released():
    return {name: layout(name).released for name in SMALL}


ONE_LAYOUT = {("mobile_sam", "micro_sam"), ("micro_sam", "gsam:sam")}
"""Files that a second dialect reads rightly: what they hold is a SAM under the official names."""


@pytest.mark.slow
@pytest.mark.parametrize("name", DIALECTS)
def test_every_other_dialect_refuses_it(name, tmp_path, monkeypatch, refused):
    spec = TINY_T if name == "mobile_sam" else tiny.TINY
    monkeypatch.setitem(SPECS, spec.name, spec)
    state = layout(name, spec, hollow=True).released
    # No element of a tensor is read before a layout is refused: one number stands for all.
    state = {key: torch.zeros(()).expand(t.shape) for key, t in state.items()}
    monkeypatch.setattr(convert, "read_state", lambda path: state)
    out, base = tmp_path / "out" / "x.safetensors", tmp_path / "out" / "base.safetensors"
    for other in DIALECTS:
        words = f"not a file of {other}"
        if other == name or (name, other) in ONE_LAYOUT:
            continue
        refused(
            words,
            convert.import_checkpoint,
            "x.pth",
            other,
            out,
            model=spec.name,
            save_base=base,
        )
        assert not out.parent.exists()


@pytest.mark.parametrize(
    "name", [n for n in SMALL if n not in ("sam_finetune_kyyle", "sam_adapter_kyyle")]
)
def test_the_right_dialect_is_named(bring, released, name):
    answer, _ = bring(released[name], "sam_adapter_kyyle", "--model", "tiny")
    assert answer.line.endswith(f"it looks like {name}: try --from {name}\n")


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_truncated_and_with_more(bring, name):
    made = layout(name)
    cut = list(made.trained)[-1]
    state = {k: t for k, t in made.released.items() if k != cut}
    answer, out = bring(state | {"stray.weight": torch.zeros(1)}, name, "--model", "tiny")
    assert f"1 missing ({cut})" in answer.line and "1 unexpected (stray.weight)" in answer.line
    assert not out.exists()


def test_twelve_of_what_is_wrong_are_named_and_json_has_all(bring):
    made = layout("ts_sam")
    stray = {f"stray.{i:02d}": torch.zeros(1) for i in range(14)}
    answer, _ = bring(made.released | stray, "ts_sam", "--model", "tiny")
    named = ", ".join(list(stray)[:12])
    assert f"14 unexpected ({named}, and 2 more in --json)" in answer.line
    answer, out = bring(made.released | stray, "ts_sam", "--model", "tiny", "--json")
    assert answer.json == {
        "refused": answer.last.removeprefix("samtune: "),
        "unexpected": list(stray),
    }
    assert not out.exists()


@pytest.mark.slow
def test_a_whole_file_without_a_part_of_its_base(bring):
    names = [name for name in SMALL if DIALECTS[name].holds != "trained"]
    names = [name for name in names if NECK in layout(name).frozen]
    assert len(names) > 8
    for name in names:
        state = {k: t for k, t in layout(name).whole.items() if not k.endswith(NECK)}
        answer, out = bring(state, name, "--model", "tiny")
        assert f"1 missing ({NECK})" in answer.line and not out.exists(), name


def test_a_tensor_of_another_shape(bring, released):
    state = dict(released["ts_sam"])
    state["mask_decoder.conv1_1.bias"] = torch.zeros(3)
    answer, _ = bring(state, "ts_sam", "--model", "tiny")
    assert "1 of another shape (mask_decoder.conv1_1.bias)" in answer.line


def test_frozen_tensors_of_another_base(bring, released):
    state = dict(released["ts_sam"])
    key = "image_encoder.blocks.1.attn.qkv.weight"
    state[key] = state[key] + 1
    answer, out = bring(state, "ts_sam")
    count = len(layout("ts_sam").frozen)
    assert f"1 of {count} frozen tensors differ ({key}" in answer.line and not out.exists()


def test_second_names_that_differ(bring, released):
    state = dict(released["cat_sam_t"])
    state["image_encoder.hq_token"] = state["image_encoder.hq_token"] + 1
    assert "here they differ" in bring(state, "cat_sam_t")[0].line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--from", "tssam"), "did you mean 'ts_sam'"),
        (("--from", "ts_sam", "--size", "64,64"), "has one size"),
        (("--from", "gsam:gsam", "--size", "64"), "is height,width"),
        (("--from", "ts_sam", "--save-base", "b.safetensors"), "leave one of them out"),
        (("--from", "ts_sam", "--model", "vit_q"), "must be one of"),
        (("--from", "ts_sam", "--out", "x.pth"), "give it that ending"),
        (("--from", "ts_sam", "--out", "base.safetensors"), "is never overwritten"),
    ],
)
def test_wrong_words(samtune, tmp_path, monkeypatch, released, words, said):
    monkeypatch.chdir(tmp_path)
    file = written(released["ts_sam"], tmp_path / "foreign.pth")
    save_file({"x": torch.zeros(1)}, tmp_path / "base.safetensors")
    words = words if "--out" in words else (*words, "--out", "x.safetensors")
    answer = samtune("import", file, "--base", "base.safetensors", *words)
    assert said in answer.line


def test_the_systems_are_listed_without_a_file(samtune):
    rows = samtune("import", "--from", "?", "--json").json
    assert {row["from"] for row in rows} == {*DIALECTS}
    listed = samtune("import").out
    assert all(name in listed for name in DIALECTS) and "--from SYSTEM" in listed
    assert "--out: is missing" in samtune("import", "x.pth", "--from", "samed").line
    assert "FILE: is missing" in samtune("import", "--from", "samed").line


def test_a_pickle_with_code_is_refused(samtune, tmp_path, tiny_weights):
    torch.save({"model": layout("ts_sam").model}, tmp_path / "x.pth")
    out = tmp_path / "x.safetensors"
    words = ("--from", "ts_sam", "--base", tiny_weights, "--out", out)
    assert "more than tensors" in samtune("import", tmp_path / "x.pth", *words).line


def test_gsam_takes_the_size_of_its_data_set(bring, tiny_weights):
    made = layout("gsam:gsam")
    answer, out = bring(made.released, "gsam:gsam", "--model", "tiny", "--size", "40,72")
    assert answer.code == 0, answer.err
    loaded = st.load(out, base=tiny_weights)
    assert loaded.input.size == (40, 72)
    pixels = tiny.pixels(1, (40, 72))
    mean, std = ([0.466, 0.471, 0.380], [0.195, 0.194, 0.192])
    mean, std = (torch.tensor(v)[:, None, None] for v in (mean, std))
    x = loaded.preprocess(pixels)
    torch.testing.assert_close(x, (pixels / 255 - mean) / std, rtol=0, atol=2e-6)
    with torch.no_grad():
        masks = made.model.decoder(made.model.sam, made.model.encode(x), Prompts.of())
        assert torch.equal(loaded(pixels, Prompts.of()).logits, masks.logits)


def test_samed_numbers_its_pairs_over_blocks_and_takes_a_size(bring, tiny_weights):
    made = layout("samed")
    update = made.model.adapter.updates["3"]
    for number, slot in ((6, 0), (7, 1)):  # queries, then values
        assert torch.equal(made.trained[f"w_a_{number:03d}"], update.a[slot])
        assert torch.equal(made.trained[f"w_b_{number:03d}"], update.b[slot])
    answer, out = bring(made.whole, "samed", "--size", "48,64")
    assert answer.code == 0, answer.err
    loaded, pixels = st.load(out, base=tiny_weights), tiny.pixels(1, (48, 64))
    assert loaded.input.size == (48, 64)
    torch.testing.assert_close(loaded.preprocess(pixels), pixels / 255)
    other = made.model.sam.prompt_encoder.no_mask_embed.weight
    assert not torch.equal(loaded.decoder.no_mask_embed.weight, other)


@pytest.mark.parametrize("form", ["trained", "exported", "with a decoder of instances"])
def test_micro_sam_is_a_base(samtune, tmp_path, sam, form):
    state = dict(sam.state_dict())
    more = {"decoder_state": {"base.weight": torch.zeros(2)}}
    whole = {
        "trained": {"model_state": {f"sam.{k}": t for k, t in state.items()}, "epoch": 3} | more,
        "exported": state,
        "with a decoder of instances": state | more,
    }[form]
    torch.save(whole, tmp_path / "x.pt")
    out, base = tmp_path / "x.safetensors", tmp_path / "base.safetensors"
    words = ("--model", "tiny", "--save-base", base, "--out", out)
    answer = samtune("import", tmp_path / "x.pt", "--from", "micro_sam", *words)
    assert answer.code == 0, answer.err
    loaded = st.load(out, base=base)
    assert loaded.trainable() == 0
    with torch.no_grad():
        assert torch.equal(outputs(loaded), sam(tiny.pixels(), tiny.boxes([0, 1])).logits)


def test_the_header_names_where_it_came_from(bring):
    _, out = bring(layout("ts_sam").released, "ts_sam")
    header = read_header(out)
    assert header["imported"] == {"from": "ts_sam", "file": "foreign.pth"}
    assert header["input"] == {"size": [64, 64], "resize": "stretch"}
    assert json.dumps(header)


@pytest.mark.slow
@pytest.mark.parametrize("names", [dict, timm_names], ids=["official", "timm"])
def test_mobile_sam_is_a_base(samtune, tmp_path, monkeypatch, names):
    spec = TINY_T
    monkeypatch.setitem(SPECS, spec.name, spec)
    sam = from_state(spec, deterministic.fill(Sam(spec).state_dict()))
    state = dict(sam.state_dict()) | {"image_encoder.head.weight": torch.zeros(3, 32)}
    file = written(names(state), tmp_path / "mobile_sam.pt")
    out, base = tmp_path / "x.safetensors", tmp_path / "base.safetensors"
    words = ("--model", spec.name, "--save-base", base, "--out", out)
    answer = samtune("import", file, "--from", "mobile_sam", *words)
    assert answer.code == 0, answer.err
    loaded = st.load(out, base=base)
    assert loaded.trainable() == 0
    with torch.no_grad():
        expected = sam(tiny.pixels(), tiny.boxes([0, 1])).logits
    assert torch.equal(outputs(loaded), expected)


def test_without_antialiasing_floats_and_whole_pixels():
    image = np.random.default_rng(0).integers(0, 256, (40, 100, 3), dtype=np.uint8)
    policy = InputPolicy((64, 64), "stretch", False, True, True)
    pixels, geometry = fit(image, policy)
    floats = torch.tensor(image).permute(2, 0, 1)[None].float()
    assert torch.equal(pixels, F.interpolate(floats, (64, 64), mode="bilinear")[0])
    assert geometry.to_model(torch.tensor([[33.0, 21.0]])).tolist() == [[21.0, 34.0]]
    logits = torch.randn(1, 1, 32, 32)
    expected = F.interpolate(logits, (40, 100), mode="bilinear")
    assert torch.equal(geometry.masks_to_original(logits), expected)
    kept, padded = fit(image, InputPolicy((64, 64), antialias=False))
    assert kept.shape == (3, 64, 64) and padded.resized == (26, 64)
    assert not kept[:, 26:].any() and kept[:, 25].any()


def test_policies_of_older_headers():
    assert InputPolicy.of({"size": [48, 64], "resize": "stretch"}) == InputPolicy(
        (48, 64), "stretch"
    )
    policy = InputPolicy((8, 8), mean=(1.0, 2.0, 3.0), direct_masks=True)
    assert InputPolicy.of(json.loads(json.dumps(policy.differing()))) == policy


def test_evaluated_and_predicted_with_its_policy(bring, samtune, tiny_weights, pairs, tmp_path):
    answer, out = bring(layout("cat_sam_t").whole, "cat_sam_t")
    assert answer.code == 0, answer.err
    words = (f"base.weights={tiny_weights}", f"data.root={pairs}", "prompts.eval=box")
    evaluated = samtune("eval", out, *words, f"output={tmp_path / 'eval'}", "--json")
    assert evaluated.code == 0, evaluated.err
    assert 0 <= evaluated.json["tuned"]["iou"] <= 1
    box = ("--box", "5,5,40,30", words[0], "--json")
    predicted = samtune("predict", out, pairs / "images", "--out", tmp_path / "masks", *box)
    assert predicted.code == 0 and predicted.json["images"] == 8, predicted.err
