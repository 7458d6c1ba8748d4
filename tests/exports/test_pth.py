"""pth: one official file."""

import json
from dataclasses import replace

import pytest
import tiny
import tiny_vit_golden
import torch
from tuned_models import moved, save_picture

from samtune.errors import InputError
from samtune.exports.writing import export
from samtune.geometry import InputPolicy
from samtune.model.finetuned import FineTuned
from samtune.model.strength import Strength
from samtune.sam.encoder import ENCODERS


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return save_picture(tmp_path_factory.mktemp("pictures"))


def test_the_file_has_the_official_names_and_answers_as_the_model(pictures, tmp_path):
    model = moved(FineTuned(tiny.base(), "lora", "tuned"))
    exported = export(model, tmp_path / "out", "pth", name="polyps", check=pictures)
    assert exported.files == ("check.png", "export.json", "polyps.pth")
    state = torch.load(tmp_path / "out/polyps.pth", weights_only=True)
    assert type(state) is dict and state.keys() == model.sam.state_dict().keys()
    about = json.loads((tmp_path / "out/export.json").read_text())
    assert about["model_type"] == "tiny" and about["largest_logit_difference"] < 1e-4
    assert about["mean_iou_as_consumer"] == about["mean_iou"] > 0.999
    assert exported.advice == ""


def test_a_model_of_tiles_is_exported_for_whole_images(pictures, tmp_path):
    policy = InputPolicy((64, 64), tiles="tiled")
    model = moved(FineTuned(tiny.base(), "lora", "tuned", input=policy, prompts="box"))
    model.strength = "none:1,box:0.5"  # one set of weights has one strength
    with pytest.raises(InputError, match=r"box:0\.5,mask:1: these files hold one"):
        export(model, tmp_path / "out", "pth", check=pictures)
    model.strength = Strength(0.25, {"none": 1, "point": 0, "box": 0.5})
    exported = export(model, tmp_path / "out", "pth", check=pictures)
    assert exported.summary()["strength"] == 0.5 and exported.note.startswith("strength 0.5: ")
    assert "answers none at 1, point at 0, mask at 0; strength=none takes" in exported.note
    assert model.strength.of("box") == 0.5
    assert exported.findings.difference < 1e-4 and model.tuned_input.tiles == "tiled"
    about = json.loads((tmp_path / "out/export.json").read_text())
    assert about["input"]["tiles"] == "tiled"
    assert about["strength"] == 0.5 and "strengths" not in about
    assert about["strengths_of_model"]["none"] == 1


def test_what_sams_own_predictor_sees_is_told(pictures, tmp_path):
    policy = InputPolicy((64, 96), "stretch")
    model = moved(FineTuned(tiny.base(), "bitfit", input=policy), by=0.2)
    exported = export(model, tmp_path / "out", "pth", check=pictures)
    findings = exported.findings
    assert findings.difference < 1e-4 and findings.consumer_iou < 0.999
    assert "tune at input.size=64 with input.resize=longest" in exported.summary()["advice"]


def test_ultralytics_tells_sizes_by_the_end_of_the_name(pictures, tmp_path):
    base = tiny.base(replace(tiny.TINY, name="vit_b"))
    settings = {"name": "polyps", "check": pictures, "ultralytics": True}
    exported = export(moved(FineTuned(base, "lora")), tmp_path / "out", "pth", **settings)
    assert "polyps_sam_b.pt" in exported.files
    with pytest.raises(InputError, match="Ultralytics has vit_b, vit_l, vit_h, vit_t alone"):
        export(FineTuned(tiny.base()), tmp_path / "other", "pth", ultralytics=True)


REFUSED = {
    "a threshold": (dict(), dict(threshold=0.5), "threshold=0.5: pth holds SAM's own weights"),
    "a method with a branch": (dict(adapter="adaptformer"), {}, "adaptformer.*keep the checkpoint"),
    "another decoder": (dict(decoder="hq"), {}, "decoder=hq: is not SAM's own mask decoder"),
}


@pytest.mark.parametrize("parts, words, line", REFUSED.values(), ids=REFUSED.keys())
def test_what_no_official_file_can_hold_is_refused(parts, words, line, pictures, tmp_path):
    with pytest.raises(InputError, match=line):
        export(FineTuned(tiny.base(), **parts), tmp_path / "out", "pth", check=pictures, **words)
    assert list(tmp_path.iterdir()) == []


def test_strict_readers_find_what_no_pass_reads(pictures, tmp_path):
    model = FineTuned(tiny_vit_golden.base(), "bitfit")
    export(model, tmp_path / "out", "pth", name="m", check=pictures)
    state = torch.load(tmp_path / "out/m.pth", weights_only=True)
    unused = ENCODERS["tiny_vit"].unused
    assert len(unused) == 4 and all(tuple(state[k].shape) == unused[k] for k in unused)
