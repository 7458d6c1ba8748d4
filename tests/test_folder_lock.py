"""One folder, one run: refused while its process lives, free again however that ends."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from commands import settings

from samtune import folder_lock as lock
from samtune import leftovers
from samtune.compare.jobs import compare
from samtune.exports.writing import export
from samtune.folder_lock import LOCK, FolderLock
from samtune.model.finetuned import FineTuned
from samtune.report.terminal import Display
from samtune.runs.folder import refuse_taken, run_folder
from samtune.training.engine import fit

HOLDS = """
import os, sys, time
from pathlib import Path
from samtune.folder_lock import FolderLock
lock = FolderLock(Path(sys.argv[1]), "output=x")
child = os.fork()
if child == 0:
    os.close(1)
    time.sleep(60)  # as a process that loads data, which outlives a killed run for a while
print("held", child, flush=True)
time.sleep(60)
"""


def test_a_folder_is_locked_while_a_run_is_in_it(tmp_path, refused):
    with run_folder(str(tmp_path / "run"), "x") as folder:
        assert json.loads((folder / LOCK).read_text())["pid"] == os.getpid()
        for kwargs in ({"output": str(folder)}, {"output": None, "resume": str(folder)}):
            with pytest.raises(ValueError, match="a run is going on here") as caught:
                with run_folder(name="x", **kwargs):
                    pass
            assert str(os.getpid()) in str(caught.value) and "\n" not in str(caught.value)
        (folder / "config.yaml").write_text("")
    assert sorted(p.name for p in folder.iterdir()) == ["config.yaml"]
    refused("holds a run already", refuse_taken, str(folder), None)
    (folder / "config.yaml").rename(folder / "summary.json")
    refused("not its config.yaml", refuse_taken, str(folder), None)


def test_default_names_never_collide(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    held = []

    def enter(_):
        context = run_folder(None, "name")
        held.append(context)
        return context.__enter__()

    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(enter, range(8)))
    assert len(set(folders)) == 8
    for context in held:
        context.__exit__(None, None, None)


def test_whoever_writes_a_folder_over_time_is_refused_while_another_does(
    tmp_path, pairs, tiny_weights, sam, refused
):
    """A training and an export from Python, and a comparison; predictions have their own test."""
    elsewhere = json.dumps({**lock._this_process("a prediction"), "host": "elsewhere"})
    out = tmp_path / "out"
    out.mkdir()
    for name in (LOCK, ".onnx.lock"):
        (out / name).write_text(elsewhere)
    why = "a prediction is going on here (process"
    model = FineTuned(sam, "none", "tuned")
    words = [*settings(pairs, tiny_weights, 1), f"output={out}", "methods=decoder"]
    refused([f"output={out}", why], fit, model, None, output=out)
    refused([f"output={out}", why], compare, words, Display())
    refused([out / "onnx", why], export, model, out / "onnx", "pth")
    assert sorted(each.name for each in out.iterdir()) == [".onnx.lock", LOCK]


@pytest.mark.slow
@pytest.mark.parametrize("flock", [True, False])
def test_a_lock_ends_with_its_process(tmp_path, refused, monkeypatch, flock):
    if not flock:
        monkeypatch.setattr(lock, "_flock", lambda descriptor: None)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    child = int(process.stdout.readline().split()[1])
    try:
        refused(f"process {process.pid}", FolderLock, tmp_path, "output=x")
        refused(f"process {process.pid}", refuse_taken, str(tmp_path), None)
    finally:
        process.kill()
        process.communicate()
    os.kill(child, 0)  # is there still, and holds nothing
    try:
        refuse_taken(None, str(tmp_path))
        FolderLock(tmp_path, "output=x").release()
    finally:
        os.kill(child, 9)
    assert not list(tmp_path.iterdir())


def denied(dir):
    raise PermissionError(dir)


def test_what_is_no_lock_file_is_named(tmp_path, refused):
    (tmp_path / LOCK).mkdir()
    refused([LOCK, "is not a file", "move it away"], FolderLock, tmp_path, "output=x")
    (tmp_path / LOCK).rmdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / LOCK)  # reading it would wait for ever
        refused([LOCK, "is not a file"], FolderLock, tmp_path, "output=x")
        refused([LOCK, "is not a file"], refuse_taken, None, str(tmp_path))


def test_a_lock_of_another_host_counts_while_it_is_touched(tmp_path, refused, monkeypatch):
    mine = lock._this_process()
    path = tmp_path / LOCK
    path.write_text(json.dumps({**mine, "host": "elsewhere"}))
    refused("on elsewhere", FolderLock, tmp_path, "output=x")
    with monkeypatch.context() as patch:
        patch.setattr(leftovers.tempfile, "TemporaryFile", denied)
        refused("on elsewhere", FolderLock, tmp_path, "output=x")  # nobody knows how old it is
    os.utime(path, (time.time() - 600,) * 2)
    FolderLock(tmp_path, "output=x").release()
    for stale in (
        {**mine, "boot": "before"},
        {**mine, "pid": 1, "started": "9"},
        {**mine, "pid": 2**40},
    ):
        path.write_text(json.dumps(stale))
        FolderLock(tmp_path, "output=x").release()
    for damaged in ("", "{", "[]", '{"pid": "x"}'):
        path.write_text(damaged)
        FolderLock(tmp_path, "output=x").release()
    monkeypatch.setattr(lock, "HEARTBEAT", 0.01)
    held = FolderLock(tmp_path, "output=x")
    os.utime(path, (0, 0))
    end = time.monotonic() + 5
    while path.stat().st_mtime == 0 and time.monotonic() < end:
        time.sleep(0.01)
    assert path.stat().st_mtime > 0
    held.release()


def test_without_flock_one_of_many_gets_it(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_flock", lambda descriptor: None)
    monkeypatch.setattr(lock, "_is_alive", lambda owner, path: True)

    def enter(_):
        try:
            return FolderLock(tmp_path, "output=x")
        except ValueError:
            return None

    with ThreadPoolExecutor(6) as pool:
        held = [each for each in pool.map(enter, range(6)) if each]
    assert len(held) == 1
    held[0].release()
