"""Labelling tools: the files that they load, what is refused, and answers as the tools ask."""

import ast
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
import yaml
from PIL import Image
from tuned_models import quickly_traced

from samtune.errors import InputError
from samtune.exports import tool_files
from samtune.exports.base import FORMATS, Job
from samtune.exports.checks import Ask
from samtune.exports.formats import labelme, x_anylabeling
from samtune.exports.writing import export
from samtune.geometry import InputPolicy
from samtune.model.finetuned import FineTuned

BOX, CLICK = Ask("box", box=(20.0, 10.0, 90.0, 70.0)), Ask("point", point=(120.0, 200.0))


@pytest.fixture(scope="module")
def models():
    """One base, asked with prompts, as the ways of resizing need it."""
    sam = tiny.base()
    ways = {
        "longest": InputPolicy((64, 64)),
        "stretch": InputPolicy((64, 96), "stretch"),
        "floats": InputPolicy((64, 64), antialias=False),
        "oblong": InputPolicy((64, 96)),
    }
    return {
        key: FineTuned(sam, "none", "frozen", prompts="box", input=policy).eval()
        for key, policy in ways.items()
    }


def job(model, name, **options):
    return Job(model, "polyps", options=vars(FORMATS.config(name, options)))


@pytest.fixture
def graphs(monkeypatch):
    """The modules that would be traced, by the files' names; nothing is traced."""
    traced = {}

    def keep(path, part, metadata):
        traced[path.name] = part.module, part.inputs, part.outputs
        path.touch()

    monkeypatch.setattr(tool_files, "write_onnx", keep)
    monkeypatch.setattr(x_anylabeling, "write_onnx", keep)
    return traced


class Traced:
    """A module in place of its file."""

    def __init__(self, module):
        self.module = module

    @torch.no_grad()
    def __call__(self, *arrays):
        kinds = {np.uint8: np.uint8}
        tensors = [torch.tensor(np.asarray(a, kinds.get(a.dtype.type, np.float32))) for a in arrays]
        answers = self.module(*tensors)
        answers = answers if isinstance(answers, tuple) else (answers,)
        return [each.numpy() for each in answers]


YAML = {
    "anylabeling": ("anylabeling", "longest", {}, ("segment_anything", {"max_height": 682})),
    "fits": ("x-anylabeling", "longest", {}, ("edge_sam", {"target_length": 64})),
    "oblong": ("x-anylabeling", "oblong", {}, ("edge_sam", {"target_length": 96})),
    "stretch": ("x-anylabeling", "stretch", {}, ("segment_anything_2", {})),
    "floats": ("x-anylabeling", "floats", {}, ("segment_anything", {"input_size": 1024})),
    "canvas": (
        "x-anylabeling",
        "stretch",
        {"type": "segment_anything"},
        ("segment_anything", {"max_width": 1024}),
    ),
    "larger": (
        "x-anylabeling",
        "longest",
        {"target_length": 128},
        ("edge_sam", {"target_length": 128}),
    ),
}


@pytest.mark.parametrize("name, way, options, expected", YAML.values(), ids=YAML.keys())
def test_the_yaml_names_the_type_that_fits_the_model(
    name, way, options, expected, models, graphs, tmp_path
):
    one = job(models[way], name, **options)
    FORMATS[name]().check(one)
    FORMATS[name]().write(one, tmp_path)
    about = yaml.safe_load((tmp_path / "polyps.yaml").read_text("utf-8"))
    kind, keys = expected
    assert about["type"] == kind and about.items() >= keys.items()
    assert about["name"] == "polyps" and about["display_name"] == "polyps (none, tiny)"
    for part in ("encoder", "decoder"):
        assert (tmp_path / about[f"{part}_model_path"]).is_file()


def test_a_hint_names_what_makes_the_pixels_alike(models):
    for name, way, options, hint in (
        ("anylabeling", "longest", {}, "--format labelme"),
        ("samexporter", "longest", {}, "tuned at input.size=1024"),
        ("x-anylabeling", "longest", {}, "give it smaller images"),
        ("x-anylabeling", "longest", {"target_length": 128}, "leave format.target_length out"),
        ("x-anylabeling", "stretch", {}, "rounds shrunk pixels once"),
        ("labelme", "longest", {}, ""),
    ):
        assert hint in FORMATS[name]().advice(job(models[way], name, **options))


def test_files_have_the_names_of_inputs_and_outputs_that_tools_read(models, graphs, tmp_path):
    for name in ("labelme", "samexporter"):
        FORMATS[name]().write(job(models["longest"], name), tmp_path)
        encoder, decoder = (graphs[f"polyps.{part}.onnx"] for part in ("encoder", "decoder"))
        assert list(decoder[1]) == [
            "image_embeddings",
            "point_coords",
            "point_labels",
            "mask_input",
            "has_mask_input",
            "orig_im_size",
        ]
        assert decoder[1]["mask_input"].shape[1:] == (1, 256, 256)
        if name == "labelme":
            assert list(encoder[1]) == ["x"] and encoder[1]["x"].shape == (1, 3, 64, 64)
        else:  # whose runner enlarges an output low_res_masks as if the frame were 1024
            assert encoder[1]["input_image"].ndim == 3 and "low_res_masks" not in decoder[2]
    script = (tmp_path / labelme.SCRIPT).read_text("utf-8")
    assert 'NAME = "polyps"' in script and ast.parse(script)


@pytest.mark.parametrize(
    "name, way, options",
    [
        ("anylabeling", "longest", {}),
        ("anylabeling", "stretch", {}),
        ("x-anylabeling", "oblong", {"target_length": 128}),
        ("x-anylabeling", "stretch", {}),
        ("labelme", "longest", {}),
        ("samexporter", "floats", {}),
    ],
)
def test_asked_in_the_tools_way_the_mask_is_that_of_the_model(
    name, way, options, models, graphs, tmp_path, monkeypatch
):
    """A smooth picture, which all ways of resizing show alike."""
    monkeypatch.setattr(tool_files, "OnnxModel", lambda path: Traced(graphs[path.name][0]))
    one = job(models[way], name, **options)
    FORMATS[name]().write(one, tmp_path)
    answers = FORMATS[name]().answers(one, tmp_path)
    for size in ((480, 640), (640, 240)):
        y, x = np.mgrid[: size[0], : size[1]]
        waves = [128 + 100 * np.sin(x / 95 + y / 115 + k) for k in range(3)]
        image = np.stack(waves, -1).astype(np.uint8)
        fitted = tuple(v * size[1] / 128 for v in BOX.box)
        for ask in (replace(BOX, box=fitted), CLICK):
            same, tools = answers.same_pixels(image, ask), answers.as_consumer(image, ask)
            assert same.shape == tools.shape == (1, *size)
            apart = np.abs(same - tools).mean() / same.std()

            assert apart < 0.15, (size, ask.kind)


REFUSED = {
    "a model without prompts": (
        dict(prompts="none"),
        dict(format="anylabeling"),
        "format='anylabeling': AnyLabeling asks with points and boxes, and this model takes no",
    ),
    "padding in a stretched frame": (
        {},
        dict(format="x-anylabeling", type="segment_anything_2"),
        "type=segment_anything_2: X-AnyLabeling stretches .*leave it out for edge_sam",
    ),
    "bytes for floats": (
        dict(input=InputPolicy((64, 64), antialias=False)),
        dict(format="x-anylabeling", type="edge_sam"),
        r"type=edge_sam: .* choose type=segment_anything",
    ),
    "another type": ({}, dict(format="x-anylabeling", type="sam_hq"), "type=sam_hq: must"),
    "a length less than the frame": (
        {},
        dict(format="x-anylabeling", target_length=32),
        r"target_length=32: must be at least 64",
    ),
    "a length that nothing reads": (
        {},
        dict(format="x-anylabeling", type="segment_anything", target_length=64),
        "target_length=64: X-AnyLabeling has none with the type segment_anything",
    ),
    "letters that the tool refuses": (
        {},
        dict(format="x-anylabeling", name="pölyps"),
        "name='pölyps': X-AnyLabeling takes the letters a to z",
    ),
    "an oblong frame": (
        dict(input=InputPolicy((64, 96))),
        dict(format="labelme"),
        "in a frame of 64 x 96, and labelme knows squares alone",
    ),
    "spline": (
        dict(input=InputPolicy((64, 64), "spline")),
        dict(format="samexporter"),
        r"{'resize': 'spline'}: no traced program",
    ),
    "half precision": ({}, dict(format="labelme", precision="fp16"), "labelme has fp32, int8"),
}


@pytest.mark.parametrize("model, words, line", REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_fit_is_refused_and_leaves_nothing(model, words, line, tmp_path):
    with pytest.raises(InputError, match=line):
        export(FineTuned(tiny.base(), **{"prompts": "box", **model}), tmp_path / "out", **words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.usefixtures("operators_read_once")
@pytest.mark.parametrize(
    "name, policy",
    [
        ("anylabeling", InputPolicy((64, 96), "stretch", channels="bgr", mean=(90.0, 80.0, 70.0))),
        ("x-anylabeling", InputPolicy((64, 64))),
        ("x-anylabeling", InputPolicy((64, 96), "stretch")),
    ],
)
def test_exported_files_answer_as_the_model_does(name, policy, tmp_path):
    pixels = tiny.pixels(1, (50, 90))[0].permute(1, 2, 0).byte().numpy()
    (tmp_path / "in").mkdir()
    Image.fromarray(pixels).save(tmp_path / "in/a.png")
    model = FineTuned(quickly_traced(), "none", "frozen", prompts="box", input=policy)
    exported = export(model, tmp_path / "out", format=name, threshold=0.5, check=tmp_path / "in")
    assert exported.findings.difference < 1e-3
    assert {check.kind for check in exported.findings.checks} == {"box", "point"}
