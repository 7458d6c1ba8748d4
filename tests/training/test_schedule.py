import math
import re

import pytest

from samtune.errors import InputError
from samtune.losses import CLASS_LOSSES, DENSE_LOSSES, HEADS, LOSSES
from samtune.options import attribute_docs
from samtune.training.schedule import (
    FitConfig,
    learning_rate,
    most_validations,
    total_steps,
    validates,
)


def test_warm_up_and_cosine():
    config = FitConfig(lr=1.0, warmup=0.1, min_lr=0.2)
    rates = [learning_rate(config, step, 100) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert rates[54] == pytest.approx(0.2 + 0.8 / 2)  # half of the way from 10 to 100
    assert rates[-1] == pytest.approx(0.2)
    assert rates[9:] == sorted(rates[9:], reverse=True)


def test_a_cosine_by_epochs_is_constant_within_one():
    config = FitConfig(lr=1.0, warmup=0, min_lr=0, cosine="epoch", accumulate=2)
    rates = [learning_rate(config, step, 30, 12) for step in range(1, 31)]  # six steps an epoch
    expected = [0.5 * (1 + math.cos(math.pi * epoch / 5)) for epoch in range(5)]
    assert rates == pytest.approx([rate for rate in expected for _ in range(6)])


def test_kyyles_cosine_has_the_published_rates():
    """Of 250 batches and 20 epochs the last, and of 5 batches the first seven of 10 epochs."""
    config = FitConfig(lr=2e-4, warmup=0, min_lr=0, cosine="kyyle")
    assert learning_rate(config, 250 * 20, 250 * 20, 250) == pytest.approx(1.97e-4, abs=5e-7)
    rates = [learning_rate(config, 1 + 5 * epoch, 50, 5) for epoch in range(7)]
    published = [2e-4, 1.81e-4, 1.31e-4, 6.9e-5, 1.9e-5, 0, 1.9e-5]
    assert rates == pytest.approx(published, abs=5e-7)
    assert learning_rate(config, 5, 50, 5) == 2e-4


def test_a_single_step_has_the_full_rate():
    assert learning_rate(FitConfig(lr=2.0), 1, 1) == 2.0


@pytest.mark.parametrize(
    ("settings", "batches", "steps"),
    [
        ({"max_steps": 7}, 3, 7),
        ({"epochs": 2}, 3, 6),
        ({}, 3, 60),
        ({"epochs": 2, "max_steps": 4}, 3, 4),
        ({"epochs": 2, "max_steps": 9}, 3, 6),
        ({"epochs": 3, "accumulate": 2}, 3, 5),
        ({"epochs": 1, "accumulate": 8}, 3, 1),
    ],
)
def test_total_steps(settings, batches, steps):
    assert total_steps(FitConfig(**settings), batches) == steps


@pytest.mark.parametrize(
    ("settings", "batches", "total", "steps"),
    [
        ({}, 7, 30, [7, 14, 21, 28, 30]),
        ({}, 7, 700, list(range(35, 701, 35))),
        ({"accumulate": 4}, 2, 3, [1, 2, 3]),
        ({"eval_epochs": 1}, 7, 23, [7, 14, 21, 23]),
        ({"eval_epochs": 3}, 7, 50, [21, 42, 50]),
        # epochs of three batches end within the second, fourth, ... of two each
        ({"eval_epochs": 1, "accumulate": 2}, 3, 6, [2, 3, 5, 6]),
        ({"eval_epochs": 1, "accumulate": 8}, 3, 3, [1, 2, 3]),
        ({"eval_epochs": 3, "eval_every": 5}, 7, 12, [5, 10, 12]),
    ],
)
def test_steps_of_validations(settings, batches, total, steps):
    config = FitConfig(**settings)
    assert [k for k in range(total + 1) if validates(config, k, total, batches)] == steps


def test_validations_cost_no_more_than_the_training():
    # 120 steps of 4 images, each thrice; 16 images whole, 100, and 16 in 36 tiles each
    most = [most_validations(FitConfig(), 120, encodings) for encodings in (0, 16, 100, 16 * 36)]
    assert most == [20, 20, 14, 4]
    assert most_validations(FitConfig(), 120, 100, detached=True) == 4
    assert most_validations(FitConfig(accumulate=2), 120, 400, world=2) == 14
    steps = [k for k in range(121) if validates(FitConfig(), k, 120, 1, most[-1])]
    assert steps == [30, 60, 90, 120]
    assert validates(FitConfig(eval_every=7), 7, 120, 1, 4), "what somebody set holds"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_steps", 0), ("epochs", -1), ("batch_size", 0), ("accumulate", 0), ("eval_every", 0),
        ("patience", 0), ("log_every", 0), ("lr", 0.0), ("lr", math.inf), ("min_lr", 1.5),
        ("warmup", -0.1), ("weight_decay", -1.0), ("clip", math.nan), ("loss", "dise"),
        ("epoch_fraction", 0.0), ("epoch_fraction", 1.01), ("epoch_fraction", math.nan),
    ],
)  # fmt: skip
def test_ranges(refused, name, value):
    refused(str(value), FitConfig, **{name: value})


def test_the_help_names_every_loss():
    text = attribute_docs(FitConfig)["loss"]
    for name in (*LOSSES, *CLASS_LOSSES, *HEADS, *DENSE_LOSSES):
        assert name in re.split(r"\W+", text)


def test_an_unknown_metric_is_refused_with_the_nearest():
    with pytest.raises(InputError, match=r"^metric=weighted_g: .*weighted_f"):
        FitConfig(metric="weighted_g")
    assert FitConfig(metric="weighted_f").metric == "weighted_f"
