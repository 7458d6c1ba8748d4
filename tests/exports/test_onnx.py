"""ONNX: one model with prompts and one without, as files beside the model.

The file without prompts is also run by the programs of docs/export/onnx.md.
"""

import json
import os
import shutil
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from tuned_models import moved, quickly_traced, save_picture

from samtune.decoders import DECODERS
from samtune.errors import InputError
from samtune.exports.graphs import DecoderGraph, EncoderGraph, pack, unpack
from samtune.exports.onnx_files import OnnxModel
from samtune.exports.writing import export
from samtune.geometry import InputPolicy
from samtune.model.finetuned import FineTuned

ROOT = Path(__file__).parents[2]
WEB = Path(os.environ.get("ONNXRUNTIME_WEB") or ROOT / "node_modules/onnxruntime-web/dist")


def browser_benchmark():
    spec = spec_from_file_location("browser", ROOT / "benchmarks/exports/browser/run.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    return save_picture(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def exported(picture, tmp_path_factory, operators_read_once):
    """A model of classes, and a folder with its file and a photograph."""
    folder = save_picture(tmp_path_factory.mktemp("runner"))
    parts = {"decoder_options": {"classes": 3}, "prompts": "none"}
    policy = InputPolicy((64, 64), channels="bgr", mean=(90.0, 80.0, 70.0))
    model = moved(FineTuned(quickly_traced(), "bitfit", "semantic", input=policy, **parts))
    export(model, folder / "polyps-onnx", name="polyps", check=picture)
    return model, folder


@pytest.mark.slow
@pytest.mark.usefixtures("operators_read_once")
def test_encoder_and_decoder_answer_as_the_model_does(picture, tmp_path):
    model = moved(FineTuned(tiny.base(tiny.SHALLOW), "lora", "hq", prompts="box"))
    exported = export(model, tmp_path / "out", name="polyps", threshold=0.5, check=picture)
    assert exported.files == (
        "check.png",
        "export.json",
        "polyps.decoder.onnx",
        "polyps.encoder.onnx",
    )
    about = json.loads((tmp_path / "out/export.json").read_text())
    assert about["largest_logit_difference"] == exported.findings.difference < 1e-3
    shapes = {tuple(check["shape"]) for check in about["checks"]}
    assert shapes == {(50, 90), (50, 36), (15, 90)}
    for file in (tmp_path / "out").glob("*.onnx"):
        assert b"site-packages" not in file.read_bytes(), "paths of the machine"
    assert {check["kind"] for check in about["checks"]} == {"box", "point", "mask", "none"}
    _check_several_prompts_at_once(model, tmp_path / "out")


def _check_several_prompts_at_once(model, folder):
    """Three prompts of one point each, which the trace had never seen."""
    encoder = OnnxModel(folder / "polyps.encoder.onnx")
    decoder = OnnxModel(folder / "polyps.decoder.onnx")
    image = torch.rand(40, 64, 3) * 255
    (embedding,) = encoder(image.numpy())
    graph = DecoderGraph(model, 0.5)
    inputs = (
        torch.rand(3, 1, 2) * 40,
        torch.ones(3, 1),
        torch.zeros(3, 1, *model.mask_size),
        torch.tensor([-1.0]),  # what labelme says for "no mask"
        torch.tensor([80.0, 128.0]),
    )
    with torch.no_grad():
        packed = EncoderGraph(model)(image)
        expected = graph(packed, *inputs)
    answers = decoder(embedding, *(each.numpy() for each in inputs))
    assert answers[0].shape == (3, 1, 80, 128)
    for answer, one in zip(answers, expected, strict=True):
        assert np.abs(answer - one.numpy()).max() < 1e-3


@pytest.mark.slow
def test_in_half_precision_it_is_the_same_file_rewritten(exported, picture, tmp_path, monkeypatch):
    model, folder = exported
    whole = folder / "polyps-onnx/polyps.onnx"
    write = "samtune.exports.formats.onnx.write_onnx"  # the same trace
    monkeypatch.setattr(write, lambda path, part, metadata: shutil.copy(whole, path))
    exported = export(model, tmp_path / "out", precision="fp16", check=picture)
    assert "bitfit-tiny.onnx" in exported.files
    assert 0 < exported.findings.difference < 0.5
    half = tmp_path / "out/bitfit-tiny.onnx"
    assert half.stat().st_size < whole.stat().st_size
    logits = OnnxModel(half)(np.zeros((64, 64, 3)), [30.0, 40.0])[0]
    assert logits.shape == (3, 30, 40)


def program(page: str, file: str) -> str:
    """The program of a page that opens a file."""
    blocks = [part.split("```")[0] for part in page.split("```python\n")[1:]]
    (one,) = (block for block in blocks if file in block)
    return one


@pytest.mark.slow
def test_the_documented_program_gives_the_models_masks(exported, monkeypatch):
    model, folder = exported
    image = Image.open(folder / "a.png").convert("RGB").resize((70, 110))
    image.save(folder / "photo.jpg")
    page = (ROOT / "docs/export/onnx.md").read_text("utf-8")
    names = {}
    monkeypatch.chdir(folder)
    exec(program(page, "polyps-onnx/polyps.onnx"), names)
    predictor = model.predictor()
    predictor.set_image("photo.jpg")
    logits, _, _ = predictor.predict(multimask_output=False, return_logits=True)
    assert names["logits"].shape == logits.shape == (3, 110, 70)
    assert np.abs(names["logits"] - logits).max() < 1e-3
    assert names["mask"].any()


@pytest.mark.slow
@pytest.mark.skipif(not WEB.is_dir(), reason="needs npm install onnxruntime-web")
@pytest.mark.skipif(browser_benchmark().browser() is None, reason="needs chromium")
def test_the_documented_script_gives_the_models_masks_in_a_browser(exported):
    model, folder = exported
    image = np.array(Image.open(folder / "a.png").convert("RGB"))
    onnx = folder / "polyps-onnx/polyps.onnx"
    of_frame = np.ascontiguousarray(image[:, :64])  # it is not resized
    rows = browser_benchmark().compare(model, [image, of_frame], onnx, WEB)
    assert [row["resized by"] for row in rows] == ["samtune", "canvas"] * 2
    for row in (rows[0], *rows[2:]):
        assert row["difference"] < 1e-3
        assert row["iou"] > 0.999


@pytest.mark.parametrize("decoder", [d for d in DECODERS if DECODERS[d].prompted])
def test_what_a_decoder_reads_goes_through_one_tensor(decoder):
    model = FineTuned(tiny.base(), "none", decoder)
    features = model.encode(tiny.pixels(1))
    back = unpack(model, pack(features))
    assert torch.equal(back.embedding, features.embedding)
    assert back.taps.keys() == features.taps.keys()
    assert all(torch.equal(back.taps[i], features.taps[i]) for i in back.taps)


REFUSED = {
    "another format": (dict(format="onx"), "format='onx': must be one of .*did you mean 'onnx'"),
    "another precision": (dict(precision="fp8"), "precision='fp8': the format onnx has fp32"),
    "no name": (dict(name="../x"), "name='../x': must be letters"),
    "no number": (dict(threshold=float("nan")), "threshold=nan"),
    "a setting that it lacks": (dict(opset=11), "opset: onnx does not know it"),
    "no images": (dict(check="nowhere"), "nowhere"),
}


@pytest.mark.parametrize("words, line", REFUSED.values(), ids=REFUSED.keys())
def test_wrong_requests_leave_nothing(words, line, tmp_path):
    model = FineTuned(tiny.base(), "lora")
    with pytest.raises(InputError, match=line):
        export(model, tmp_path / "out", **words)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "a.txt").write_text("mine")
    with pytest.raises(InputError, match="is there already; choose another folder"):
        export(FineTuned(tiny.base()), tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["a.txt"]


def test_an_input_rule_without_a_traced_form_is_refused(tmp_path):
    model = FineTuned(tiny.base(), input=InputPolicy((64, 64), "spline"))
    with pytest.raises(InputError, match=r"{'resize': 'spline'}: no traced program"):
        export(model, tmp_path / "out")


def test_files_that_answer_otherwise_are_not_kept(picture, tmp_path, monkeypatch):
    monkeypatch.setattr("samtune.exports.parts.traced_parts", lambda job: {})

    class Wrong:
        kinds = ("box",)

        def __init__(self, job, folder):
            pass

        def same_pixels(self, image, ask):
            return np.full((1, *image.shape[:2]), -5.0, np.float32)

        def as_consumer(self, image, ask):
            return None

    monkeypatch.setattr("samtune.exports.formats.onnx.OnnxAnswers", Wrong)
    with pytest.raises(InputError, match=r"logits differ by .* and at most 0\.001 is allowed"):
        export(FineTuned(tiny.base()), tmp_path / "out", check=picture)
    assert not (tmp_path / "out").exists()
