"""Every verb runs, and all modules import, where what Linux has is absent; workers are spawned."""

import builtins
import ctypes
import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from commands import settings
from pictures import picture, save
from typer.main import get_command

from samtune.cli.main import app
from samtune.distributed import _is_running
from samtune.doctor.findings import open_files, shared_memory
from samtune.folder_lock import LOCK, FolderLock, _this_process
from samtune.inference.allocator import return_freed_memory
from samtune.inference.folder import predict_folder
from samtune.leftovers import partial_path, remove_abandoned
from samtune.model.finetuned import FineTuned
from samtune.planning.trial import _memory_now
from samtune.training.memory import count_peak_anew, free_memory_of_machine, peak_memory

SCRIPT = Path(__file__).parents[1] / "support" / "other_platform.py"
QUICK = "train.max_steps=1 train.batch_size=1 train.strength=none input.size=64"
GRID = "everything.points_per_side=2"
LINES = {
    "methods lora": 0,
    "recipes lora": 0,
    "settings": 0,
    "metrics iou": 0,
    "data list": 0,
    "data check set": 0,
    "plan set --quick train.lr=-1": 2,  # a count takes five seconds
    f"train set output=run {QUICK}": 0,
    "demo output=run": 2,  # it is there
    "eval run/best.safetensors output=again": 0,
    "predict run/best.safetensors set/images --out masks --box 2,2,9,9": 0,
    f"everything run set/images --out objects {GRID}": 0,
    f"calibrate run set --out calibrated.safetensors {GRID}": 0,
    "merge run/best.safetensors --out merged.safetensors": 0,
    "export run --format hub --out hub --check set/images": 0,
    "bundle run --out whole.safetensors": 0,
    "import": 0,
    "import merged.safetensors --from micro_sam --out x.safetensors": 2,  # it has no adapter
    "doctor": 0,
    f"compare set methods=decoder output=all {QUICK}": 0,
}
"""Command lines, and their exit codes."""


@pytest.mark.slow
def test_every_verb_runs_as_on_windows(tmp_path):
    assert {line.split(" ")[0] for line in LINES} == set(get_command(app).commands)
    for i in range(4):
        save(tmp_path / "set" / "images" / f"{i}.png", picture(24, 32, seed=i))
        mask = np.zeros((24, 32), np.uint8)
        mask[4:12, 5:20] = 255
        save(tmp_path / "set" / "masks" / f"{i}.png", mask)
    done = subprocess.run(
        [sys.executable, SCRIPT, *LINES],
        check=False, capture_output=True, text=True, timeout=500, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == LINES, done.stderr
    names = ("run/summary.json", "again/summary.json", "masks/0.png", "objects/0.png")
    names += ("merged.safetensors", "all/comparison.json", "hub/export.json", "whole.safetensors")
    assert all((tmp_path / name).is_file() for name in names)
    assert not [*tmp_path.rglob("*.lock"), *tmp_path.rglob("*.partial")]


@pytest.fixture
def macos(monkeypatch):
    """No /proc and no /dev/shm, memory in bytes, a C library that cannot return memory."""
    import resource

    usage, library = resource.getrusage, ctypes.CDLL

    def without_linux(function):
        def call(path=".", *words, **more):
            text = os.fsdecode(path) if isinstance(path, str | os.PathLike) else ""
            if text.startswith(("/proc", "/dev/shm")):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), text)
            return function(path, *words, **more)

        return call

    def in_bytes(who):
        return SimpleNamespace(ru_maxrss=usage(who).ru_maxrss * 1024)

    monkeypatch.setattr(resource, "getrusage", in_bytes)
    monkeypatch.setattr(
        ctypes, "CDLL", lambda name, *more: SimpleNamespace() if name is None else library(name)
    )
    monkeypatch.setattr(os, "stat", without_linux(os.stat))
    for module in (builtins, io):
        monkeypatch.setattr(module, "open", without_linux(io.open))
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(sys, "platform", "darwin")
    return SimpleNamespace(peak=lambda: usage(resource.RUSAGE_SELF).ru_maxrss * 1024)


@pytest.mark.skipif(sys.platform == "win32", reason="macOS is a POSIX")
def test_the_system_is_asked_as_macos_answers(macos, tmp_path, refused, monkeypatch):
    cpu = torch.device("cpu")
    count_peak_anew()
    assert peak_memory(cpu) == _memory_now(cpu) == macos.peak()
    assert 0 < free_memory_of_machine() < 2**50
    assert shared_memory().text == "no limit of its own on this system"
    assert open_files().state in ("well", "remark")
    for answer in (OSError("no library"), TypeError("no name")):
        monkeypatch.setattr(
            ctypes, "CDLL", lambda name, answer=answer: (_ for _ in ()).throw(answer)
        )
        return_freed_memory()
    assert _is_running(2**22 + 1)  # nobody says that it is not
    ended = {**_this_process(), "pid": 2**40}
    for each in (ended, {**_this_process(), "boot": ""}):
        (tmp_path / LOCK).write_text(json.dumps(each))
        held = FolderLock(tmp_path, "output=x")
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
        refused(str(os.getpid()), FolderLock, tmp_path, "output=x")
        held.release()
    partial = partial_path(tmp_path / "x")
    partial.with_name(partial.name.replace(f"-{os.getpid()}.", f"-{2**40}.")).write_text("half")
    remove_abandoned(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="macOS is a POSIX")
def test_verbs_run_as_on_macos(macos, samtune, trained, pairs, tiny_weights, tmp_path):
    words = settings(pairs, tiny_weights, 1)
    lines = (
        ("data", "check", str(pairs)),
        ("train", *words, f"output={tmp_path / 'run'}", "train.feature_cache=auto"),
        ("predict", str(trained.checkpoint), str(pairs / "images"), "--out", str(tmp_path / "out"),
         "--box=1,1,9,9", "--no-overlays"),
    )  # fmt: skip
    for line in lines:
        answer = samtune(*line)
        assert answer.code == 0 and "Traceback" not in answer.err, answer.err
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["peak_memory_bytes"] == pytest.approx(macos.peak(), rel=0.5)
    assert (tmp_path / "out" / "predictions.json").is_file()


def test_images_that_would_overwrite_each_other_on_a_disk_that_ignores_case_are_refused(
    tmp_path, sam, refused, monkeypatch
):
    images = tmp_path / "images"
    for name in ("A.png", "a.png"):
        save(images / name, picture(16, 16))
    words = FineTuned(sam, "none", "tuned", prompts="none").predictor(), images
    assert predict_folder(*words, tmp_path / "out", overlays=False)["images"] == 2
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda p: p.name == LOCK.upper() or exists(p))
    refused(["png on a disk that ignores case"], predict_folder, *words, tmp_path / "b")
