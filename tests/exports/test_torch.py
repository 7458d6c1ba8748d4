"""torch: programs that run without samtune, in a process that has none."""

import subprocess
import sys

import numpy as np
import pytest
import tiny
import torch
from tuned_models import moved, picture

from samtune.exports.graphs import WholeGraph
from samtune.exports.writing import export
from samtune.model.finetuned import FineTuned

ALONE = """
import sys, torch
image, size = torch.load(sys.argv[2])
with torch.no_grad():
    torch.save(torch.export.load(sys.argv[1]).module()(image, size), sys.argv[3])
assert not any(name.startswith("samtune") for name in sys.modules)
"""


@pytest.mark.slow
def test_a_program_runs_in_a_process_without_samtune(tmp_path):
    (tmp_path / "pictures").mkdir()
    model = moved(FineTuned(tiny.base(), "lora", "prompt_free", prompts="none"))
    where = {"name": "polyps", "check": picture(tmp_path / "pictures"), "threshold": 0.5}
    exported = export(model, tmp_path / "out", "torch", **where)
    assert exported.files == ("check.png", "export.json", "polyps.pt2")
    assert exported.findings.difference < 1e-3
    inputs = torch.rand(40, 64, 3) * 255, torch.tensor([80.0, 128.0])
    torch.save(inputs, tmp_path / "inputs.pt")
    files = [tmp_path / "out/polyps.pt2", tmp_path / "inputs.pt", tmp_path / "answer.pt"]
    words = [sys.executable, "-c", ALONE, *map(str, files)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        expected = WholeGraph(model, 0.5)(*inputs)
    answer = torch.load(tmp_path / "answer.pt")
    assert np.abs(answer.numpy() - expected.numpy()).max() < 1e-3
