"""hf: a folder of transformers, which is the judge."""

import json

import pytest
import tiny
import tiny_vit_golden
import torch
from tuned_models import moved, save_picture

from samtune.cli.outward import used_by
from samtune.errors import InputError
from samtune.exports.formats.hub import about_with
from samtune.exports.writing import export
from samtune.geometry import InputPolicy
from samtune.model.finetuned import FineTuned
from samtune.sam.weights import load_sam

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return save_picture(tmp_path_factory.mktemp("pictures"))


def test_transformers_answers_as_the_model(pictures, tmp_path, tiny_registered):
    model = moved(FineTuned(tiny.base(), "lora", "tuned"))
    exported = export(model, tmp_path / "out", "hf", check=pictures)
    assert {"config.json", "model.safetensors", "preprocessor_config.json"} < set(exported.files)
    findings = exported.findings
    assert {check.kind for check in findings.checks} == {"box", "point", "mask", "none"}
    assert findings.difference < 1e-4 and findings.iou > 0.999
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["model_type"] == "sam" and config["architectures"] == ["SamModel"]
    again = load_sam("tiny", tmp_path / "out").state_dict()
    merged = model.merge().state_dict()
    assert all(torch.equal(again[key], merged[key]) for key in merged)


def test_another_square_and_other_constants_are_in_its_files(pictures, tmp_path):
    policy = InputPolicy((96, 96), mean=(90.0, 80.0, 70.0), std=(50.0, 60.0, 70.0))
    model = moved(FineTuned(tiny.base(), "bitfit", input=policy))
    findings = export(model, tmp_path / "out", "hf", check=pictures).findings
    assert findings.difference < 1e-4
    assert findings.consumer_iou > 0.95  # it rounds the shorter side down
    processor = transformers.SamProcessor.from_pretrained(tmp_path / "out").image_processor
    assert processor.size["longest_edge"] == 96
    assert processor.image_mean == pytest.approx([90 / 255, 80 / 255, 70 / 255])


REFUSED = {
    "another encoder": (tiny_vit_golden.base, {}, "has SAM with a plain ViT, and .* has another"),
    "a frame that is no square": (
        tiny.base,
        {"input": InputPolicy((64, 96))},
        "square frames, and the model was tuned at input=.'size': .64,96",
    ),
    "a method with a branch": (tiny.base, {"adapter": "adaptformer"}, "keep the checkpoint"),
}


@pytest.mark.parametrize("base, parts, line", REFUSED.values(), ids=REFUSED.keys())
def test_what_it_cannot_hold_is_refused(base, parts, line, pictures, tmp_path):
    with pytest.raises(InputError, match=line):
        export(FineTuned(base(), **parts), tmp_path / "out", "hf", check=pictures)
    assert list(tmp_path.iterdir()) == []


WITHOUT_EFFECT = {
    "hf": ({"name": "polyps"}, "name='polyps': SamModel.from_pretrained demands the names"),
    "peft": ({"threshold": 0.5}, "threshold=0.5: peft holds SAM's own weights"),
    "hub": ({"threshold": 0.5}, "threshold=0.5: the checkpoint holds none; .* samtune predict"),
    "onnx": ({"threshold": 0.5}, "threshold=0.5: each pixel gets the likeliest .* 3 classes"),
}


def test_options_without_effect_are_refused_by_every_format(tmp_path):
    for format, (options, line) in WITHOUT_EFFECT.items():
        decoder = {"decoder": "semantic", "decoder_options": {"classes": 3}}
        model = FineTuned(tiny.base(), **(decoder if format == "onnx" else {}))
        with pytest.raises(InputError, match=line):
            export(model, tmp_path / "out", format, **options)
    for word, format in {
        "data.root=x": "onnx",
        "data.class_names=a": "pth",
        "input.tiles=tiled": "onnx",
    }.items():
        assert not used_by(format)(word.partition("=")[0])
    assert used_by("cvat")("input.tiles") and used_by("hub")("data.class_names")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_for_the_hub_has_the_names_of_the_classes():
    about = about_with({"config": {"data": {"classes": 2}}, "summary": {}}, ["cell", "rest"])
    assert about["config"]["data"] == {"classes": 2, "class_names": ["cell", "rest"]}
    assert about["classes"] == ["cell", "rest"] and about_with({"a": 1}, ()) == {"a": 1}
