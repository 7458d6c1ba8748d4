"""The layer rule: which part of samtune may import which, and what importing it may cost."""

import ast
import json
import os
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from imports import LATE, SRC, imports_of, modules, part_of

from samtune.sam.encoder import ENCODERS

# part: the parts it imports, from what all stand on to the command line. Parts are the modules and
# packages directly under samtune; `errors` is open to all.
LAYERS = {
    "errors": "",
    "moved": "",
    "options": "",
    "registry": "options",
    "distributed": "",
    "interrupts": "distributed",
    "precision": "ops",
    "texts": "",
    "leftovers": "",
    "files": "leftovers texts",
    "folder_lock": "leftovers texts",
    "ops": "",
    "recipes": "",
    "assets": "",
    "geometry": "ops options registry",
    "prompts": "geometry options",
    "batch": "geometry prompts",
    "sam": "batch files geometry ops options precision prompts registry",
    "adapters": "files ops options registry sam",
    "decoders": "batch options prompts registry sam",
    "model": "adapters batch decoders files geometry leftovers options precision prompts registry"
    " sam texts",
    "foreign": "files geometry leftovers model sam",
    "data": "batch files geometry interrupts leftovers ops options prompts registry texts",
    "losses": "batch geometry options prompts registry",
    "metrics": "options registry",
    "report": "distributed files metrics options",
    "inference": "batch data decoders files folder_lock geometry interrupts model ops options"
    " precision prompts registry report sam texts",
    "exports": "adapters assets batch data decoders files folder_lock geometry inference model ops"
    " options prompts registry report sam",
    "evaluation": "batch data distributed geometry inference interrupts metrics model options"
    " precision prompts",
    "training": "batch data distributed evaluation files folder_lock inference interrupts losses"
    " metrics model options precision prompts registry",
    "published": "data geometry ops training",
    "runs": "adapters batch data decoders distributed evaluation files folder_lock geometry"
    " inference interrupts leftovers losses metrics model ops options precision prompts registry"
    " report sam texts training",
    "compare": "adapters data decoders files folder_lock interrupts metrics model options registry"
    " report runs sam texts training",
    "planning": "adapters batch data decoders distributed geometry losses model precision prompts"
    " report runs sam training",
    "doctor": "assets data model precision sam training",
    "cli": "adapters assets compare data decoders distributed doctor exports files foreign"
    " inference interrupts losses metrics model options planning registry report runs sam texts"
    " training",
    "__init__": "data evaluation exports geometry inference metrics model moved prompts registry"
    " sam training",
    "__main__": "cli",
}

HEAVY = {"accelerate", "cv2", "gradio", "jinja2", "kornia", "matplotlib", "onnx", "onnxruntime"}
HEAVY |= {"pycocotools", "scipy", "skimage", "tifffile", "torchmetrics", "torchvision"}
HEAVY |= {"transformers"}


def allowed_of(part: str) -> set[str]:
    """The parts that ``part`` may import, itself included."""
    return {*LAYERS[part].split(), part, "errors"}


@cache
def imports_in(text: str, module: str, is_package: bool, root: Path) -> list[tuple[str, int, bool]]:
    """The imports of a source, which several tests ask for."""
    return list(imports_of(ast.parse(text), module, is_package, root))


def violations(root: Path) -> list[str]:
    """Every import under ``root`` (the package's folder) that the table does not allow."""
    found = []
    for path, module, is_package in modules(root):
        part = part_of(module)
        if part not in LAYERS:
            found.append(f"{path}: {part} has no layer; give it a line in the table")
            continue
        for target, line, late in imports_in(path.read_text("utf-8"), module, is_package, root):
            goal = part_of(target)
            reasoned = late and f"{part} -> {goal}" in LATE
            if reasoned or goal in allowed_of(part):
                continue
            found.append(f"{path}:{line}: {part} must not import {goal} ({target})")
    return found


def test_nothing_points_back():
    assert list(SRC.rglob("*.py"))
    assert violations(SRC) == []


def test_the_table_has_no_circle():
    graph = {part: {p.split(".")[0] for p in allowed_of(part)} - {part} for part in LAYERS}
    assert set().union(*graph.values()) <= set(LAYERS)
    assert list(TopologicalSorter(graph).static_order())


def test_the_table_grants_nothing_that_no_import_uses():
    used: dict[str, set[str]] = {part: set() for part in LAYERS}
    for path, module, is_package in modules(SRC):
        found = imports_in(path.read_text("utf-8"), module, is_package, SRC)
        goals = {part_of(goal) for goal, _, _ in found}
        used[part_of(module)] |= goals
    idle = {part: set(LAYERS[part].split()) - used[part] for part in LAYERS}
    assert {part: goals for part, goals in idle.items() if goals} == {}


def test_every_row_has_a_module():
    parts = {part_of(module) for _, module, _ in modules(SRC)}
    folders = {path.name for path in SRC.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert set(LAYERS) == {*parts, *folders}


def test_mathematics_knows_no_training_settings_command_line_or_data():
    for part in ("ops", "sam", "adapters", "decoders", "model"):
        assert not allowed_of(part) & {"training", "runs", "cli", "data", "report", "__init__"}


def test_what_works_on_any_backbone_knows_the_module_of_none():
    encoders = {ENCODERS[kind].__module__ for kind in ENCODERS}
    for path, module, is_package in modules(SRC):
        if part_of(module) in ("adapters", "decoders", "model") or module == "samtune.sam.model":
            found = imports_in(path.read_text("utf-8"), module, is_package, SRC)
            goals = {goal for goal, _, _ in found}
            assert not goals & encoders, module


@pytest.mark.parametrize(
    ("file", "code", "complaint"),
    [
        ("sam/model.py", "from samtune.adapters import base\n", "sam must not import adapters"),
        ("sam/model.py", "from ..data.sources import find\n", "sam must not import data"),
        ("ops/resize.py", "def f():\n    import samtune.runs\n", "ops must not import runs"),
        ("data/sources.py", "from samtune import sam\n", "data must not import sam"),
        ("prompts.py", "from samtune import load_sam\n", "prompts must not import __init__"),
        ("metrics/a.py", "from samtune.data import sources\n", "metrics must not import data"),
        ("adapters/__init__.py", "from .. import runs\n", "adapters must not import runs"),
        ("helpers.py", "", "helpers has no layer"),
    ],
)
def test_the_rule_reports(tmp_path, file, code, complaint):
    for name in ("sam", "data", "ops", "adapters", "metrics", "runs"):
        (tmp_path / name).mkdir()
    (tmp_path / "data" / "sources.py").touch()
    (tmp_path / file).write_text(code)
    found = violations(tmp_path)
    assert len(found) == 1
    assert complaint in found[0]


def test_the_rule_lets_pass_what_points_down(tmp_path):
    for name in ("data", "adapters", "sam", "inference"):
        (tmp_path / name).mkdir()
    (tmp_path / "data" / "transforms.py").touch()
    (tmp_path / "inference" / "predictor.py").write_text(
        "import torch\nfrom samtune.data import transforms\nfrom samtune.data.transforms import x\n"
    )
    (tmp_path / "adapters" / "lora.py").write_text(
        "from samtune.errors import InputError\nfrom ..sam import edits\nfrom . import base\n"
    )
    assert violations(tmp_path) == []


@pytest.mark.parametrize("pair", LATE)
def test_a_reason_goes_with_what_it_excuses(pair, monkeypatch):
    monkeypatch.delitem(LATE, pair)
    part, _, goal = pair.partition(" -> ")
    assert any(f"{part} must not import {goal}" in found for found in violations(SRC))


def test_a_late_import_needs_a_reason_and_a_function(tmp_path, monkeypatch):
    module = tmp_path / "sam.py"
    monkeypatch.setitem(LATE, "sam -> inference", "convenience")
    module.write_text("def f():\n    from samtune.inference import P\n")
    assert violations(tmp_path) == []
    typed = "if TYPE_CHECKING:\n    from samtune.inference import P\n"
    module.write_text(typed)
    assert violations(tmp_path) == []
    for code in ("from samtune.inference import P\n", typed.replace("TYPE_CHECKING", "True")):
        module.write_text(code)
        assert len(violations(tmp_path)) == 1
    monkeypatch.delitem(LATE, "sam -> inference")
    module.write_text(typed)
    assert len(violations(tmp_path)) == 1


def loaded_by(*modules: str, path: Path) -> list[list[str]]:
    """The top-level packages in ``sys.modules`` after each of ``modules``, in one interpreter."""
    code = (
        "import importlib, json, sys\n"
        "seen = []\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    seen.append(sorted({m.split('.')[0] for m in sys.modules}))\n"
        "print(json.dumps(seen))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, *modules],
        env={**os.environ, "PYTHONPATH": str(path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def importable() -> list[str]:
    """The modules that must load without anything heavy: mathematics, engine and entry points."""
    light = ("geometry", "prompts", "batch", "errors", "files", "options", "registry", "ops")
    light += ("sam", "adapters", "decoders", "model", "losses", "data", "training", "evaluation")
    light += ("inference", "cli")
    names = []
    for path in sorted(SRC.rglob("*.py")):
        parts = path.relative_to(SRC).with_suffix("").parts
        if parts[0] in light and parts[-1] != "__init__":
            names.append(".".join(["samtune", *parts]))
    return names


@pytest.mark.slow
def test_importing_samtune_costs_what_torch_costs():
    torch, samtune, *rest = loaded_by("torch", "samtune", *importable(), path=SRC.parent)
    own = {"samtune", "safetensors", "numpy"}
    new = {name for name in set(samtune) - set(torch) if name not in sys.stdlib_module_names}
    assert new <= own, f"import samtune loads {sorted(new - own)}: import them inside functions"
    for module, loaded in zip(importable(), rest, strict=True):
        assert not HEAVY & set(loaded), f"{module} loads {sorted(HEAVY & set(loaded))}"


def test_a_heavy_import_is_noticed(tmp_path):
    (tmp_path / "samtune").mkdir()
    (tmp_path / "samtune" / "__init__.py").write_text("import colorsys\nimport jinja2\n")
    before, after = loaded_by("json", "samtune", path=tmp_path)
    assert "jinja2" in set(after) - set(before)
