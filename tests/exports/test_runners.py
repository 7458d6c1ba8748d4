"""The programs of docs/export/onnx.md, run on a file that was exported here."""

import os
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image
from tuned_models import moved, save_picture

from samtune.exports.writing import export
from samtune.model.finetuned import FineTuned

ROOT = Path(__file__).parents[2]
WEB = Path(os.environ.get("ONNXRUNTIME_WEB") or ROOT / "node_modules/onnxruntime-web/dist")


def benchmark():
    spec = spec_from_file_location("browser", ROOT / "benchmarks/exports/browser/run.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model without prompts, and a folder with its file and a photograph."""
    pictures = save_picture(tmp_path_factory.mktemp("pictures"))
    folder = save_picture(tmp_path_factory.mktemp("runner"))
    model = moved(FineTuned(tiny.base(tiny.SHALLOW), "lora", "tuned", prompts="none"))
    export(model, folder / "polyps-onnx", name="polyps", check=pictures)
    return model, folder


def program(page: str, file: str) -> str:
    """The program of a page that opens a file."""
    blocks = [part.split("```")[0] for part in page.split("```python\n")[1:]]
    (one,) = (block for block in blocks if file in block)
    return one


@pytest.mark.slow
def test_the_documented_program_gives_the_models_mask(exported, monkeypatch):
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
    assert names["logits"].shape == logits.shape == (1, 110, 70)
    assert np.abs(names["logits"] - logits).max() < 1e-3
    assert names["mask"].any()


@pytest.mark.slow
@pytest.mark.skipif(not WEB.is_dir(), reason="needs npm install onnxruntime-web")
@pytest.mark.skipif(benchmark().browser() is None, reason="needs chromium")
def test_the_documented_script_gives_the_models_mask_in_a_browser(exported):
    model, folder = exported
    image = np.array(Image.open(folder / "a.png").convert("RGB"))
    onnx = folder / "polyps-onnx/polyps.onnx"
    of_frame = np.ascontiguousarray(image[:, :64])  # it is not resized
    rows = benchmark().compare(model, [image, of_frame], onnx, WEB)
    assert [row["resized by"] for row in rows] == ["samtune", "canvas"] * 2
    for row in (rows[0], *rows[2:]):
        assert row["difference"] < 1e-3
        assert row["iou"] > 0.999
