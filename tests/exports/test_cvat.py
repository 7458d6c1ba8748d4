"""CVAT: exported functions in cvat-cli's own loader and in the drivers of its agents."""

import base64
import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import yaml
from PIL import Image
from tuned_models import moved, save_picture

import samtune
from samtune.exports.folders import load_program
from samtune.exports.writing import export
from samtune.model.checkpoint import read_header, save
from samtune.model.finetuned import FineTuned

cvat = pytest.importorskip("cvat_sdk.auto_annotation", reason="needs samtune[cvat]")
common = pytest.importorskip("cvat_cli._internal.common", reason="needs cvat-cli")


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    return save_picture(tmp_path_factory.mktemp("pictures"))


def load(folder, model):
    """The function as cvat-cli loads it; the tiny base has no file."""
    return common.FunctionLoader(None, folder / "cvat_function.py", {"base": model.sam}).load()


def in_agent(driver_class, function, image):
    """An agent's driver that reads its image from memory and works in this process."""
    from cvat_cli._internal.agent_driver import set_worker_current_function

    class Driver(driver_class):
        def _get_sample_from_ar_params(self, params):
            labels = [
                SimpleNamespace(id=10 + i, name=name, type="any", attributes=[], sublabels=[])
                for i, name in enumerate(("tumour", "vessel"))
            ]
            return SimpleNamespace(frame_name="a.png", frame_index=3), labels

        def _load_image_for_ar(self, sample, params):
            return image

    executor = SimpleNamespace(submit=lambda job, *args: job(*args), result=lambda result: result)
    set_worker_current_function(function)
    client = SimpleNamespace(logger=logging.getLogger("cvat"))
    driver = Driver(client, executor, function.spec)
    driver.init_worker(None)
    return driver


def interact(driver, **prompts):
    """What an agent answers to clicks in the browser."""
    request = {"type": "interact", "task": 1, "frame": 3, "pos_points": [], "neg_points": []}
    return driver.calculate_result_for_ar({**request, "obj_bbox": [], **prompts}, None)["shapes"]


def test_agents_answer_clicks_with_the_models_own_mask(picture, tmp_path):
    from cvat_cli._internal.agent_driver_interaction import AgentInteractionFunctionDriver
    from cvat_sdk.masks import decode_mask

    model = moved(FineTuned(tiny.base(), "lora", "tuned", prompts="box+point"))
    exported = export(model, tmp_path / "out", "cvat", name="polyps", check=picture, threshold=0.2)
    assert exported.files == (
        "README.md",
        "check.png",
        "cvat_function.py",
        "export.json",
        "polyps.safetensors",
    )
    assert exported.findings.difference == 0
    assert exported.findings.consumer_iou == 1
    about = json.loads((tmp_path / "out/export.json").read_text())
    assert {check["kind"] for check in about["checks"]} == {"box", "point"}

    image = Image.open(picture / "a.png")
    driver = in_agent(AgentInteractionFunctionDriver, load(tmp_path / "out", model), image)
    fields = driver.get_remote_function_fields(driver._function_spec)
    assert fields == {"min_pos_points": 0, "min_neg_points": 0, "startswith_box_optional": True}

    predictor = model.predictor(0.2)
    predictor.set_image(image)
    box, clicks = [[20.0, 10.0], [70.0, 40.0]], {"pos_points": [[40, 20]], "neg_points": [[5, 5]]}
    asked = predictor.predict([[40, 20], [5, 5]], [1, 0], multimask_output=False)
    for prompts, (mask, score, _) in (
        ({"obj_bbox": box}, predictor.predict(box=np.ravel(box), multimask_output=False)),
        (clicks, asked),
    ):
        (shape,) = interact(driver, **prompts)
        assert shape["type"] == "mask"
        decoded = decode_mask(shape["points"], image_width=90, image_height=50)
        assert np.array_equal(decoded, mask[0])
        (confidence,) = shape["attributes"]
        assert confidence.spec_id == 0
        assert float(confidence.value) == pytest.approx(np.clip(score[0], 0, 1), abs=1e-4)
    assert interact(driver) == []


@pytest.mark.parametrize(
    ("prompts", "fields"),
    [
        ("box", {"min_pos_points": 0, "min_neg_points": 0, "startswith_box": True}),
        ("3_points", {"min_pos_points": 1, "min_neg_points": 0}),
    ],
)
def test_agents_ask_for_the_prompts_of_the_training(prompts, fields, picture, tmp_path):
    from cvat_cli._internal.agent_driver_interaction import AgentInteractionFunctionDriver

    model = FineTuned(tiny.base(), "bitfit", prompts=prompts)
    export(model, tmp_path / "out", "cvat", check=picture)
    spec = load(tmp_path / "out", model).spec
    assert AgentInteractionFunctionDriver.get_remote_function_fields(spec) == fields


def class_model():
    """Of three classes, the first of which is the background."""
    options = {"classes": 3}
    model = FineTuned(tiny.base(), "bitfit", "semantic", decoder_options=options, prompts="none")
    return moved(model)


def test_agents_get_the_classes_of_an_image_under_their_names(picture, tmp_path):
    from cvat_cli._internal.agent_driver_detection import AgentDetectionFunctionDriver
    from cvat_sdk.masks import decode_mask

    model = class_model()
    names = ("background", "tumour", "vessel")
    run = save(model, tmp_path / "run.safetensors", config={"data": {"background": 0}})
    exported = export(model, tmp_path / "out", "cvat", classes=names, checkpoint=run, check=picture)
    assert exported.findings.difference == 0
    assert exported.findings.consumer_iou == 1
    header = read_header(tmp_path / "out/bitfit-tiny.safetensors")
    assert "config" not in header  # which would name somebody's folders

    image = Image.open(picture / "a.png")
    driver = in_agent(AgentDetectionFunctionDriver, load(tmp_path / "out", model), image)
    fields = driver.get_remote_function_fields(driver._function_spec)
    assert [label["name"] for label in fields["labels_v2"]] == ["tumour", "vessel"]

    predictor = model.predictor()
    predictor.set_image(image)
    masks = predictor.predict(multimask_output=False)[0]
    request = {"type": "annotate_frame", "threshold": None, "conv_mask_to_poly": False}
    request["mapping"] = {n: {"name": n, "attributes": {}, "sublabels": {}} for n in names[1:]}
    shapes = driver.calculate_result_for_ar(request, None)["annotations"].shapes
    seen = {shape.label_id: shape for shape in shapes}
    assert set(seen) == {10 + i for i in (0, 1) if masks[1 + i].any()} != set()
    for label, shape in seen.items():
        assert shape.frame == 3
        decoded = decode_mask(shape.points, image_width=90, image_height=50)
        assert np.array_equal(decoded, masks[label - 9])

    wishes = {**request, "conv_mask_to_poly": True}
    shapes = driver.calculate_result_for_ar(wishes, None)["annotations"].shapes
    assert {shape.type.value for shape in shapes} == {"polygon"}


def in_nuclio(folder, sam, monkeypatch):
    """The handler of a folder as nuclio calls it: JSON in, JSON out."""
    program = load_program(folder / "main.py")
    load = samtune.load
    monkeypatch.setattr(samtune, "load", lambda path, base, device: load(path, sam, device=device))
    logger = SimpleNamespace(info=lambda text: None)
    context = SimpleNamespace(user_data=SimpleNamespace(), logger=logger, Response=SimpleNamespace)
    program.init_context(context)

    def ask(body):
        answer = program.handler(context, SimpleNamespace(body=json.dumps(body).encode()))
        assert answer.status_code == 200 and answer.content_type == "application/json"
        return json.loads(answer.body)

    return ask


def test_nuclio_answers_requests_with_the_models_own_masks(picture, tmp_path, monkeypatch):
    prompted, classes = FineTuned(tiny.base(), "lora", prompts="box+point"), class_model()
    names = ("background", "tumour", "vessel")
    out, other, how = tmp_path / "out", tmp_path / "classes", {"check": picture, "nuclio": True}
    export(prompted, out, "cvat", name="My_polyps.2", **how)
    export(classes, other, "cvat", classes=names, background=0, **how)
    about = yaml.safe_load((out / "function.yaml").read_text())
    assert about["metadata"]["name"] == "samtune-my-polyps-2"
    assert about["metadata"]["annotations"].items() >= {
        "type": "interactor",
        "min_pos_points": 1,
        "min_neg_points": 0,
        "startswith_box_optional": True,
    }.items()  # fmt: skip
    assert about["spec"]["handler"] == "main:handler"
    spec = yaml.safe_load((other / "function.yaml").read_text())["metadata"]["annotations"]["spec"]
    assert [row["name"] for row in json.loads(spec)] == ["tumour", "vessel"]

    image = base64.b64encode((picture / "a.png").read_bytes()).decode()
    predictor = prompted.predictor()
    predictor.set_image(picture / "a.png")
    with monkeypatch.context() as patch:
        ask = in_nuclio(out, prompted.sam, patch)
        clicks = {"pos_points": [[40, 20]], "neg_points": [[5, 5]], "obj_bbox": []}
        for body, prompt in (
            (clicks, {"point_coords": [[40, 20], [5, 5]], "point_labels": [1, 0]}),
            ({"obj_bbox": [[20, 10], [70, 40]]}, {"box": [20, 10, 70, 40]}),
        ):
            mask = predictor.predict(**prompt, multimask_output=False)[0][0]
            assert np.array_equal(np.array(ask({"image": image, **body})["mask"], bool), mask)
        assert not np.any(ask({"image": image})["mask"])

    predictor = classes.predictor()
    predictor.set_image(picture / "a.png")
    masks = predictor.predict(multimask_output=False)[0]
    shapes = in_nuclio(other, classes.sam, monkeypatch)({"image": image, "threshold": 0.5})
    assert {s["label"] for s in shapes} == {names[i] for i in (1, 2) if masks[i].any()} != set()
    for shape in shapes:
        *flat, left, top, right, bottom = shape["mask"]
        mask = np.zeros((50, 90), bool)
        size = bottom - top + 1, right - left + 1
        mask[top : bottom + 1, left : right + 1] = np.reshape(flat, size)
        assert np.array_equal(mask, masks[names.index(shape["label"])])
        assert shape["type"] == "mask" and 0 <= float(shape["confidence"]) <= 1
