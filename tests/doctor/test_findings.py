"""What ``samtune doctor`` finds, with faults put in."""

import json
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from samtune.doctor import findings as module
from samtune.doctor.findings import NO_EXTRA, PURPOSES, extras, findings, folder, shared_memory
from samtune.doctor.training import train_two_steps

CHECKS = ["versions", "device", "attention", "precision", "compile", "launcher", "shared", "files",
          "output", "cache", "extras", "training"]  # fmt: skip


def test_all_that_works_is_said_in_lines_of_80_columns(samtune, monkeypatch):
    monkeypatch.setattr("samtune.doctor.training.train_two_steps", lambda: "two steps")
    answer = samtune("doctor", "--json")
    tree = json.loads(answer.out.splitlines()[-1])
    assert answer.code == 0 and tree["ok"]
    assert [row["name"] for row in tree["findings"]] == CHECKS
    assert all(bool(row["remedy"]) == (row["state"] != "well") for row in tree["findings"])
    lines = samtune("doctor").out.splitlines()
    assert max(map(len, lines)) <= 80 and lines[-1] == "samtune works here"


def test_a_fault_ends_with_1_and_a_remedy(samtune, monkeypatch):
    def fail():
        raise RuntimeError("no room\nat all")

    monkeypatch.setattr("samtune.doctor.training.train_two_steps", fail)
    answer = samtune("doctor")
    assert answer.code == 1 and "samtune needs what has failed: training" in answer.out
    assert "!! training   two steps failed: no room -> report it" in answer.out


def test_what_is_missing_has_a_remedy(monkeypatch, tmp_path):
    usage = SimpleNamespace(total=64 * 2**20, free=2**20)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda place: usage)
    assert shared_memory().state == "remark" and "--shm-size" in shared_memory().remedy
    assert folder("output", tmp_path).remedy == "free some space"
    assert folder("output", tmp_path / "none").state == "fault"
    monkeypatch.setattr(module, "packages_of_extras", lambda: {"geo": ["no-such-package-at-all"]})
    assert extras().text == "none; without geo (rasters with coordinates)"
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    assert module.compiler().remedy.startswith("install g++")


def test_every_extra_has_a_purpose():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert set(PURPOSES) == set(project["optional-dependencies"]) - set(NO_EXTRA)


@pytest.mark.slow
def test_the_training_of_two_steps_runs():
    assert "two steps of lora on nano" in train_two_steps()
    assert [row.name for row in findings(lambda: "")] == CHECKS
