"""The strength of each kind of prompt, from validations by strength."""

import numpy as np
import pytest

from samtune.training.criterion import Criterion
from samtune.training.kinds import Kind, row_of, shared_by_trained, strengths_of
from samtune.training.validation import Measurement

CLICKS = (Kind("none", ("none",), False), Kind("point", ("point",), True))


def measured(**row):
    """A validation whose criterion is the same in every draw of its images."""
    row = {key.replace("_at_", "@"): value for key, value in row.items()} | {"step": 4}

    def draw(criterion):
        return np.full(3, criterion.value(row))

    return Measurement(row, 3, lambda: draw(Criterion.parse("iou")), draw_by=draw)


def chosen(metric, own_mode, kinds=CLICKS, **by_level):
    """The strengths, and the criterion at them, of rows for the strengths 0, 0.5 and 1."""
    levels = dict(zip((0.0, 0.5, 1.0), by_level.values(), strict=True))
    criterion = Criterion.parse(metric)
    strength = strengths_of(kinds, levels, criterion, own_mode, 1.0)
    rows = {level: one.row for level, one in levels.items()}
    return strength, criterion.value(row_of(rows, strength, criterion, own_mode))


def test_a_trained_kind_is_judged_by_what_the_criterion_says_of_it():
    rows = {
        "base": measured(iou=0.7, iou_at_point=0.6, iou_at_none=0.2),
        "half": measured(iou=0.9, iou_at_point=0.5, iou_at_none=0.2),
        "full": measured(iou=0.8, iou_at_point=0.65, iou_at_none=0.2),
    }
    strength, value = chosen("iou", "clicks", **rows)
    assert strength.by_kind == {"none": 0.0, "point": 0.5} and value == 0.9, "all of the clicks"
    strength, _ = chosen("iou@point", "clicks", **rows)
    assert strength.by_kind["point"] == 1.0, "the first click alone, as the criterion says"


def test_an_automatic_mode_is_judged_as_the_prompts_that_it_makes():
    rows = {
        "base": measured(iou=0.5, iou_at_none=0.2, **{"ap_at_everything": 0.1}),
        "half": measured(iou=0.6, iou_at_none=0.2, **{"ap_at_everything": 0.05}),
        "full": measured(iou=0.7, iou_at_none=0.2, **{"ap_at_everything": 0.02}),
    }
    strength, value = chosen("ap@everything", "point", **rows)
    assert not strength and value == 0.1, "more of something else is no reason"


def test_kinds_that_are_trained_may_share_one_strength():
    strength = shared_by_trained(CLICKS, 0.75)
    assert strength.by_kind == {"none": 0.0, "point": 0.75} and float(strength) == 0.75
    assert not shared_by_trained(CLICKS, 0.0)


@pytest.mark.parametrize("metric", ["iou@box", "min(iou@box,iou@point)"])
def test_a_kind_of_which_the_criterion_says_nothing_has_its_own_mean(metric):
    rows = {
        "base": measured(iou=0.1, **{"iou_at_box": 0.6, "iou_at_point": 0.6, "iou_at_none": 0.1}),
        "half": measured(iou=0.3, **{"iou_at_box": 0.6, "iou_at_point": 0.6, "iou_at_none": 0.3}),
        "full": measured(iou=0.2, **{"iou_at_box": 0.5, "iou_at_point": 0.5, "iou_at_none": 0.2}),
    }
    kinds = (Kind("none", ("none",), True), Kind("box", ("box",), True))
    strength, _ = chosen(metric, "none" if metric == "iou@box" else "box", kinds, **rows)
    assert strength.by_kind == {"none": 0.5, "box": 0.0}


def test_the_number_of_a_criterion_follows_from_those_of_its_prompts():
    worst = "min(iou@point,iou@none)"
    rows = {
        "base": measured(iou=0.3, iou_at_point=0.6, iou_at_none=0.3, **{worst: 0.3}),
        "half": measured(iou=0.3, iou_at_point=0.5, iou_at_none=0.35, **{worst: 0.35}),
        "full": measured(iou=0.1, iou_at_point=0.7, iou_at_none=0.1, **{worst: 0.1}),
    }
    strength, value = chosen(worst, "none", **rows)
    assert strength.by_kind == {"none": 0.5, "point": 1.0} and value == 0.35
