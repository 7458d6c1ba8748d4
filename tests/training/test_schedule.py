import math
import re

import pytest

from samtune.errors import InputError
from samtune.losses import CLASS_LOSSES, DENSE_LOSSES, HEADS, LOSSES
from samtune.options import attribute_docs
from samtune.training.schedule import (
    FitConfig,
    batches_per_epoch,
    epoch_order,
    images_per_epoch,
    learning_rate,
    most_validations,
    stream_seed,
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


@pytest.mark.parametrize("images", [1, 3, 8, 9])
@pytest.mark.parametrize(("size", "world"), [(1, 1), (4, 1), (2, 2), (4, 3)])
def test_an_epoch_shows_every_image(images, size, world):
    parts = [epoch_order(images, size, 0, 1, rank, world) for rank in range(world)]
    assert {len(part) for part in parts} == {batches_per_epoch(images, size, world)}
    shown = [i for part in parts for batch in part for i in batch]
    assert set(shown) == set(range(images))
    counts = [shown.count(i) for i in range(images)]
    assert max(counts) - min(counts) <= 1
    assert all(len(set(batch)) == len(batch) for part in parts for batch in part)


@pytest.mark.parametrize(
    ("images", "size", "last", "sizes"),
    [
        (20, 8, "fill", [8, 8, 8]),
        (20, 8, "drop", [8, 8]),
        (20, 8, "short", [8, 8, 4]),
        (16, 8, "drop", [8, 8]),
        (16, 8, "short", [8, 8]),
        (5, 8, "fill", [5]),
        (5, 8, "drop", [5]),
        (5, 8, "short", [5]),
    ],
)
def test_the_last_batch(images, size, last, sizes):
    order = epoch_order(images, size, 0, 1, last=last)
    assert [len(batch) for batch in order] == sizes
    assert len(order) == batches_per_epoch(images, size, 1, last=last)
    whole = epoch_order(images, size, 0, 1)
    assert all(a == b[: len(a)] for a, b in zip(order, whole, strict=False))
    if last != "fill":
        shown = [i for batch in order for i in batch]
        assert len(set(shown)) == len(shown)


@pytest.mark.parametrize("last", ["drop", "short"])
def test_processes_have_as_many_and_as_large_batches(last):
    """Of 21 images each of two gets 11, one of them twice, as torch's sampler deals them out."""
    parts = [epoch_order(21, 4, 0, 1, rank, 2, last=last) for rank in range(2)]
    sizes = [[len(batch) for batch in part] for part in parts]
    assert sizes == [[4, 4] if last == "drop" else [4, 4, 3]] * 2
    assert batches_per_epoch(21, 4, 2, last=last) == len(sizes[0])
    shown = [i for part in parts for batch in part for i in batch]
    assert len(shown) - len(set(shown)) == (last == "short")


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
    ("images", "taken", "steps"), [(4040, 1010, 505), (1330, 333, 167), (10_553, 2639, 1320)]
)
def test_a_quarter_of_each_epoch_is_what_one_of_four_published_processes_saw(images, taken, steps):
    """TS-SAM's COD, ISTD and DUTS-TR, in batches of two."""
    assert images_per_epoch(images, 0.25) == taken
    assert batches_per_epoch(images, 2, 1, 0.25) == steps
    epochs = [epoch_order(images, 2, 0, epoch, share=0.25) for epoch in (0, 1)]
    shown = [{i for batch in order for i in batch} for order in epochs]
    assert [len(order) for order in epochs] == [steps, steps]
    assert [len(images) for images in shown] == [taken, taken]
    # two quarters drawn anew have a sixteenth of the images in common
    assert 0.5 * images / 16 < len(shown[0] & shown[1]) < 1.5 * images / 16


def test_processes_deal_out_one_part_of_the_images():
    whole = epoch_order(40, 20, 3, 2, share=0.5)
    parts = [epoch_order(40, 10, 3, 2, rank, 2, share=0.5) for rank in (0, 1)]
    assert sorted(parts[0][0] + parts[1][0]) == sorted(whole[0]) and len(set(whole[0])) == 20
    assert epoch_order(40, 10, 3, 2) == epoch_order(40, 10, 3, 2, share=1.0)


@pytest.mark.parametrize(
    ("images", "share", "taken"),
    [(100, 0.07, 7), (3, 1, 3), (3, 0.1, 1), (1, 0.25, 1), (9, 0.5, 5)],
)
def test_images_of_an_epoch(images, share, taken):
    assert images_per_epoch(images, share) == taken
    batches = epoch_order(images, 4, 0, 0, share=share)
    assert len({i for batch in batches for i in batch}) == taken
    assert len(batches) == batches_per_epoch(images, 4, 1, share)


def test_epochs_and_seeds_differ_in_order():
    orders = [epoch_order(32, 4, *key) for key in ((0, 0), (0, 1), (1, 0))]
    assert orders[0] != orders[1] and orders[0] != orders[2]
    assert orders[0] == epoch_order(32, 4, 0, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_steps", 0), ("epochs", -1), ("batch_size", 0), ("accumulate", 0), ("eval_every", 0),
        ("patience", 0), ("log_every", 0), ("lr", 0.0), ("lr", math.inf), ("min_lr", 1.5),
        ("warmup", -0.1), ("weight_decay", -1.0), ("clip", math.nan), ("loss", "dise"),
        ("epoch_share", 0.0), ("epoch_share", 1.01), ("epoch_share", math.nan),
    ],
)  # fmt: skip
def test_ranges(refused, name, value):
    refused(str(value), FitConfig, **{name: value})


def test_the_help_names_every_loss():
    text = attribute_docs(FitConfig)["loss"]
    for name in (*LOSSES, *CLASS_LOSSES, *HEADS, *DENSE_LOSSES):
        assert name in re.split(r"\W+", text)


def test_seeds_are_the_same_everywhere():
    assert stream_seed(0, 0) == 7896617691693857887
    assert len({stream_seed(*key) for key in ((0, 1), (1, 0), (0, 1, 0, 1), (2**62, 1))}) == 4


def test_an_unknown_metric_is_refused_with_the_nearest():
    with pytest.raises(InputError, match=r"^metric=weighted_g: .*weighted_f"):
        FitConfig(metric="weighted_g")
    assert FitConfig(metric="weighted_f").metric == "weighted_f"
