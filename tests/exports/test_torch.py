"""torch: programs and compiled packages that run without samtune, in a process that has none."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tuned_models import moved, quickly_traced, save_picture

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
image, size, content = torch.load(sys.argv[1])
{enlarged}
for file in sys.argv[2:]:
    with torch.no_grad():
        if file.endswith(".aoti.pt2"):
            low = torch._inductor.aoti_load_package(file)(image)
            answer = enlarged(low, content, (64, 64), tuple(int(side) for side in size))[0]
        else:
            answer = torch.export.load(file).module()(image, size)
    torch.save(answer, file + ".answer")
assert not any(name.startswith("samtune") for name in sys.modules)
"""


def has_compiler():
    try:
        check_compiler()
    except InputError:
        return False
    return True


@pytest.mark.slow
def test_programs_run_in_a_process_without_samtune(tmp_path, quick_inductor):
    """A program, and a compiled package where there is a compiler."""
    model = moved(FineTuned(quickly_traced(), "lora", "prompt_free", prompts="none"))
    where = {"name": "polyps", "check": save_picture(tmp_path / "pictures"), "threshold": 0.5}
    files = []
    for aoti, file in {False: "polyps.pt2", True: "polyps.aoti.pt2"}.items():
        if aoti and not has_compiler():
            continue
        out = tmp_path / f"out{aoti}"
        exported = export(model, out, "torch", aoti=aoti, **where)
        assert exported.files == ("check.png", "export.json", file)
        assert exported.findings.difference < 1e-3
        files.append(out / file)
    inputs = torch.rand(40, 64, 3) * 255, torch.tensor([80.0, 128.0]), (40, 64)
    torch.save(inputs, tmp_path / "inputs.pt")
    documented = PAGE.read_text("utf-8").split("def enlarged")[1].split("\n\n")[0]
    program = ALONE.format(enlarged=f"def enlarged{documented}")
    words = [sys.executable, "-c", program, str(tmp_path / "inputs.pt"), *map(str, files)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        expected = WholeGraph(model, 0.5)(*inputs[:2])
    for file in files:
        answer = torch.load(f"{file}.answer")
        assert np.abs(answer.numpy() - expected.numpy()).max() < 1e-3, file.name


def test_what_is_compiled_answers_at_the_resolution_of_the_decoder():
    """The modules of packages with prompts, which take half a minute to compile."""
    job = Job(moved(FineTuned(quickly_traced(), "lora", "tuned", prompts="box")), "polyps")
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
    line = r"aoti=True: needs a C\+\+ compiler, .* \(No working C\+\+ compiler found\); in"
    with pytest.raises(InputError, match=line):
        export(FineTuned(quickly_traced()), tmp_path / "out", "torch", aoti=True)
    assert list(tmp_path.iterdir()) == []
