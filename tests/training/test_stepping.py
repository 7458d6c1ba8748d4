"""Steps whose outcome stays on the device: nothing is read between two logs."""

import pytest
import tiny
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from samtune.batch import Batch
from samtune.data import DataConfig, PromptConfig, SegmentationDataset, splits
from samtune.errors import InputError
from samtune.losses import bce
from samtune.model.finetuned import FineTuned
from samtune.training import stepping
from samtune.training.engine import FitConfig, fit
from samtune.training.micro_batches import Gradients
from samtune.training.schedule import UNSAFE
from samtune.training.stepping import Stepper
from samtune.training.trainer import Trainer

READS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal"}
"""What would wait for a GPU, which has to tell a number or a size."""


class Reads(TorchDispatchMode):
    """Counts what is read from tensors."""

    def __init__(self):
        super().__init__()
        self.count, self.counts = 0, True

    def outside(self, function):
        """A function that looks at a batch before it goes to the device."""

        def call(*args):
            self.counts = False
            try:
                return function(*args)
            finally:
                self.counts = True

        return call

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        indices = args[1] if func._schema.name == "aten::index" else []
        masks = any(i is not None and i.dtype == torch.bool for i in indices)
        self.count += self.counts and (func._schema.name in READS or masks)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def run(sam, pairs, monkeypatch):
    """A training of six steps of two micro-batches each: its way, rows, and what it read."""
    data = DataConfig(root=str(pairs), augment="none")
    images = SegmentationDataset(
        splits(data)["train"], data, (64, 64), prompts=PromptConfig(), mask_size=(32, 32),
        train=True,
    )  # fmt: skip

    def train(devices, **how):
        monkeypatch.setattr(stepping, "ASYNCHRONOUS", devices)
        reads, rows = Reads(), []
        for owner, name in ((Gradients, "_of_batch"), (Trainer, "_step")):
            monkeypatch.setattr(owner, name, within(reads, getattr(owner, name)))
        for name in ("to", "of_images"):
            monkeypatch.setattr(Batch, name, reads.outside(getattr(Batch, name)))
        torch.manual_seed(3)
        model = FineTuned(sam, "lora", "tuned")
        start = torch.cat([p.detach().flatten() for p in model.parameters()])
        size = {"max_steps": 6, "batch_size": 2, "micro_batch": 1, "log_every": 3}
        config = FitConfig(**size, lr=1e-3, precision="fp32", **UNSAFE)
        fit(model, images, config, on_event=rows.append, device="cpu", **how)
        # together: alone, a weight whose true gradient is zero follows rounding (Adam)
        way = torch.cat([p.detach().flatten() for p in model.parameters()]) - start
        return way, [row for row in rows if row["event"] == "train"], reads.count

    return train


def within(mode, function):
    def call(*args):
        with mode:
            return function(*args)

    return call


def nan_at(*steps):
    """A loss that is NaN in some steps, of two micro-batches each."""
    calls = []

    def loss(logits, targets, valid):
        calls.append(1)
        value = bce(logits, targets, valid)
        return value * float("nan") if (len(calls) - 1) // 2 in steps else value

    return loss


def test_nothing_is_read_between_two_logs(run):
    way, rows, waits = run(())
    other, again, reads = run(("cpu",))
    assert waits >= 6
    assert reads == 0
    assert [row["loss"] for row in again] == pytest.approx([row["loss"] for row in rows], rel=1e-4)
    assert (other - way).norm() < 0.05 * way.norm()


def test_a_step_that_is_not_finite_is_left_out_on_the_device(run):
    way, rows, _ = run((), loss=nan_at(1))
    other, again, _ = run(("cpu",), loss=nan_at(1))
    assert other.isfinite().all()
    assert (other - way).norm() < 0.05 * way.norm()
    assert [row.get("not_finite", 0) for row in again] == [1, 0]
    assert [row["loss"] for row in again] == pytest.approx([row["loss"] for row in rows], rel=1e-4)


def test_a_loss_that_stays_not_finite_ends_the_training_at_a_log(run, monkeypatch):
    monkeypatch.setattr(stepping, "BAD_STEPS", 2)
    for devices in ((), ("cpu",)):
        with pytest.raises(InputError, match="was not finite 2 times in a row"):
            run(devices, loss=nan_at(1, 2, 3))


def test_an_optimiser_that_cannot_leave_steps_out_waits(sam, monkeypatch):
    monkeypatch.setattr(stepping, "ASYNCHRONOUS", ("cpu",))
    accelerator = type("Accelerator", (), {"device": torch.device("cpu")})
    model = FineTuned(sam, "none", "tuned")
    cases = ((True, "fp32", False), (None, "fp32", True), (True, "fp16", True))
    for fused, precision, waits in cases:
        inner = torch.optim.AdamW(model.parameters(), fused=fused)
        assert Stepper(model, accelerator, inner, inner, 1.0, precision).waits is waits
    assert tiny.boxes([0]).to("cpu").complete is True
