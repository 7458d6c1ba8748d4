"""Two processes over gloo do together what one process does alone."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import tiny
import torch
from commands import settings, write_base
from safetensors.torch import load_file

from samtune import distributed as processes
from samtune.runs.folder import WRITTEN

HERE = Path(__file__).parent / "support"
WORKER = HERE / "fit_processes.py"
COMMAND = HERE / "samtune_processes.py"


def run(root: Path, out: Path, method: str, batch_size: int, accumulate: int, world: int):
    """What each process found, by rank."""
    out.mkdir()
    paths = os.pathsep.join([str(HERE), str(HERE.parents[1] / "src")])
    environment = {
        **os.environ,
        "PYTHONPATH": paths,
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "ACCELERATE_USE_CPU": "true",
    }
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]
    words = [root, out, method, batch_size, accumulate]
    command = [sys.executable, *(launcher if world > 1 else []), WORKER, *words]
    done = subprocess.run(
        [str(word) for word in command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[:6000]
    return [torch.load(out / f"{rank}-of-{world}.pt", weights_only=False) for rank in range(world)]


@pytest.mark.slow
def test_two_processes_are_one_with_the_doubled_batch(tmp_path):
    method = "lora/tuned"
    root = tiny.write_pairs(tmp_path / "pairs", 9)
    (one,) = run(root, tmp_path / "one", method, 4, 1, world=1)
    first, second = run(root, tmp_path / "two", method, 2, 1, world=2)
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name]), name
    # All together: alone, a weight whose true gradient is zero follows rounding, by Adam's nature.
    start, two, one_end = (_flat(w) for w in (one["start"], first["weights"], one["weights"]))
    assert (two - one_end).norm() < 5e-3 * (one_end - start).norm()
    for process in (first, second):  # five images over two processes: none twice, none left out
        assert process["base"] == one["base"]
        assert [i["name"] for i in process["items"]] == [i["name"] for i in one["items"]]
        assert process["metrics"]["objects"] == one["metrics"]["objects"] == 5
        for key in ("iou", "dice", "iou_pooled", "dice_pooled"):
            assert process["metrics"][key] == pytest.approx(one["metrics"][key], abs=1e-3)
    assert sorted(p.name for p in (tmp_path / "two" / "run").iterdir()) == [
        "best.safetensors",
        "last",
    ]
    assert second["losses"] == []  # one process speaks


@pytest.mark.slow
@pytest.mark.parametrize("method", ["batch_norm/tuned", "ts_sam/fusion"])
def test_running_statistics_end_alike_in_all_processes(tmp_path, method):
    """So that all measure the model that the first one saves."""
    root = tiny.write_pairs(tmp_path / "pairs", 9)
    first, second = run(root, tmp_path / "two", method, 1, 2, world=2)
    start, end = first["start"], first["weights"]
    moved = [name for name in end if not torch.equal(end[name], start[name])]
    assert any("running_mean" in name for name in moved)
    for name, tensor in first["weights"].items():
        assert torch.equal(tensor, second["weights"][name]), name
    saved = load_file(tmp_path / "two" / "run" / "best.safetensors")
    for name in moved:
        assert torch.equal(saved[name], first["weights"][name]), name


def _flat(weights: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([weights[name].flatten() for name in sorted(weights)])


def command(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """``samtune WORDS`` in two processes, on the tiny base."""
    paths = os.pathsep.join([str(HERE), str(HERE.parents[1] / "src")])
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.run(
        [sys.executable, *launcher, str(COMMAND), *(str(word) for word in words)],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
def test_of_two_processes_one_speaks_and_writes(tmp_path):
    base, root = write_base(tmp_path / "base.safetensors"), tiny.write_pairs(tmp_path / "pairs")
    words = [*settings(root, base), "device=cpu", "--json"]
    done = command(tmp_path, "train", *words)
    assert done.returncode == 0, done.stderr[:6000]
    (line,) = done.stdout.splitlines()
    (folder,) = (tmp_path / "runs").iterdir()
    assert (tmp_path / json.loads(line)["report"]).parent == folder
    assert {p.name for p in folder.iterdir()} == set(WRITTEN) - {"trackers"}
    rows = [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(row["event"], row["step"]) for row in rows] == [
        ("zero_shot", 0), ("train", 2), ("val", 2),
    ]  # fmt: skip

    again = command(tmp_path, "train", *words, f"output={folder}")
    assert refusal(again).count("holds a run already") == 1 and "Broken" not in again.stderr
    assert [p.name for p in (tmp_path / "runs").iterdir()] == [folder.name]


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of wrong input, and that it was exit code 2 in both processes."""
    assert done.returncode != 0
    codes = re.findall(r"^ +exitcode *: (-?\d+)", done.stderr, re.MULTILINE)
    assert codes == ["2", "2"], done.stderr[:6000]
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("samtune: "))
    return line


@pytest.mark.slow
def test_two_processes_evaluate_and_resume_like_one(trained, tmp_path):
    done = command(tmp_path, "eval", trained.checkpoint, "device=cpu", "--json")
    assert done.returncode == 0, done.stderr[:6000]
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    for side in ("zero_shot", "tuned"):
        assert found[side] == pytest.approx(trained.summary[side], abs=1e-4)

    shutil.copytree(trained.folder, tmp_path / "run")
    words = ["train", f"resume={tmp_path / 'run'}", "train.max_steps=5", "device=cpu", "--json"]
    done = command(tmp_path, *words)
    assert done.returncode == 0, done.stderr[:6000]
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == [0, 2, 2, 4, 4, 5, 5]

    assert "no such checkpoint" in refusal(command(tmp_path, "eval", "absent.safetensors"))


@pytest.mark.slow
def test_two_processes_measure_every_metric_like_one(samtune, trained, tmp_path):
    root = tiny.write_pairs(tmp_path / "five", 5)
    everything = "regions,boundaries,saliency,shadow,instances,published"
    words = ["eval", trained.checkpoint, f"data.root={root}", "data.split=all", "device=cpu"]
    words += [f"eval.metrics={everything}", "prompts.eval=none,box", "--json"]
    done = command(tmp_path, *words, "output=two")
    assert done.returncode == 0, done.stderr[:6000]
    two = json.loads(done.stdout.splitlines()[-1])
    one = samtune(*words, f"output={tmp_path / 'one'}").json
    assert two["images"] == one["images"] == 5
    assert len(one["metrics"]) > 30
    for found, wanted in zip(numbers(two), numbers(one), strict=True):
        # Other batches round otherwise, which moves a pixel over a cut here and there.
        assert found == (wanted[0], pytest.approx(wanted[1], abs=1e-3, rel=1e-3, nan_ok=True))


def numbers(tree: object, path: str = "") -> list[tuple[str, float]]:
    """Every number measured in a summary, with its path; seconds and memory are not measured."""
    if isinstance(tree, dict):
        skipped = ("seconds", "peak_memory_bytes", "images_per_second")
        inside = [(key, value) for key, value in tree.items() if key not in skipped]
        return [each for key, value in inside for each in numbers(value, f"{path}/{key}")]
    if isinstance(tree, list):
        return [each for i, value in enumerate(tree) for each in numbers(value, f"{path}/{i}")]
    return [(path, tree)] if isinstance(tree, float) else []


def test_a_process_that_is_not_told_speaks_itself(samtune, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(processes, "HEADSTART", 0.1)
    assert "no such checkpoint" in samtune("eval", "absent.safetensors").line
    monkeypatch.setattr(processes, "HEADSTART", 30.0)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    answer = samtune("eval", "absent.safetensors")
    timer.join()
    assert answer.code == 2 and not answer.err


def test_verbs_of_one_process_are_left_to_the_main_one(samtune, monkeypatch, trained):
    monkeypatch.setenv("RANK", "1")
    answer = samtune("predict", trained.checkpoint, trained.root / "images", "--out", "none")
    assert answer.code == 0 and not answer.out + answer.err
