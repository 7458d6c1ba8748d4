"""What a kill leaves unfinished goes with the next call; the files of users never do."""

import os
import subprocess
import sys

import pytest
import torch

from samtune import leftovers
from samtune.files import replacing, replacing_folder, write_tensors
from samtune.folder_lock import LOCK, locked
from samtune.leftovers import ABANDONED, earlier_path, partial_path, remove_abandoned
from samtune.runs.folder import run_folder

KILLED = """
import os, sys
from pathlib import Path
from samtune.files import replacing, replacing_folder
folder = Path(sys.argv[1])
with replacing(folder / "last" / "state.json") as file, replacing_folder(folder / "coco") as whole:
    (whole / "x").write_text("half")
    os.kill(os.getpid(), 9)
"""
OF_USERS = ["notes.partial", "a.12.partial", "a.samtune-1.partial", "x.earlier", "b.samtune-12"]


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is of POSIX")
def test_the_next_call_removes_what_a_kill_left(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    assert subprocess.run(command, check=False, env=environment).returncode == -9
    left = sorted(path.name for path in tmp_path.rglob("*.partial"))
    assert len(left) == 2 and left[0].startswith("coco.samtune-")
    for name in OF_USERS:
        (tmp_path / name).write_text("of a user")
        (tmp_path / "last" / name).write_text("of a user")
    with locked(tmp_path, "--out=x", "a prediction"):
        rest = [path.name for path in tmp_path.rglob("*") if path.name in left]
        assert rest == left[1:]  # only the folders that the work names
    with run_folder(None, "x", resume=str(tmp_path)):
        pass
    rest = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    assert rest == sorted([*OF_USERS, "last", *(f"last/{name}" for name in OF_USERS)])


def test_a_folder_that_was_about_to_be_replaced_has_its_name_again(tmp_path, monkeypatch):
    monkeypatch.setattr(
        leftovers, "_BEGUN", leftovers.time.monotonic() + 1
    )  # than which all is older
    for name in ("lost", "replaced"):
        earlier = earlier_path(tmp_path / name)
        earlier.mkdir()
        (earlier / "x").write_text("before")
    (tmp_path / "replaced").mkdir()
    partial_path(tmp_path / "other").mkdir()
    name = partial_path(tmp_path / "other").name
    alive = tmp_path / name.replace(
        f"-{os.getpid()}.", f"-{os.getppid()}."
    )  # a verb without a lock
    with locked(tmp_path / "lost", "--out=x", "an export", whole=True):
        assert (tmp_path / "lost" / "x").read_text() == "before"
        assert len(list(tmp_path.iterdir())) == 5  # with the lock; what is not of this folder stays
    alive.write_text("is being written")
    with locked(tmp_path, "--out=x", "a prediction"):
        pass
    if sys.platform != "win32":  # where nobody can tell
        alive.unlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lost", "replaced"]
    assert not list((tmp_path / "replaced").iterdir())


def test_without_a_lock_only_what_nobody_writes_any_more_goes(tmp_path):
    path = tmp_path / "model.safetensors"
    alive = partial_path(path)
    alive.write_text("is being written")
    ended = alive.with_name(alive.name.replace(f"-{os.getpid()}.", f"-{2**40}."))
    elsewhere = alive.with_name("model.safetensors.samtune-00000000-1.partial")
    old = alive.with_name("model.safetensors.samtune-00000000-2.partial")
    for each in (ended, elsewhere, old):
        each.write_text("half")
    os.utime(old, (old.stat().st_mtime - 2 * ABANDONED,) * 2)
    remove_abandoned(tmp_path, "another.safetensors")
    assert ended.exists() and old.exists()
    remove_abandoned(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {alive.name, elsewhere.name}
    ended.write_text("half")
    write_tensors(path, {"a": torch.zeros(1)})
    assert {p.name for p in tmp_path.iterdir()} == {path.name, elsewhere.name}


def test_who_locks_a_folder_leaves_what_others_may_still_write(tmp_path):
    mine = partial_path(tmp_path / "a")  # of another thread
    ended = mine.with_name(mine.name.replace(f"-{os.getpid()}.", f"-{2**40}."))
    machine = leftovers._machine("elsewhere", "its start")
    before, other = (mine.with_name(f"a.samtune-{machine}-{pid}.partial") for pid in (7, 8))
    folder = other.with_name(other.name.replace("-8.", "-9."))
    folder.mkdir()
    for each in (mine, ended, before, other, folder / "b"):
        each.write_text("half")
    long_ago = other.stat().st_mtime - 2 * ABANDONED
    os.utime(folder, (long_ago, long_ago))  # but not what is in it
    lock = tmp_path / LOCK
    lock.write_text('{"host": "elsewhere", "boot": "its start", "pid": 7}')
    os.utime(lock, (long_ago, long_ago))
    rest = {mine.name, other.name, folder.name}
    rest |= {ended.name} if sys.platform == "win32" else set()  # where nobody can tell
    with locked(tmp_path, "--out=x", "a prediction"):
        assert {path.name for path in tmp_path.iterdir()} == {LOCK, *rest}
    for each in (mine, other, folder / "b"):
        os.utime(each, (long_ago, long_ago))
    os.utime(folder, (long_ago, long_ago))
    with locked(tmp_path, "--out=x", "a prediction"):
        assert {path.name for path in tmp_path.iterdir()} == {LOCK, *(rest & {ended.name})}


def test_the_longest_names_are_written_too(tmp_path):
    path = tmp_path / ("x" * 251 + ".png")
    with replacing(path) as partial:
        partial.write_text("a")
    folder = tmp_path / ("y" * 255)
    with replacing_folder(folder) as partial:
        (partial / "z").write_text("b")
    assert {p.name for p in tmp_path.iterdir()} == {path.name, folder.name}
