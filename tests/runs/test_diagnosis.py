import math
from dataclasses import replace

import numpy as np
import pytest

from samtune.runs.diagnosis import (
    RULES,
    Colours,
    Evidence,
    colours_differ,
    diagnose,
    labels_disagree,
    misfits,
    objects_too_narrow,
    overfitted,
    prompt_ignored,
    rate_too_high,
    too_few_steps,
)

NAN = math.nan


def rows(losses=(), curve=(), zero_shot=0.5):
    """A training's log: a loss every ten steps, a validation beside each."""
    out = [{"event": "zero_shot", "step": 0, "iou": zero_shot}]
    out += [{"event": "train", "step": 10 * i, "loss": v} for i, v in enumerate(losses, 1)]
    return out + [{"event": "val", "step": 10 * i, "iou": v} for i, v in enumerate(curve, 1)]


def colours(red, green, blue, images=8, contrast=50.0):
    spread = np.linspace(-4, 4, images)[:, None]
    return Colours(np.array([[red, green, blue]]) + spread, np.full(images, contrast))


HEALTHY = Evidence(
    rows=rows([1.0, 0.8, 0.7, 0.65, 0.62, 0.6], [0.55, 0.62, 0.66, 0.68, 0.687, 0.689]),
    weights=(10.0, 11.0),
    width=1.2,
    wider=(),
    pairs=[(0.1, 0.0), (0.2, 0.0), (0.0, 0.0), (0.9, 0.8)],
    training={f"{i}.png": 0.75 + 0.02 * i for i in range(8)},
    training_before=0.55,
    colours={
        "train": colours(120, 80, 60),
        "val": colours(125, 82, 60),
        "test": colours(112, 79, 66),
    },
)


def test_a_healthy_run_gets_no_diagnosis():
    assert diagnose(HEALTHY) == []
    assert diagnose(Evidence()) == []
    assert all(rule(HEALTHY) is None for rule in RULES)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rows": rows([1.0, NAN, 0.7])}, ["up to step 20", "no number", "train.lr=0.0001"]),
        ({"rows": rows([1.0, None, 0.7])}, ["up to step 20"]),
        (
            {"rows": rows([0.9, 1.1, 1.4, 1.9, 1.8, 2.0])},
            ["rises from 1 to 1.9", "try train.lr=0.0001"],
        ),
        ({"weights": (10.0, 45.0)}, ["from 10 to 45"]),
        ({"weights": (10.0, NAN)}, ["from 10 to nan"]),
    ],
    ids=["nan", "null", "rising", "weights", "weights are no numbers"],
)
def test_a_rate_that_is_too_high(changes, said):
    (sentence,) = diagnose(replace(HEALTHY, **changes))
    assert sentence.startswith("train.lr=0.001 is too high: ")
    assert all(words in sentence for words in said)
    assert rate_too_high(HEALTHY) is None


FALLS = [0.770, 0.765, 0.768, 0.771, 0.770, 0.769]
"""Validations of a training that leaves the base, which has 0.809, and stays below it."""


def test_answers_below_those_of_the_base_have_a_cause():
    below = {"rows": rows(curve=FALLS, zero_shot=0.809), "training_before": 0.80}
    better, worse = ({f"{i}.png": iou for i in range(8)} for iou in (0.82, 0.79))
    (sentence,) = diagnose(replace(HEALTHY, **below, training=better))
    assert sentence.startswith("overfitted: IoU goes from 0.800 to 0.820 on training images, from ")
    (sentence,) = diagnose(replace(HEALTHY, **below, training=worse))
    assert sentence.startswith("train.lr=0.001 is too high: training images are answered no better")
    assert "(IoU 0.800 to 0.790)" in sentence
    changed = replace(HEALTHY, **below, training=worse, starts_as_base=False)
    assert diagnose(changed) == [], "such a model is below the base before its first step"
    far = replace(HEALTHY, rows=rows([3.4, 1.3], [0.155, 0.0], zero_shot=0.81))
    (sentence,) = diagnose(replace(far, training=dict.fromkeys("abcd", 0.2), training_before=0.6))
    assert "falls from 0.810 (zero-shot) to 0.155 at step 10, the first validation" in sentence
    assert diagnose(replace(far, rows=rows([3.4, 1.3], [0.6, 0.82], zero_shot=0.81))) == []
    assert "rises from 1 to 1.2" in (rate_too_high(Evidence(rows=rows([1.0, 1.2]))) or "")


def test_too_few_steps():
    curve = [0.5, 0.52, 0.55, 0.58, 0.61, 0.65]
    (sentence,) = diagnose(replace(HEALTHY, rows=rows(curve=curve)))
    assert "still rises, from 0.580 at step 40 to 0.650" in sentence
    assert sentence.endswith("try train.max_steps=120")
    for other in ([*curve[:-1], 0.6], [0.64, 0.645, 0.648, 0.649, 0.65], [0.5, 0.65]):
        assert too_few_steps(Evidence(rows=rows(curve=other))) is None


def test_objects_that_are_too_narrow():
    wider = [("input.tiles=tiled", 0.35), ("input.size=512", 0.3)]
    (sentence,) = diagnose(replace(HEALTHY, width=0.15, wider=wider))
    assert "only 0.15 tokens wide" in sentence
    assert sentence.endswith("try input.tiles=tiled (0.35), input.size=512 (0.3)")
    assert objects_too_narrow(replace(HEALTHY, width=0.15)) is None  # nothing would help


def test_a_prompt_that_is_ignored():
    alike = [(0.95, 0.0), (0.9, 0.0), (1.0, 0.1), (NAN, 0.0)]
    (sentence,) = diagnose(replace(HEALTHY, pairs=alike))
    assert "IoU 0.95, of their objects 0.03, in 3 pairs" in sentence
    for other in (alike[:2], [(0.9, 0.8)] * 4, [(0.3, 0.0)] * 4):
        assert prompt_ignored(replace(HEALTHY, pairs=other)) is None


def test_an_overfitted_model():
    fell = rows([1.0, 0.5, 0.2], [0.55, 0.56, 0.5])
    learnt = {f"{i}.png": 0.95 for i in range(8)}
    worse = replace(HEALTHY, rows=fell, training=learnt)
    (sentence,) = diagnose(worse)
    assert "from 0.550 to 0.950 on training images, from 0.500 to 0.560" in sentence
    assert "too high" not in sentence
    # a gap that the base has too is of the images, and one beside a gain is common
    assert overfitted(replace(worse, training_before=0.9)) is None
    assert overfitted(replace(HEALTHY, training=learnt)) is None
    assert overfitted(replace(worse, rows=())) is None


def test_labels_that_disagree():
    training = {**HEALTHY.training, "odd.png": 0.05, "none.png": NAN}
    evidence = replace(HEALTHY, training=training)
    (sentence,) = diagnose(evidence)
    assert "of 10 training images 1 cannot be fit (IoU: odd.png 0.05; median 0.81)" in sentence
    assert misfits(evidence) == ["odd.png"]
    low = {name: iou / 4 for name, iou in training.items()}
    assert labels_disagree(replace(HEALTHY, training=low)) is None  # none is fit
    half = {f"{i}.png": 0.9 if i % 2 else 0.1 for i in range(9)}
    assert labels_disagree(replace(HEALTHY, training=half)) is None  # no exceptions


@pytest.mark.parametrize(
    ("test", "said"),
    [
        (
            colours(60, 80, 120),
            "(120, 80, 60) in train and (60, 80, 120) in test, as if red and blue",
        ),
        (colours(87, 87, 87), "grey in one and coloured in the other"),
        (colours(40, 20, 10), "darker"),
        (colours(220, 190, 160, images=1), "brighter"),
        (colours(150, 110, 90, contrast=20.0), "brighter and with less contrast (50 and 20)"),
    ],
)
def test_splits_of_other_colours(test, said):
    evidence = replace(HEALTHY, colours={**HEALTHY.colours, "test": test})
    (sentence,) = diagnose(evidence)
    assert sentence.startswith("images differ between splits: ") and said in sentence
    few = Colours(np.array([[20.0, 20, 20], [200, 200, 200]]), np.full(2, 50.0))
    assert colours_differ(Evidence(colours={"train": few, "val": colours(150, 150, 150)})) is None
