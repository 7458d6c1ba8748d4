"""What pip installs is whole: a wheel has all files of the package, an sdist its tests too.

The wheel and a plug-in are installed into an environment of their own, and used from there.
"""

import json
import os
import shutil
import site
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import tiny
import yaml
from commands import settings, write_base
from plugins import SOURCE

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
BUILD = (
    "import sys; from setuptools import build_meta as b; out = sys.argv[1]; "
    "b.build_sdist(out); b.build_wheel(out)"
)
# Says where samtune, its data and the plug-in lie, and then runs command lines, as JSON on stdin.
RUNNER = """
import json, sys
from unittest import mock
import samtune, samtune_gain, tiny
from commands import exit_code
from samtune.assets import demo_data
from samtune.sam.spec import SPECS
assert any(demo_data().rglob("*.png"))
print(json.dumps([samtune.__file__, samtune_gain.__file__, str(demo_data())]))
print("END")
with mock.patch.dict(SPECS, {"tiny": tiny.TINY}):
    for words in json.load(sys.stdin):
        code = exit_code(words)
        assert code == 0, (words, code)
        print("END")
"""
LEFT = {ROOT: {"build", "dist", "runs", "shared"}, ROOT / "benchmarks": {"results"}}
"""Folders that a build does not need, by the folder that they lie in: samtune has a part `runs`."""


def left(folder: str, names: list[str]) -> set[str]:
    """What a copy of the repository leaves out of a folder."""
    made = {name for name in names if name[0] == "." or name.endswith((".egg-info", "__pycache__"))}
    return made | LEFT.get(Path(folder), set())


def files_of(folder: Path) -> set[str]:
    """The files below a folder, as they are called from the one above it."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {path.relative_to(folder.parent).as_posix() for path in paths}


def build(source: Path, out: Path) -> None:
    """Builds wheel and sdist of a copied project, as pip does without isolation."""
    out.mkdir(exist_ok=True)
    subprocess.run([sys.executable, "-c", BUILD, out], cwd=source, check=True, capture_output=True)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the repository, beside what is built of it."""
    tree = tmp_path_factory.mktemp("built") / "tree"
    shutil.copytree(ROOT, tree, ignore=left)
    build(tree, tree.parent)
    return tree


@pytest.mark.slow
def test_a_wheel_has_the_whole_package_and_an_sdist_its_tests_too(tree):
    (wheel,), (sdist,) = tree.parent.glob("*.whl"), tree.parent.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        (entries,) = (name for name in names if name.endswith("entry_points.txt"))
        assert "samtune = samtune.cli.main:main" in file.read(entries).decode()
    package = {name for name in names if name.startswith("samtune/")}
    assert package == files_of(tree / "src" / "samtune")
    assert package == files_of(ROOT / "src" / "samtune"), "a copy that lacks some"
    assert {"samtune/py.typed", "samtune/assets/nano.safetensors"} <= package
    others = {name.split("/")[0] for name in names - package}
    assert others == {f"samtune-{PROJECT['version']}.dist-info"}
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    for part in ("src/samtune", "tests", "docs", "training"):
        folder = tree / part
        lacking = {f"{part}/{name.partition('/')[2]}" for name in files_of(folder)} - inside
        assert not {name for name in lacking if "egg-info" not in name}, part
    assert {"CITATION.cff", "CHANGELOG.md", "NOTICE", "LICENSE", "Makefile"} <= inside


@pytest.fixture(scope="module")
def installed(tree, tmp_path_factory):
    """An environment with the wheel and a plug-in, and beside them what samtune depends on."""
    place = tmp_path_factory.mktemp("installed")
    shutil.copytree(SOURCE, place / "package")  # a build writes beside the sources
    build(place / "package", place / "plugin")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place / "env"], check=True)
    python = place / "env" / "bin" / "python"
    wheels = [*tree.parent.glob("*.whl"), *(place / "plugin").glob("*.whl")]
    pip = [sys.executable, "-m", "pip", "--python", python, "--isolated", "install", "-q"]
    pip += ["--no-index", "--no-deps", "--no-compile", "--disable-pip-version-check"]
    subprocess.run([*pip, *wheels], check=True)
    (packages,) = place.glob("env/lib/python*/site-packages")
    # Only these folders: what editable installations add there does not follow.
    (packages / "beside.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return python


def run(python: Path, lines: list[list[str]], folder: Path) -> list[str]:
    """What each command line says, in one process of an environment that knows the tiny base."""
    done = subprocess.run(
        [python, "-c", RUNNER],
        input=json.dumps([list(map(str, words)) for words in lines]),
        env={**os.environ, "PYTHONPATH": str(Path(tiny.__file__).parent), "OMP_NUM_THREADS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("END\n")


@pytest.mark.slow
def test_an_installed_plugin_is_listed_trains_is_measured_and_compares(installed, tmp_path):
    base, root = write_base(tmp_path / "base.safetensors"), tiny.write_pairs(tmp_path / "pairs")
    common = settings(root, base)
    trained = ["adapter.name=gain", "adapter.groups=2", "decoder.name=shifted"]
    trained += ["train.loss=squared+dice", "eval.metrics=iou,missed", "train.metric=missed"]
    lines = [
        ["methods", "--json"],
        ["recipes", "--json"],
        ["train", *common, *trained, "prompts.eval=box", "output=run", "--json"],
        ["eval", "run/best.safetensors", f"base.weights={base}", "--json"],
        ["compare", *common, "methods=lora+gain,samtune_gain:Gain:whole", "seeds=1",
         "prompts.eval=box", "output=table", "--json"],
    ]  # fmt: skip
    where, *said = run(installed, lines, tmp_path)
    files = json.loads(where)
    assert all(Path(file).is_relative_to(installed.parents[1]) for file in files), files
    rows = {row["name"]: row for row in json.loads(said[0].splitlines()[-1])}
    assert (rows["gain"]["package"], rows["gain"]["version"]) == ("samtune-gain", "0.3")
    assert len(json.loads(said[1].splitlines()[-1])) == len(
        [*(ROOT / "src/samtune/recipes").glob("*.yaml")]
    )
    summary, again = (json.loads(text.splitlines()[-1]) for text in said[2:4])
    assert summary["trainable_parameters"] == tiny.TINY.depth * 2 + 1
    before, after = (each["metrics"]["missed"] for each in (summary, again))
    assert after["tuned"] == pytest.approx(before["tuned"], abs=1e-9)
    assert (tmp_path / "run" / "report.html").stat().st_size > 0
    table = json.loads(said[4].splitlines()[-1])
    assert [row["method"] for row in table["rows"]] == ["lora+gain", "samtune_gain:Gain:whole"]
    command = [installed.with_name("samtune"), "train", root, "train.lerning_rat=1"]
    env = {**os.environ, "PYTHONPATH": ""}
    alone = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert alone.returncode == 2 and "did you mean" in alone.stderr, alone.stderr


def test_the_extra_all_unites_the_others():
    extras = PROJECT["optional-dependencies"]
    (together,) = extras["all"]
    assert together.startswith("samtune[") and together.endswith("]")
    united = together.removeprefix("samtune[").removesuffix("]").split(",")
    assert set(united) == set(extras) - {"all", "dev"}


def test_the_citation_is_valid_and_of_this_version():
    tree = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= tree.keys()
    assert tree["cff-version"] == "1.2.0" and tree["type"] == "software"
    assert tree["authors"] == [{"name": "samtune developers"}]
    assert tree["version"] == PROJECT["version"]
    assert " AND ".join(tree["license"]) == PROJECT["license"]
