"""What is said of numbers that are bad, within chance, or of few images."""

import math

from samtune.metrics.intervals import FEW
from samtune.runs.remarks import few_images, shortfalls


def entry(before, tuned, ends=None, guesses=None, above=None):
    """One prompt mode: IoU of both sides, the interval of their difference, guesses."""
    side = lambda iou: {"iou": iou, "dice": iou}  # noqa: E731
    found = {"zero_shot": side(before)}
    if tuned is not None:
        found["tuned"] = side(tuned)
    found["guesses"] = {name: side(iou) for name, iou in (guesses or {}).items()}
    found["intervals"] = {
        "difference": {"iou": ends},
        "above_guesses": {name: {"iou": each} for name, each in (above or {}).items()},
    }
    return found


def test_a_gain_within_its_interval_is_remarked_and_no_harm():
    said = shortfalls(
        {"box": entry(0.80, 0.81, [-0.01, 0.03]), "none": entry(0.1, 0.5, [0.3, 0.5])}
    )
    assert said == [
        "tuned and zero-shot are not distinguishable (IoU: box +0.010, \N{MINUS SIGN}0.010 to "
        "+0.030): the 95 % interval of the difference contains 0"
    ]
    [said] = shortfalls({"box": entry(0.80, 0.79, [-0.03, 0.01])})
    assert "not distinguishable" in said and "worse" not in said
    [said] = shortfalls({"box": entry(0.80, 0.70, [-0.13, -0.05])})
    assert "worse than zero-shot (IoU: box 0.700, before 0.800)" in said
    # equal to the last digit: nothing was trained, and nothing is to be said
    assert shortfalls({"box": entry(0.8, 0.8, [0.0, 0.0])}) == []


def test_what_needs_no_model_is_to_be_beaten_by_more_than_chance():
    guesses, near = (
        {"filled box": 0.6, "inscribed ellipse": 0.78},
        {"inscribed ellipse": [-0.1, 0.2]},
    )
    [said] = shortfalls({"box": entry(0.5, 0.80, [0.2, 0.4], guesses, near)})
    assert "tuned is not distinguishable from guesses without a model (IoU: box 0.800" in said
    [said] = shortfalls({"none": entry(0.1, 0.12, [0.01, 0.03], {"whole image": 0.15})})
    assert "not better than guesses without a model (IoU: none 0.120, whole image 0.150)" in said
    [said] = shortfalls({"none": entry(0.1, None, guesses={"whole image": 0.15})})
    assert said.startswith("zero-shot is not better")
    clear = {"inscribed ellipse": [0.01, 0.03]}
    assert shortfalls({"box": entry(0.5, 0.8, [0.2, 0.4], guesses, clear)}) == []
    assert shortfalls({"box": entry(math.nan, None, guesses={"whole image": math.nan})}) == []


def test_few_images_are_remarked_with_the_number_below_which_they_are_few():
    assert few_images("test", FEW) is None and few_images("train", 1) is None
    assert few_images("test", 1) == "test: a single image, so its numbers say little; add some"
    for split, what in (("val", "best step"), ("test", "intervals")):
        said = few_images(split, 8)
        assert said.startswith(f"{split}: 8 images are few (fewer than {FEW})") and what in said


def test_chosen_metrics_without_a_number_are_named():
    box = entry(0.80, 0.90, [0.05, 0.15])
    box["metrics"] = {
        "iou_small": {"zero_shot": math.nan, "tuned": math.nan, "guesses": {}},
        "iou_large": {"zero_shot": None, "tuned": None},
        "iou": {"zero_shot": 0.8, "tuned": 0.9},
    }
    said = "iou_small, iou_large: nothing to measure, so there is no number"
    assert shortfalls({"box": box}) == [said]


def test_what_the_base_does_better_on_whole_images_is_remarked():
    near, far = entry(0.07, 0.16, [0.05, 0.12]), entry(0.052, 0.052, [0, 0])
    for one, whole, ends in ((near, 0.14, [-0.01, 0.05]), (far, 0.112, [-0.08, -0.04])):
        one["zero_shot_whole_images"] = {"iou": whole, "dice": whole}
        one["intervals"]["difference_whole_images"] = {"iou": ends}
    [said] = shortfalls({"box": near, "point": far})
    assert said.startswith("the base on whole images is better than tuned in its frame (IoU: point")
    assert "point 0.052, on whole images 0.112)" in said and "input.tiles=whole" in said
