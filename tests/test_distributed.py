"""Two processes over gloo do together what one process does alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from commands import settings, write_base

from samtune.runfolder import WRITTEN

HERE = Path(__file__).parent
WORKER = HERE / "fit_processes.py"
COMMAND = HERE / "samtune_processes.py"


def run(root: Path, out: Path, method: str, batch_size: int, accumulate: int, world: int):
    """What each process found, by rank."""
    out.mkdir()
    paths = os.pathsep.join([str(HERE), str(HERE.parent / "src")])
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


def _flat(weights: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([weights[name].flatten() for name in sorted(weights)])


def command(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """``samtune WORDS`` in two processes, on the tiny base."""
    paths = os.pathsep.join([str(HERE), str(HERE.parent / "src")])
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
    assert {p.name for p in folder.iterdir()} == set(WRITTEN)
    rows = [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(row["event"], row["step"]) for row in rows] == [
        ("zero_shot", 0), ("train", 2), ("val", 2),
    ]  # fmt: skip

    again = command(tmp_path, "train", *words, f"output={folder}")
    assert again.returncode != 0
    assert "holds a run already" in again.stderr and "Broken" not in again.stderr
    assert [p.name for p in (tmp_path / "runs").iterdir()] == [folder.name]
