"""Files of earlier versions are read as they were meant: settings, checkpoints, runs, recipes.

They were written by those versions; `tests/samples/README.md` says how.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from plugins import fresh_process, install

from samtune.assets import demo_data
from samtune.data.config import DataConfig
from samtune.errors import InputError
from samtune.model.checkpoint import load, read_header
from samtune.report.terminal import Display
from samtune.runs.config import resolve
from samtune.runs.jobs import evaluate_run, train
from samtune.runs.trees import leaves
from samtune.runs.words import from_words, recipes
from samtune.training.schedule import FitConfig
from samtune.training.state import has_state, mend_state

SAMPLES = Path(__file__).parents[1] / "samples"
CONFIGS = sorted((SAMPLES / "configs").glob("*.yaml"))
CHECKPOINTS = sorted((SAMPLES / "checkpoints").glob("*.safetensors"))
RECIPES = json.loads((SAMPLES / "recipes.json").read_text("utf-8"))


FORMER = {
    f"{schema.section}.{old}": f"{schema.section}.{new}"
    for schema in (DataConfig, FitConfig)
    for old, new in schema.former_names.items()
}
"""The names of settings that have another one now."""


def changed(earlier, now):
    """The settings of an earlier version that mean something else now, with both values."""
    then, now = ({FORMER.get(k, k): v for k, v in leaves(tree).items()} for tree in (earlier, now))
    return {key: (value, now.get(key)) for key, value in then.items() if now.get(key) != value}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_configuration_file_keeps_its_meaning(path):
    tree = yaml.safe_load(path.read_text("utf-8"))
    assert changed(tree, from_words([str(path)]).tree()) == {}


def test_defaults_and_recipes_keep_their_meaning():
    plain = RECIPES["defaults"]
    # of recipes and of older runs they are what they were
    now = {
        "input.tiles": ("whole", "auto"),
        "train.lr": (0.001, 0.0003),
        "train.precision": ("fp32", "auto"),
        "prompts.eval": ("box", "auto"),
        "data.workers": (0, "auto"),
    }
    assert changed(plain, resolve([]).tree()) == now
    assert set(RECIPES["recipes"]) <= set(recipes())
    # adapters and decoders have options of their own, which the file states in full
    # and which processes load the data changes no number
    others = ("adapter.", "decoder.", "data.workers")
    shared = {k: v for k, v in leaves(plain).items() if not k.startswith(others)}
    shared["data.workers"] = resolve([]).data.workers
    for name, differs in RECIPES["recipes"].items():
        now = from_words([name]).tree()
        prompts = now["prompts"]
        if name == "demo":  # it counts nuclei besides
            prompts["eval"] = "none" if prompts["eval"] == "none,instances" else prompts["eval"]
        if prompts["eval"] == "auto":  # what is trained
            prompts["eval"] = prompts["train"]
        method = {part: now.pop(part) for part in ("adapter", "decoder")}
        assert changed({**shared, **differs}, {**now, **method}) == {}, name
        assert {"adapter.name": "lora", **differs}["adapter.name"] == method["adapter"]["name"]


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda path: path.stem)
def test_a_checkpoint_keeps_its_settings_and_its_input(path):
    header, model = read_header(path), load(path)
    assert changed(header["config"], resolve([header["config"]]).tree()) == {}
    stated = json.loads(json.dumps(model.input.differing()))
    assert stated == header["input"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The run folder, beside its data set under the name that its settings give."""
    shutil.copytree(SAMPLES / "run", tmp_path / "run")
    (tmp_path / "nuclei").symlink_to(demo_data())
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


@pytest.mark.slow
def test_a_run_folder_is_evaluated_to_its_numbers(run):
    summary = json.loads((run / "summary.json").read_text("utf-8"))
    words = ["device=cpu", "input.antialias=false", "output=again"]
    again = evaluate_run(str(run / "best.safetensors"), words, Display(json=True))
    for when in ("zero_shot", "tuned"):
        assert again[when]["iou"] == pytest.approx(summary[when]["iou"], abs=1e-4)


@pytest.mark.slow
def test_a_run_folder_is_resumed(run):
    words = [f"resume={run}", "train.max_steps=3", "train.cosine=epoch", "device=cpu"]
    config = from_words(words)
    tree = yaml.safe_load((run / "config.yaml").read_text("utf-8"))
    told = {"resume": str(run), "output": None}
    assert set(changed({**tree, **told}, config.tree())) <= {"train.max_steps", "output"}
    assert train(config, Display(json=True))["steps"] == 3


def answers(model):
    """What a model says of an image that is drawn here: every 101st logit, and its own estimate."""
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(128.0), indexing="ij")
    disc = ((y - 48) ** 2 + (x - 64) ** 2 < 30**2) * 120.0
    image = (disc + 60 + x / 4).clamp(0, 255).byte().numpy()
    predictor = model.predictor()
    predictor.set_image(np.stack([image] * 3, -1))
    _, iou, logits = predictor.predict(box=np.array([30, 14, 98, 82]), multimask_output=False)
    return {"logits": logits.ravel()[::101].tolist(), "iou": iou.ravel().tolist()}


ROUNDING = {"logits": 2e-3, "iou": 2e-4}
"""How far processors differ, as docs/versions.md says."""


def test_models_of_version_0_2_answer_as_they_did(tmp_path):
    folder = SAMPLES / "0.2"
    expected = json.loads((folder / "answers.json").read_text("utf-8"))
    paths = {name: folder / f"{name}.safetensors" for name in ("plugin", "strengths")}
    paths["run"] = folder / "run" / "best.safetensors"
    with fresh_process(install(tmp_path / "site")):
        for name, path in paths.items():
            now = answers(load(path))
            for part, values in expected[name].items():
                assert now[part] == pytest.approx(values, abs=ROUNDING[part]), (name, part)
    header = read_header(paths["run"])
    assert changed(header["config"], resolve([header["config"]]).tree()) == {}
    strength = load(paths["strengths"]).strength
    kinds = {"none": 1, "point": 0.75, "box": 0.5, "mask": 0.25}
    assert float(strength) == 1 and {kind: strength.of(kind) for kind in kinds} == kinds
    with fresh_process(), pytest.raises(InputError, match="needs the package samtune-gain"):
        load(paths["plugin"])


def test_a_run_of_version_0_2_can_be_resumed(tmp_path, monkeypatch):
    shutil.copytree(SAMPLES / "0.2" / "run", tmp_path / "run")
    (tmp_path / "nuclei").symlink_to(demo_data())
    monkeypatch.chdir(tmp_path)
    config = from_words(["resume=run", "train.max_steps=3"])
    tree = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text("utf-8"))
    told = {"resume": "run", "output": None}
    assert set(changed({**tree, **told}, config.tree())) <= {"train.max_steps", "output"}
    assert has_state(tmp_path / "run" / "last") and not mend_state(tmp_path / "run" / "last")
    summary = train(from_words(["resume=run"]), Display(json=True))  # all of its steps are done
    assert summary["steps"] == 2
