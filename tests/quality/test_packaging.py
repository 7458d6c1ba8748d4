"""What pip installs is whole: a wheel has all files of the package, an sdist its tests too."""

import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
BUILD = (
    "import sys; from setuptools import build_meta as b; b.build_sdist('..'); b.build_wheel('..')"
)
LEFT = shutil.ignore_patterns(
    ".*", "__pycache__", "*.egg-info", "build", "dist", "runs", "shared", "results"
)


def files_of(folder: Path) -> set[str]:
    """The files below a folder, as they are called from the one above it."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {path.relative_to(folder.parent).as_posix() for path in paths}


@pytest.mark.slow
def test_a_wheel_has_the_whole_package_and_an_sdist_its_tests_too(tmp_path):
    shutil.copytree(ROOT, tmp_path / "tree", ignore=LEFT)
    subprocess.run(
        [sys.executable, "-c", BUILD], cwd=tmp_path / "tree", check=True, capture_output=True
    )
    (wheel,), (sdist,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        (entries,) = (name for name in names if name.endswith("entry_points.txt"))
        assert "samtune = samtune.cli.main:main" in file.read(entries).decode()
    package = {name for name in names if name.startswith("samtune/")}
    assert package == files_of(tmp_path / "tree" / "src" / "samtune")
    assert {"samtune/py.typed", "samtune/assets/nano.safetensors"} <= package
    others = {name.split("/")[0] for name in names - package}
    assert others == {f"samtune-{PROJECT['version']}.dist-info"}
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    for part in ("src/samtune", "tests", "docs", "training"):
        folder = tmp_path / "tree" / part
        lacking = {f"{part}/{name.partition('/')[2]}" for name in files_of(folder)} - inside
        assert not {name for name in lacking if "egg-info" not in name}, part
    assert {"CITATION.cff", "CHANGELOG.md", "NOTICE", "LICENSE", "Makefile"} <= inside


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
