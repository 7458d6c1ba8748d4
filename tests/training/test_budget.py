"""Trainings that are as long as a time, by a clock that the test moves."""

import json
from types import SimpleNamespace

import pytest
import torch

from samtune.data.opening import open_data
from samtune.model.finetuned import FineTuned
from samtune.training import saves, trainer
from samtune.training.budget import Budget, Outside
from samtune.training.durations import seconds_in
from samtune.training.engine import fit
from samtune.training.objective import Objective
from samtune.training.schedule import FitConfig
from samtune.training.validation import Validation


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("30m", 1800),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("1 h 5 min", 3900),
    ],
)
def test_durations(text, seconds):
    assert seconds_in(text) == seconds


@pytest.mark.parametrize(
    "text", ["30", "0s", "m", "half an hour", "1:30", "-5m", "30m1h", "1..5h", ""]
)
def test_what_is_no_duration_is_refused(refused, text):
    refused([f"time={text}: must be a duration, as 90s, 30m, 2h or 1h30m"], FitConfig, time=text)


class Clock:
    """Time that passes only where the test says so."""

    def __init__(self, monkeypatch, step, validation):
        self.now, self.step, self.validation = 0.0, step, validation
        for module in (trainer, saves):
            monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: self.now))
        forward, measure = Objective.forward, Validation.measure

        def one_step(objective, *given):
            self.now += self.step
            return forward(objective, *given)

        def one_validation(validation, *given):
            self.now += self.validation
            return measure(validation, *given)

        monkeypatch.setattr(Objective, "forward", one_step)
        monkeypatch.setattr(Validation, "measure", one_validation)


@pytest.fixture
def training(sam, pairs, tmp_path):
    def run(rows=None, outside=None, **settings):
        torch.manual_seed(1)
        model = FineTuned(sam, "lora", "tuned")
        data = open_data(pairs)
        settings = {"batch_size": 2, "keep": "none", "log_every": 1, "eval_every": 10, **settings}
        begun = (tmp_path / "last").exists()
        return fit(
            model, data.train, data.val, FitConfig(**settings), output=tmp_path,
            on_event=(rows if rows is not None else []).append, resume=begun, outside=outside,
        )  # fmt: skip

    return run


def test_a_training_ends_in_time_and_goes_on_with_what_is_left(training, monkeypatch, tmp_path):
    clock = Clock(monkeypatch, step=6.0, validation=6.0)
    rows = []
    result = training(rows, time="3m", outside=Outside(before=10, images_after=2))
    told = next(row for row in rows if row["event"] == "time")
    assert (told["seconds_per_step"], told["seconds_per_validation"]) == (6, 6)
    assert result.end == "time" and abs(result.steps - told["steps"]) <= 2
    steps = [row["step"] for row in rows if row["event"] == "val"]
    assert steps[-1] == result.steps, "the last step is validated"
    # one validation at the start, all that the choice may measure, and two images after it
    assert 135 <= clock.now <= 170
    rates = [row["lr"] for row in rows if row["event"] == "train"]
    assert max(rates) == pytest.approx(3e-4, rel=0.05) and rates[-1] < 0.1 * max(rates)
    assert (tmp_path / "best.safetensors").is_file()
    state = json.loads((tmp_path / "last" / "state.json").read_text())
    assert state["pace"] == {"step": 6.0, "validation": 6.0, "longest": 6.0}

    same = training(time="3m")
    assert same.steps == result.steps, "nothing is left"
    more = training(time="4m")
    assert more.steps > result.steps + 3 and more.end == "time"
    assert clock.now <= 240


def test_a_time_that_is_over_before_the_first_step_still_leaves_a_checkpoint(
    training, monkeypatch, tmp_path
):
    Clock(monkeypatch, step=50.0, validation=100.0)
    result = training(time="90s")
    assert (result.steps, result.end) == (1, "time")
    assert (tmp_path / "best.safetensors").is_file()


def test_the_earlier_end_counts(training, monkeypatch):
    Clock(monkeypatch, step=1.0, validation=1.0)
    result = training(time="10m", max_steps=5)
    assert (result.steps, result.end) == (5, "steps")


def test_a_machine_that_slows_down_ends_in_time_too(training, monkeypatch):
    clock = Clock(monkeypatch, step=3.0, validation=3.0)
    rows = []

    def slower(row):
        rows.append(row)
        if row["event"] == "train" and row["step"] == 8:
            clock.step = 10.0

    result = training(SimpleNamespace(append=slower), time="90s")
    planned = next(row["steps"] for row in rows if row["event"] == "time")
    assert result.steps < planned and result.end == "time" and clock.now <= 105


def test_a_schedule_of_a_known_length_is_refused(sam, pairs, refused):
    data = open_data(pairs)

    def schedule(optimizer, total_steps):
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)

    model, words = (
        FineTuned(sam, decoder="tuned"),
        "time=1h: the given schedule takes total_steps",
    )
    refused(words, fit, model, data.train, config=FitConfig(time="1h"), schedule=schedule)


def test_without_validations_the_first_steps_tell_the_pace():
    budget = Budget(FitConfig(time="100s"), batches=10)
    assert budget.total(0, 200, 0.0) == 200, "nothing is known"
    budget.note_step(9.0)
    budget.total(1, 200, 9.0)
    budget.note_step(1.0)
    assert budget.total(2, 10, 10.0) == 92
