"""Optimisers, schedules, losses and callbacks that a user gives to a training."""

import math
from itertools import pairwise

import pytest
import torch
from torch.optim import SGD, AdamW, lr_scheduler

from samtune.data import DataConfig, PromptConfig, SegmentationDataset, splits
from samtune.losses import bce
from samtune.model.finetuned import FineTuned
from samtune.training.engine import FitConfig, fit
from samtune.training.schedule import UNSAFE


@pytest.fixture
def data(pairs):
    """``data(train)``: training or validation images of eight pairs."""

    def make(train):
        config = DataConfig(root=str(pairs), augment="flips")
        records = splits(config)["train" if train else "val"]
        return SegmentationDataset(
            records, config, (64, 64), prompts=PromptConfig(), mask_size=(32, 32), train=train
        )

    return make


def model_of(sam, decoder="tuned"):
    torch.manual_seed(3)
    return FineTuned(sam, "lora", decoder, adapter_options={"rank": 2, "dropout": 0.3})


def config(**values):
    return FitConfig(**{"max_steps": 4, "batch_size": 2, "eval_every": 2, "log_every": 1, **values})


def same(one, other):
    return all(torch.equal(t, other[key]) for key, t in one.items())


def rates(rows):
    return [row["lr"] for row in rows if row["event"] == "train"]


OPTIMIZERS = {
    "momentum": (lambda params: SGD(params, lr=0.1, momentum=0.9), None),
    "groups": (
        lambda params: AdamW([{"params": params[:3], "lr": 0.1}, {"params": params[3:]}], lr=0.01),
        lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [1, 3], 0.1),
    ),
    "cycle": (
        torch.optim.RMSprop,
        lambda optimizer, total_steps: lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps),
    ),
    "plateau": (
        None,
        lambda optimizer: lr_scheduler.ReduceLROnPlateau(optimizer, "max", 0.1, 0, threshold=9),
    ),
    "function": (None, lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda i: 0.5**i)),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name == "groups" else pytest.mark.slow) for name in OPTIMIZERS],
)
def test_a_training_with_ones_own_optimiser_and_schedule_resumes_as_if_not_interrupted(
    sam, data, tmp_path, name
):
    optimizer, schedule = OPTIMIZERS[name]
    parts = {"optimizer": optimizer, "schedule": schedule}
    train, val = data(True), data(False) if name == "plateau" else None

    def trained(folder, steps, resume=False):
        model, rows = model_of(sam), []
        stop = lambda state: state.stop() if state.step == steps else None  # noqa: E731
        how = {"output": tmp_path / folder, "resume": resume, "on_event": rows.append}
        fit(model, train, val, config(eval_every=1, **UNSAFE), on_step=stop, **how, **parts)
        return model, rates(rows)

    whole, at_once = trained("whole", 4)
    _, first = trained("halves", 2)
    halves, second = trained("halves", 4, resume=True)
    assert same(halves.state_dict(), whole.state_dict())
    assert [*first, *second] == at_once
    assert len(set(at_once)) == {"groups": 3, "plateau": 3}.get(name, 4)


def test_ones_own_optimiser_has_the_warm_up_and_cosine_at_its_own_rates(sam, data):
    """By default; of each of its groups."""
    seen, rows = [], []
    optimizer = lambda params: SGD([{"params": params, "lr": 0.2}])  # noqa: E731
    c = config(warmup=0.5, max_steps=4, lr=0.2)
    fit(model_of(sam), data(True), None, c, optimizer=optimizer, on_event=rows.append,
        on_step=lambda state: seen.append(state.optimizer.param_groups[0]["lr"]))  # fmt: skip
    assert seen == rates(rows) and max(seen) == seen[1] == 0.2 and seen[-1] < 0.01


def sharp(params):
    return torch.optim.LBFGS(params)


@pytest.mark.parametrize(
    ("parts", "settings", "words"),
    [
        ({"optimizer": lambda params: 3}, {}, ["returned a int", "torch.optim.SGD"]),
        ({"optimizer": lambda: 3}, {}, ["takes ()", "params"]),
        ({"optimizer": "adam"}, {}, ["optimizer=adam", "lambda params"]),
        ({"optimizer": sharp}, {}, ["LBFGS", "closure"]),
        ({"optimizer": SGD([torch.ones(1)])}, {}, ["not the model's", "model.parameters()"]),
        ({"optimizer": SGD}, {"lr": 0.5}, ["lr=0.5: ", "lr=0.001"]),
        ({"optimizer": SGD}, {"weight_decay": 0.5}, ["weight_decay=0.5: ", "optimizer"]),
        ({"schedule": lambda optimizer: 3}, {}, ["returned a int", "StepLR"]),
        ({"schedule": lambda optimizer, steps: 3}, {}, ["needs steps", "total_steps"]),
        ({"schedule": lr_scheduler.ConstantLR}, {"warmup": 0.5}, ["warmup=0.5: ", "schedule"]),
        ({"schedule": lr_scheduler.ReduceLROnPlateau}, {}, "give validation images"),
        ({"loss": bce}, {"loss": "dice"}, "loss=dice: "),
        ({"loss": lambda logits, targets: 0}, {}, ["a lambda takes (logits, targets)", "valid"]),
        ({"on_step": lambda: None}, {}, ["on_step", "state"]),
        ({"on_step": lambda state: True}, {}, ["returned True", "state.stop()"]),
        ({"callbacks": print}, {}, ["neither on_step nor on_validation", "on_step="]),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(sam, data, refused, parts, settings, words):
    refused(words, fit, model_of(sam), data(True), None, config(**settings), **parts)


def test_a_plateau_is_waited_for_in_the_right_direction(sam, data, refused):
    schedule = {"schedule": lr_scheduler.ReduceLROnPlateau}
    refused("set mode='max'", fit, model_of(sam), data(True), data(False), config(), **schedule)


def test_a_resumed_training_has_the_same_optimiser(sam, data, tmp_path, refused):
    def run(**parts):
        fit(model_of(sam), data(True), None, config(), output=tmp_path, resume=resume, **parts)

    resume = False
    run(optimizer=lambda params: SGD(params, lr=0.1))
    resume = True
    refused(["samtune's own", "SGD"], run)
    refused(["SGD", "AdamW"], run, optimizer=AdamW)
    refused(["lr of the optimizer's group 0 was 0.1", "0.2"], run,
            optimizer=lambda params: SGD(params, lr=0.2))  # fmt: skip
    refused("schedule of the run was samtune's own", run, schedule=lr_scheduler.ConstantLR,
            optimizer=lambda params: SGD(params, lr=0.1))  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        {"accumulate": 2, "keep": ["point"], "keep_to": "targets"},
        {"precision": "bf16", "loss_at": "image"},
        {"multimask": True},
    ],
    ids="-".join,
)
def test_ones_own_loss_goes_with_the_settings(sam, data, settings):
    """Trained with a function of each mask, weights are those of the expression."""
    weights = []
    for how in ({"loss": bce}, {"loss": "bce"}):
        model = model_of(sam)
        fit(model, data(True), None, config(max_steps=2, **settings), **how)
        weights.append(model.state_dict())
    assert same(*weights)


class Watcher:
    def __init__(self, stop_at):
        self.steps, self.validations, self.stop_at = [], [], stop_at

    def on_step(self, state):
        assert state.model.training and state.total == 9 and math.isfinite(state.loss)
        self.steps.append(state.step)

    def on_validation(self, state):
        assert not state.model.training and state.metrics["step"] == state.step
        assert state.zero_shot["step"] == 0 and state.is_main
        self.validations.append((state.step, state.epoch, state.metrics["iou"]))
        if state.step == self.stop_at:
            state.stop()


def test_callbacks_see_the_training_and_stop_it(sam, data, tmp_path):
    watcher, rows = Watcher(stop_at=4), []
    c = config(max_steps=9)
    result = fit(model_of(sam), data(True), data(False), c, output=tmp_path, callbacks=watcher,
                 on_event=rows.append)  # fmt: skip
    assert result.steps == 4 and watcher.steps == [1, 2, 3, 4]
    assert [v[0] for v in watcher.validations] == [2, 4] and watcher.validations[1][1] == 4 / 3
    assert [row["step"] for row in rows if row["event"] == "val"] == [2, 4]
    assert (tmp_path / "best.safetensors").is_file()
    # it goes on, and where it is stopped between two validations there is one
    lines = []

    def stop(state):
        lines.append(str(state))
        if state.step == 7:
            state.stop()

    again = fit(model_of(sam), data(True), data(False), c, output=tmp_path, resume=True,
                on_event=rows.append, on_step=stop)  # fmt: skip
    assert again.steps == 7
    assert lines[0].startswith("step 5 of 9: loss ")
    assert "; validation of step 6: iou 0." in lines[2] and "\n" not in lines[2]
    assert str(again).startswith("7 steps in ") and "iou 0." in str(again)
    assert [row["step"] for row in rows if row["event"] == "val"] == [2, 4, 6, 7]


def test_what_a_callback_raises_keeps_its_traceback_and_loses_no_step(sam, data, tmp_path):
    def broken(state):
        if state.step == 3:
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine") as caught:
        fit(model_of(sam), data(True), None, config(), output=tmp_path, on_step=broken)
    assert caught.traceback[-1].name == "broken"
    steps = []
    fit(model_of(sam), data(True), None, config(), output=tmp_path, resume=True,
        on_step=lambda state: steps.append(state.step))  # fmt: skip
    assert steps == [4]
    assert all(b == a + 1 for a, b in pairwise(steps))
