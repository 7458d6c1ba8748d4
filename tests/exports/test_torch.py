"""torch: programs and compiled packages that run without samtune, in a process that has none."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from tuned_models import moved, save_picture

from samtune.errors import InputError
from samtune.exports.base import Job
from samtune.exports.formats.torch_program import at_low_resolution, check_compiler
from samtune.exports.graphs import WholeGraph
from samtune.exports.parts import DECODER, traced_parts
from samtune.exports.writing import export
from samtune.model.finetuned import FineTuned

PAGE = Path(__file__).parents[2] / "docs/export/torch.md"
ALONE = """
import sys, torch
import torch.nn.functional as F
image, size, content = torch.load(sys.argv[2])
{enlarged}
with torch.no_grad():
    if sys.argv[1].endswith(".aoti.pt2"):
        low = torch._inductor.aoti_load_package(sys.argv[1])(image)
        answer = enlarged(low, content, (64, 64), tuple(int(side) for side in size))[0]
    else:
        answer = torch.export.load(sys.argv[1]).module()(image, size)
torch.save(answer, sys.argv[3])
assert not any(name.startswith("samtune") for name in sys.modules)
"""
SMALL = replace(tiny.TINY, depth=1, global_blocks=(0,))
"""A base that is compiled in seconds."""


def has_compiler():
    try:
        check_compiler()
    except InputError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize(
    ("aoti", "file"),
    [
        (False, "polyps.pt2"),
        pytest.param(
            True,
            "polyps.aoti.pt2",
            marks=pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler"),
        ),
    ],
)
def test_a_program_runs_in_a_process_without_samtune(aoti, file, tmp_path, quick_inductor):
    model = moved(FineTuned(tiny.base(SMALL), "lora", "prompt_free", prompts="none"))
    where = {"name": "polyps", "check": save_picture(tmp_path / "pictures"), "threshold": 0.5}
    exported = export(model, tmp_path / "out", "torch", aoti=aoti, **where)
    assert exported.files == ("check.png", "export.json", file)
    assert exported.findings.difference < 1e-3
    inputs = torch.rand(40, 64, 3) * 255, torch.tensor([80.0, 128.0]), (40, 64)
    torch.save(inputs, tmp_path / "inputs.pt")
    files = [tmp_path / "out" / file, tmp_path / "inputs.pt", tmp_path / "answer.pt"]
    documented = PAGE.read_text("utf-8").split("def enlarged")[1].split("\n\n")[0]
    program = ALONE.format(enlarged=f"def enlarged{documented}")
    words = [sys.executable, "-c", program, *map(str, files)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        expected = WholeGraph(model, 0.5)(*inputs[:2])
    answer = torch.load(tmp_path / "answer.pt")
    assert np.abs(answer.numpy() - expected.numpy()).max() < 1e-3


def test_what_is_compiled_answers_at_the_resolution_of_the_decoder():
    """The modules of packages with prompts, which take half a minute to compile."""
    job = Job(moved(FineTuned(tiny.base(SMALL), "lora", "tuned", prompts="box")), "polyps")
    parts = traced_parts(job)
    part = parts[DECODER]
    of_files = [{n.partition(".")[0] for n, _ in each.module.named_parameters()} for each in
                parts.values()]  # fmt: skip
    assert of_files == [{"adapter"}, {"decoder"}]  # neither file holds the other's weights
    inputs = dict(part.inputs)
    with torch.no_grad():
        _, iou, low = part.module(*inputs.values())
        smaller = at_low_resolution(part)
        answer = smaller.module(*smaller.inputs.values())
    assert smaller.inputs.keys() == inputs.keys() - {"orig_im_size"}
    assert torch.equal(answer[0], low) and torch.equal(answer[1], iou)


def test_without_a_compiler_nothing_is_written(tmp_path, monkeypatch):
    def none():
        raise RuntimeError("No working C++ compiler found\nin many lines")

    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", none)
    line = r"format\.aoti=true: needs a C\+\+ compiler, .* \(No working C\+\+ compiler found\); in"
    with pytest.raises(InputError, match=line):
        export(FineTuned(tiny.base(SMALL)), tmp_path / "out", "torch", aoti=True)
    assert list(tmp_path.iterdir()) == []
