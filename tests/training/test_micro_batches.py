"""Batches in parts, and what happens if memory runs out."""

from dataclasses import replace

import pytest
import tiny
import torch

from samtune.batch import Question
from samtune.data.opening import open_data
from samtune.losses import Loss
from samtune.model.finetuned import FineTuned
from samtune.training.engine import fit
from samtune.training.micro_batches import micro_batches
from samtune.training.objective import Objective
from samtune.training.schedule import FitConfig

MESSAGES = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "cpu": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 68719476736 bytes."
    ),
}


def train(sam, pairs, rows=None, resume=False, output=None, **settings):
    torch.manual_seed(3)
    model = FineTuned(sam, "lora", "tuned", adapter_options={"rank": 2, "dropout": 0.3})
    data = open_data(pairs, augment="flips")
    settings = {"max_steps": 2, "batch_size": 5, "log_every": 1, **settings}
    heard = None if rows is None else rows.append
    fit(
        model, data.train, config=FitConfig(keep=["point"], **settings), on_event=heard,
        output=output, resume=resume,
    )  # fmt: skip
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def with_little_memory(monkeypatch, most, error):
    """No more than ``most`` images at once have room; the error comes amid the backward pass."""
    sizes, forward = [], Objective.forward

    def step(self, batch, *shares):
        sizes.append(len(batch.pixels))
        loss = forward(self, batch, *shares)
        if len(batch.pixels) > most:
            loss.backward()  # half a gradient, and the statistics of what ran
            raise error
        return loss

    monkeypatch.setattr(Objective, "forward", step)
    return sizes


@pytest.mark.parametrize(("accumulate", "device"), [(1, "cpu"), (2, "cuda")])
def test_a_batch_is_halved_as_if_it_had_been_small_from_the_start(
    sam, pairs, monkeypatch, accumulate, device, tmp_path
):
    steps = {"max_steps": accumulate, "accumulate": accumulate}
    small = train(sam, pairs, micro_batch=2, **steps)
    rows = []
    sizes = with_little_memory(monkeypatch, 2, MESSAGES[device])
    halved = train(sam, pairs, rows, batch_size=5, output=tmp_path, **steps)
    assert all(torch.equal(small[name], halved[name]) for name in small)
    assert sizes[:5] == [5, 3, 2, 2, 1], "and then no more than what has room"
    said = [row for row in rows if row["event"] == "memory"]
    assert [row["micro_batch"] for row in said] == [3, 2]
    assert "memory ran out" in said[0]["warning"]
    del sizes[:]
    train(sam, pairs, **{**steps, "max_steps": accumulate + 1}, output=tmp_path, resume=True)
    assert max(sizes) == 2, "a resumed training knows"


def test_a_single_image_that_has_no_room_is_refused(sam, pairs, monkeypatch):
    with_little_memory(monkeypatch, 0, MESSAGES["cpu"])
    with pytest.raises(RuntimeError, match="can't allocate"):
        train(sam, pairs, batch_size=1)
    monkeypatch.undo()
    with_little_memory(monkeypatch, 0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"):
        train(sam, pairs)


@pytest.mark.parametrize("at_once", [1, 2])
def test_parts_of_a_batch_add_up_to_its_loss(sam, at_once):
    batch, other = tiny.batch([0, 0, 0, 1, 2], images=3), tiny.batch([0, 2, 2], images=3)
    question = Question(other.prompts, other.targets, other.classes)
    batch = replace(batch, rehearsal=question)
    model = FineTuned(sam, "lora", "tuned").train()
    with torch.no_grad():
        for tensor in model.parameters():  # so that it disagrees with its base
            tensor.add_(0.02 * torch.randn_like(tensor))
    objective = Objective(model, Loss.parse("bce + dice"), multimask=False, to_base=True)
    objective(batch).backward()
    whole = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    for part, shares in micro_batches(batch, at_once):
        objective(part, shares).backward()
    assert sum(float(g.norm()) for g in whole.values()) > 0.1
    for name, parameter in model.named_parameters():
        if name in whole:
            torch.testing.assert_close(parameter.grad, whole[name], rtol=1e-4, atol=1e-6)
