import json
import math

import pytest
import torch
from torch import nn

from samtune.training.state import TrainingState, read_counters, read_state, write_state


def stepped(seed, steps=2):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(steps):
        model(torch.randn(5, 3)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


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
    mine, theirs = optimizer.state_dict()["state"], its.state_dict()["state"]
    assert mine.keys() == theirs.keys()
    for index, values in mine.items():
        assert all(torch.equal(value, theirs[index][name]) for name, value in values.items())


def test_only_the_newest_is_kept(tmp_path):
    for step in (1, 2):
        write_state(tmp_path, TrainingState(step=step), *stepped(step))
    names = ["optimizer-00000002.safetensors", "state.json", "trained-00000002.safetensors"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    assert read_counters(tmp_path)["step"] == 2


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_a_failed_write_leaves_the_earlier_state(tmp_path, monkeypatch, refused, calls):
    first = stepped(1)
    write_state(tmp_path, TrainingState(step=1), *first)
    left = [None] * (calls - 1)
    import os

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


def test_no_state(tmp_path, refused):
    refused([tmp_path, "no state"], read_state, tmp_path, *stepped(0))


def test_a_state_of_another_model(tmp_path, refused):
    write_state(tmp_path, TrainingState(), *stepped(0))
    other = nn.Linear(3, 4)
    optimizer = torch.optim.AdamW(other.parameters())
    refused("another model", read_state, tmp_path, other, optimizer)


def test_the_counters_are_plain_json(tmp_path):
    write_state(tmp_path, TrainingState(step=3), *stepped(0))
    assert json.loads((tmp_path / "state.json").read_text())["generation"] == "00000003"
