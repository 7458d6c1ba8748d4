"""Every verb runs where modules and signals of POSIX are absent, with workers that are spawned."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pictures import picture, save

SCRIPT = Path(__file__).parents[1] / "support" / "other_platform.py"


@pytest.mark.slow
def test_every_verb_runs_as_on_windows(tmp_path):
    for i in range(4):
        save(tmp_path / "set" / "images" / f"{i}.png", picture(24, 32, seed=i))
        mask = np.zeros((24, 32), np.uint8)
        mask[4:12, 5:20] = 255
        save(tmp_path / "set" / "masks" / f"{i}.png", mask)
    quick = "train.max_steps=1 train.batch_size=1 train.strength=none input.size=64"
    lines = [
        "methods lora",
        "recipes lora",
        "data list",
        "data check set",
        f"train set output=run {quick}",
        "eval run/best.safetensors output=again",
        "predict run/best.safetensors set/images --out masks --box 2,2,9,9",
        "merge run/best.safetensors --out merged.safetensors",
        f"compare set methods=decoder output=all {quick}",
    ]
    done = subprocess.run(
        [sys.executable, SCRIPT, *lines],
        check=False, capture_output=True, text=True, timeout=500, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr[-3000:]
    names = ("run/summary.json", "again/summary.json", "masks/0.png", "merged.safetensors")
    assert all((tmp_path / name).is_file() for name in (*names, "all/comparison.json"))
