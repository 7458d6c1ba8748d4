"""Label Studio: exported backends, and the strokes that they answer.

label-studio-ml's own server asks them in benchmarks/exports/label_studio.py; here the class that
it calls stands on a base with the same methods.
"""

import json
import sys
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import tiny
from PIL import Image
from tuned_models import moved, save_picture

from samtune.data.layouts.label_studio import brushed
from samtune.errors import InputError
from samtune.exports.base import Ask
from samtune.exports.folders import load_program
from samtune.exports.formats.label_studio import regions_of
from samtune.exports.writing import export
from samtune.model.finetuned import FineTuned

INTERFACE = {
    "point": {"type": "KeyPointLabels", "to_name": ["image"], "labels": ["cat"], "inputs": []},
    "stroke": {
        "type": "BrushLabels",
        "to_name": ["photo"],
        "inputs": [{"type": "Image", "value": "url"}],
        "labels": ["cat", "Dog"],
    },
}


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    return save_picture(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def backend(picture, tmp_path_factory):
    """A model with prompts, its folder, and the findings of its export."""
    model = moved(FineTuned(tiny.base(), "lora", "tuned", prompts="box+point"))
    folder = tmp_path_factory.mktemp("backend") / "out"
    exported = export(model, folder, "label-studio", name="cats", check=picture, threshold=0.2)
    return model, folder, exported


def test_a_backend_is_a_folder_that_answers_as_the_model_does(backend):
    _, folder, exported = backend
    assert exported.files == (
        "README.md",
        "_wsgi.py",
        "brushes.py",
        "cats.safetensors",
        "check.png",
        "export.json",
        "labelling.xml",
        "model.py",
    )
    assert exported.findings.difference == 0
    assert exported.findings.consumer_iou == 1
    about = json.loads((folder / "export.json").read_text())
    assert {check["kind"] for check in about["checks"]} == {"box", "point"}
    interface = ElementTree.parse(folder / "labelling.xml").getroot()
    assert [tag.tag for tag in interface] == [
        "Image",
        "BrushLabels",
        "KeyPointLabels",
        "RectangleLabels",
    ]
    assert {tag.get("value") for tag in interface.iter("Label")} == {"cats"}


def test_strokes_follow_points_and_boxes_in_percent(backend, picture):
    model, folder, _ = backend
    program = load_program(folder / "brushes.py")
    control = program.Control.of(INTERFACE)
    assert (control.from_name, control.to_name, control.key) == ("stroke", "photo", "url")
    brushes = program.Brushes(base=model.sam)
    predictor = model.predictor(0.2)
    predictor.set_image(picture / "a.png")
    box, size = (20.0, 10.0, 70.0, 40.0), (50, 90)
    drawn = regions_of(Ask("point", box=box, point=(45.0, 20.0)), size, "dog")
    away = {"type": "keypointlabels", "is_positive": 0, "value": {"x": 10, "y": 10, "width": 1}}
    others = [
        {"type": "brushlabels", "value": {"format": "rle", "rle": [], "brushlabels": ["cat"]}},
        {"type": "relation", "from_id": "a", "to_id": "b"},
        {"type": "polygonlabels", "value": {"points": [[0, 0]], "polygonlabels": ["cat"]}},
    ]
    prediction = brushes.prediction(str(picture / "a.png"), control, [away, *others, *drawn])
    points = {"point_coords": [[9.0, 5.0], [45.0, 20.0]], "point_labels": [0, 1]}
    masks, scores, _ = predictor.predict(**points, box=box, multimask_output=False)
    (stroke,) = prediction["result"]
    assert np.array_equal(brushed(stroke["value"]["rle"], size), masks[0])
    assert stroke["value"]["brushlabels"] == ["Dog"]  # as the interface writes it
    assert (stroke["original_width"], stroke["original_height"]) == (90, 50)
    assert stroke["score"] == pytest.approx(float(np.clip(scores[0], 0, 1)))
    assert prediction["model_version"].startswith("cats-")
    assert brushes.prediction(str(picture / "a.png"), control) is None
    assert len(brushes._predictors) == 1
    (turned,) = regions_of(Ask("box", box=(30.0, 10.0, 70.0, 20.0)), size, "dog")
    turned["value"]["rotation"] = 90  # about its left top corner
    assert program.prompt_of([turned], size)["box"] == pytest.approx([20, 10, 30, 50])


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (300, 400)])
def test_strokes_hold_every_mask(backend, size):
    run_lengths = load_program(backend[1] / "brushes.py").run_lengths
    noise = np.random.default_rng(0).random(size) > 0.5
    for mask in (noise, np.ones(size, bool), np.zeros(size, bool)):
        assert np.array_equal(brushed(run_lengths(mask), size), mask)


@pytest.fixture
def server(monkeypatch):
    """A module in the place of label_studio_ml, whose base does what a model's constructor does."""

    class Base:
        def __init__(self, interface=INTERFACE):
            self.parsed_label_config, self.entries = interface, {}
            self.setup()

        def set(self, key, value):
            self.entries[key] = value

        def get_local_path(self, url, task_id=None):
            assert task_id == 7
            return url

    module = SimpleNamespace(LabelStudioMLBase=Base)
    monkeypatch.setitem(sys.modules, "label_studio_ml", SimpleNamespace(model=module))
    monkeypatch.setitem(sys.modules, "label_studio_ml.model", module)

    def start(folder, base):
        brushes = load_program(folder / "brushes.py")
        monkeypatch.setitem(sys.modules, "brushes", brushes)
        program = load_program(folder / "model.py")
        monkeypatch.setattr(brushes, "Brushes", lambda of=brushes.Brushes: of(base))
        monkeypatch.setattr(program, "Brushes", brushes.Brushes)
        return program.TunedSam

    return start


def test_the_class_of_a_backend_answers_each_task(backend, picture, server):
    model, folder, _ = backend
    tuned = server(folder, model.sam)()
    assert tuned.entries["model_version"].startswith("cats-")
    tasks = [{"id": 7, "data": {"url": str(picture / "a.png")}}]
    assert tuned.predict(tasks) == []
    assert tuned.predict(tasks, context={"result": []}) == []
    drawn = regions_of(Ask("box", box=(20.0, 10.0, 70.0, 40.0)), (50, 90), "cat")
    (answer,) = tuned.predict(tasks, context={"result": drawn}, login="me")
    assert [stroke["type"] for stroke in answer["result"]] == ["brushlabels"]
    assert answer["model_version"] == tuned.entries["model_version"]
    with pytest.raises(ValueError, match="has no <BrushLabels> for an <Image>"):
        type(tuned)({}).predict(tasks)


def test_a_model_of_classes_strokes_what_the_interface_knows(picture, server, tmp_path):
    options = {"classes": 3}
    model = FineTuned(tiny.base(), "bitfit", "semantic", decoder_options=options, prompts="none")
    moved(model)
    names = ("ground", "CAT", "tree")
    words = {"classes": names, "check": picture, "background": 0}
    exported = export(model, tmp_path / "out", "label-studio", **words)
    assert exported.findings.consumer_iou == 1
    assert "smart" not in (tmp_path / "out/labelling.xml").read_text()
    image = Image.open(picture / "a.png")
    predictor = model.predictor()
    predictor.set_image(image)
    masks = predictor.predict(multimask_output=False)[0]
    tuned = server(tmp_path / "out", model.sam)()
    answers = tuned.predict([{"id": 7, "data": {"url": str(picture / "a.png")}}])
    strokes = [stroke for answer in answers for stroke in answer["result"]]
    assert len(strokes) == int(masks[1].any())
    for stroke in strokes:
        assert stroke["value"]["brushlabels"] == ["cat"]
        assert np.array_equal(brushed(stroke["value"]["rle"], (50, 90)), masks[1])


def test_a_background_that_is_no_class_is_refused(tmp_path):
    for decoder, options, has in (
        ("tuned", {}, "no classes"),
        ("semantic", {"classes": 3}, "0 to 2"),
    ):
        model = FineTuned(tiny.base(), "none", decoder, decoder_options=options)
        with pytest.raises(InputError, match=rf"background=3: the model has .*{has}"):
            export(model, tmp_path / "out", "label-studio", background=3)
