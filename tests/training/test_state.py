import errno
import json
import math
import os
import shutil

import pytest
import torch
from torch import nn

from samtune.training import state as states
from samtune.training.optimiser import Optimisation
from samtune.training.state import (
    TrainingState,
    mend_state,
    read_counters,
    read_state,
    write_state,
)


def stepped(seed, steps=2):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(steps):
        model(torch.randn(5, 3)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, Optimisation(optimizer)


@pytest.mark.parametrize("steps", [0, 2])
def test_a_state_comes_back_as_it_was(tmp_path, steps):
    model, optimizer = stepped(0, steps)
    state = TrainingState(
        step=7, best={"step": 4, "iou": math.nan}, since_best=1, bad=2, validated=6,
        losses=[0.1, math.nan], seconds=1.5, scaler={"scale": 1024.0},
        kept_modes=["box"], averaged=2,
        top={"step": 2}, top_tensors={"0.bias": torch.ones(4)}, mean={"0.bias": torch.zeros(4)},
    )  # fmt: skip
    write_state(tmp_path, state, model, optimizer)
    other, its = stepped(1, 3)
    found = read_state(tmp_path, other, its)
    assert repr(found) == repr(state)
    for one, two in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(one, two)
    mine, theirs = (each.optimizer.state_dict()["state"] for each in (optimizer, its))
    assert mine.keys() == theirs.keys()
    for index, values in mine.items():
        assert all(torch.equal(value, theirs[index][name]) for name, value in values.items())


def names_in(folder):
    return sorted(p.name for p in folder.iterdir())


def test_the_newest_and_the_one_before_are_kept(tmp_path):
    parts = ("optimizer", "trained")
    for step in (1, 2, 3):
        write_state(tmp_path, TrainingState(step=step), *stepped(step))
        files = [f"{p}-{s:08d}.safetensors" for p in parts for s in (step - 1, step) if s]
        files += ["previous.json"] * (step > 1) + ["state.json"]
        assert names_in(tmp_path) == sorted(files)
    assert read_counters(tmp_path)["step"] == 3
    before = {p: p.stat().st_mtime_ns for p in tmp_path.glob("*3.safetensors")}
    top = {"0.bias": torch.ones(4)}
    for best in (top, {"0.bias": torch.zeros(4)}):
        state = TrainingState(step=3, top_tensors=top, best={"step": 3}, best_tensors=best)
        write_state(tmp_path, state, *stepped(3))
        found = read_state(tmp_path, *stepped(0))
        assert torch.equal(found.best_tensors["0.bias"], best["0.bias"])
        assert (found.best_tensors is found.top_tensors) == (best is top)
    assert {p: p.stat().st_mtime_ns for p in before} == before, "what is the same stays"
    write_state(tmp_path, TrainingState(step=3, top_tensors=best), *stepped(3))
    assert "top-00000003-2.safetensors" in names_in(tmp_path), "what is listed is never changed"
    mine = read_state(tmp_path, *stepped(0))
    assert torch.equal(mine.top_tensors["0.bias"], best["0.bias"])


def test_no_damaged_file_costs_both_states(tmp_path):
    """Also where they agree: in weights that stay the best, and in a step that was saved twice."""
    top = {"0.bias": torch.ones(4)}
    state = {"top_tensors": top, "mean": {"0.bias": torch.zeros(4)}}
    state["best_tensors"] = {"0.bias": torch.full((4,), 2.0)}
    for step in (0, 0, 0, 4, 4, 5):
        write_state(tmp_path, TrainingState(step=step, **state), *stepped(1))
        files = [path for path in tmp_path.iterdir() if path.suffix == ".safetensors"]
        states = 1 + (tmp_path / "previous.json").exists()
        assert len(files) == 5 * states
        for path in files if states == 2 else ():
            whole = path.read_bytes()
            path.write_bytes(b"")
            assert read_state(tmp_path, *stepped(0)).step <= step, path
            path.write_bytes(whole)
    (tmp_path / "top-00000005.safetensors").unlink()
    assert mend_state(tmp_path)
    write_state(tmp_path, TrainingState(step=4, **state), *stepped(1))  # which both of them are
    assert len(list(tmp_path.glob("top-*"))) == 2


def flipped(data: bytes) -> bytes:
    return data[:-9] + bytes([data[-9] ^ 4]) + data[-8:]


DAMAGES = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "flipped": flipped,
    "another encoding": lambda data: data.decode("latin1").encode("utf-16"),
    "another type": lambda data: b"[1, 2]",
}


@pytest.mark.parametrize("file", ["state.json", "trained-00000002", "optimizer-00000002"])
def test_after_any_damage_the_state_before_it_is_read(tmp_path, refused, file):
    good = tmp_path / "good"
    for step in (1, 2):
        write_state(good, TrainingState(step=step), *stepped(step))
    assert mend_state(good) is None
    name = file if file.endswith(".json") else f"{file}.safetensors"
    for what, damage in {**DAMAGES, "missing": None}.items():
        folder = tmp_path / what
        shutil.copytree(good, folder)
        if damage is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(damage((folder / name).read_bytes()))
        assert read_state(folder, *stepped(0)).step == 1, what
        line = mend_state(folder)
        assert name in line and "of step 1" in line, what
        assert mend_state(folder) is None and read_counters(folder)["step"] == 1
        write_state(folder, TrainingState(step=5), *stepped(5))
        (folder / "state.json").write_text("{")
        assert read_state(folder, *stepped(0)).step == 1, "the damaged one came never back"
        (folder / "previous.json").write_text("{")
        refused(["state.json", "previous.json"], read_state, folder, *stepped(0))


def test_a_step_that_is_saved_again_does_not_displace_the_state_before_it(tmp_path):
    write_state(tmp_path, TrainingState(step=1), *stepped(1))
    for validated in (0, 2, 2):
        write_state(tmp_path, TrainingState(step=2, validated=validated), *stepped(2))
    assert read_counters(tmp_path)["validated"] == 2
    (tmp_path / "optimizer-00000002.safetensors").write_bytes(b"")
    assert read_state(tmp_path, *stepped(0)).step == 1, "both had the damaged file"


def test_counters_of_wrong_types(tmp_path, refused):
    write_state(tmp_path, TrainingState(step=1), *stepped(1))
    tree = json.loads((tmp_path / "state.json").read_text())
    del tree["checksum"]  # as of version 0.1.0
    for key, value, words in (
        ("step", "1", "step is '1'"),
        ("losses", {}, "losses is {}"),
        ("files", {"trained": 3}, "list of files"),
        ("news", 1, "upgrade"),
    ):
        (tmp_path / "state.json").write_text(json.dumps({**tree, key: value}))
        refused([tmp_path / "state.json", words], read_state, tmp_path, *stepped(0))


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_a_failed_write_leaves_the_earlier_state(tmp_path, monkeypatch, refused, calls):
    first = stepped(1)
    write_state(tmp_path, TrainingState(step=1), *first)
    left = [None] * (calls - 1)
    replace = os.replace

    def fail(*args):
        if not left:
            raise OSError(28, "No space left on device")
        left.pop()
        replace(*args)

    monkeypatch.setattr("samtune.files.os.replace", fail)
    refused(["No space left", "resume"], write_state, tmp_path, TrainingState(step=2), *stepped(2))
    monkeypatch.undo()
    assert not list(tmp_path.glob("*.partial"))
    other = stepped(3)
    assert read_state(tmp_path, *other).step == 1
    assert torch.equal(other[0][0].weight, first[0][0].weight)


def test_files_are_on_the_disk_before_others_rely_on_them(tmp_path, monkeypatch, refused):
    on_disk = set()
    write = states.write_whole

    def check(path, *rest):
        assert {each.stat().st_ino for each in tmp_path.iterdir()} <= on_disk
        return write(path, *rest)

    monkeypatch.setattr(os, "fsync", lambda number: on_disk.add(os.fstat(number).st_ino))
    monkeypatch.setattr(states, "write_whole", check)
    for step in (1, 2, 3):
        write_state(tmp_path, TrainingState(step=step), *stepped(step))
    check(tmp_path / "state.json", b"")
    for number in (errno.EINVAL, errno.EIO):  # a file system that cannot wait, and a broken disk
        error = OSError(number, "it failed")
        monkeypatch.setattr(os, "fsync", lambda _, error=error: (_ for _ in ()).throw(error))
        monkeypatch.setattr(states, "write_whole", write)
        if number == errno.EINVAL:
            write_state(tmp_path, TrainingState(step=4), *stepped(4))
    refused(["it failed", "resume"], write_state, tmp_path, TrainingState(step=5), *stepped(5))
    assert read_counters(tmp_path)["step"] == 4


def test_no_state(tmp_path, refused):
    refused([tmp_path, "no state"], read_state, tmp_path, *stepped(0))


def test_a_state_of_another_model(tmp_path, refused):
    write_state(tmp_path, TrainingState(), *stepped(0))
    other = nn.Linear(3, 4)
    optimizer = Optimisation(torch.optim.AdamW(other.parameters()))
    refused("another model", read_state, tmp_path, other, optimizer)


def test_the_counters_are_plain_json(tmp_path):
    write_state(tmp_path, TrainingState(step=3), *stepped(0))
    assert json.loads((tmp_path / "state.json").read_text())["generation"] == "00000003"
