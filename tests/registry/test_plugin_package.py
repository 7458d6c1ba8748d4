"""A plug-in that pip has installed into a folder of its own, from `samtune methods` to a table."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from commands import settings, write_base
from plugins import SOURCE

# Runs command lines, as JSON on stdin, in one process that knows the tiny base.
RUNNER = """
import json, sys
from unittest import mock
import tiny
from commands import exit_code
from samtune.sam.spec import SPECS
with mock.patch.dict(SPECS, {"tiny": tiny.TINY}):
    for words in json.load(sys.stdin):
        code = exit_code(words)
        assert code == 0, (words, code)
        print("END")
"""


def run(lines, folder, *path):
    """What each command line says, and what stands on stderr."""
    support = Path(tiny.__file__).parent
    source = [entry for entry in sys.path if (Path(entry) / "samtune").is_dir()][:1]
    path = os.pathsep.join(map(str, [*path, *source, support]))
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input=json.dumps([list(map(str, words)) for words in lines]),
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done, done.stdout.split("END\n")


@pytest.mark.slow
def test_an_installed_plugin_is_listed_trains_is_measured_and_compares(tmp_path):
    shutil.copytree(SOURCE, tmp_path / "package")  # a build writes beside the sources
    pip = ["install", "--target", "site", "--no-deps", "--no-build-isolation", "--no-index", "-q"]
    subprocess.run([sys.executable, "-m", "pip", *pip, "./package"], cwd=tmp_path, check=True)
    base, root = write_base(tmp_path / "base.safetensors"), tiny.write_pairs(tmp_path / "pairs")
    common = settings(root, base)
    trained = ["adapter.name=gain", "adapter.groups=2", "decoder.name=shifted"]
    trained += ["train.loss=squared+dice", "eval.metrics=iou,missed", "train.metric=missed"]
    lines = [
        ["methods", "--json"],
        ["train", *common, *trained, "prompts.eval=box", "output=run", "--json"],
        ["eval", "run/best.safetensors", f"base.weights={base}", "--json"],
        ["compare", *common, "methods=lora+gain,samtune_gain:Gain:whole", "seeds=1",
         "prompts.eval=box", "output=table", "--json"],
    ]  # fmt: skip
    done, said = run(lines, tmp_path, tmp_path / "site")
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(said[0].splitlines()[-1])}
    assert (rows["gain"]["package"], rows["gain"]["version"]) == ("samtune-gain", "0.3")
    summary, again = (json.loads(text.splitlines()[-1]) for text in said[1:3])
    assert summary["trainable_parameters"] == tiny.TINY.depth * 2 + 1
    before, after = (each["metrics"]["missed"] for each in (summary, again))
    assert after["tuned"] == pytest.approx(before["tuned"], abs=1e-9)
    table = json.loads(said[3].splitlines()[-1])
    assert [row["method"] for row in table["rows"]] == ["lora+gain", "samtune_gain:Gain:whole"]
