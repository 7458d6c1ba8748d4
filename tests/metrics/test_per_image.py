"""Numbers of drawn images are those that the metric itself has of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from image_results import images

from samtune.metrics import MEASURES, MaskMetrics, Suite
from samtune.metrics.config import EvalConfig
from samtune.metrics.contract import ALWAYS
from samtune.metrics.intervals import draws
from samtune.metrics.per_image import PerImage, Resampling

OTHERS = tuple(name for name in MEASURES if name not in ALWAYS)


def test_every_metric_of_a_draw_is_that_of_the_images_drawn():
    shown, suite = images(), Suite(EvalConfig(OTHERS))
    for image in shown:
        suite.update(image)
    values = {
        family: Resampling(each.metric, each.additions).values
        for family, each in suite.per_image.items()
    }
    for draw, counts in enumerate(next(draws(len(shown)))[:3]):
        again = Suite(EvalConfig(OTHERS))
        for image, times in zip(shown, counts, strict=True):
            for _ in range(times):
                again.update(image)
        found = again.compute()
        for name in OTHERS:
            if name == "miou_gsam_soft":  # drawn by batches, see below
                continue
            value = values[MEASURES[name].family][MEASURES[name].key][draw]
            assert value == pytest.approx(found[name], rel=1e-9, nan_ok=True), name


def test_what_is_averaged_by_batch_is_drawn_by_batch():
    shown, suite = images(8), Suite(EvalConfig(("miou_gsam_soft",)))
    for image in shown:
        suite.update(image)
    [each] = suite.per_image.values()
    drawn = Resampling(each.metric, each.additions)
    halves = []
    for half in (shown[:4], shown[4:]):
        one = Suite(EvalConfig(("miou_gsam_soft",)))
        for index, image in enumerate(half):
            one.update(replace(image, index=index, total=4))
        halves.append(one.compute()["miou_gsam_soft"])
    assert drawn.units == 2
    values = drawn.values["miou_gsam_soft"]
    expected = np.concatenate(list(draws(2))) @ halves / 2
    assert values == pytest.approx(expected)
    assert expected.std() > 0


def test_iou_and_dice_of_all_and_of_each_class():
    shown, each = images(), PerImage(MaskMetrics())
    for place, image in enumerate(shown):
        classes = None if image.classes is None else 7 + 5 * image.classes
        each.update(place, image.predicted, image.target, image.valid, classes)
    drawn = Resampling(each.metric, each.additions)
    assert drawn.classes == [7, 12] and drawn.units == len(shown)
    counts = next(draws(len(shown)))
    for draw in range(3):
        again = MaskMetrics()
        for image, times in zip(shown, counts[draw], strict=True):
            for _ in range(times):
                again.update(image.predicted, image.target, image.valid, 7 + 5 * image.classes)
        found = again.compute()
        for name in ("iou", "dice", "iou_pooled", "dice_pooled"):
            assert drawn.values[name][draw] == pytest.approx(found[name])
            for k, index in enumerate(drawn.classes):
                value = found["by_class"].get(index, {}).get(name, np.nan)
                assert drawn.values[f"class_{name}"][draw, k] == pytest.approx(value, nan_ok=True)


def test_images_without_masks_are_drawn_too_and_none_at_all_is_no_error():
    each = PerImage(MaskMetrics())
    assert Resampling(each.metric, each.additions).values == {}
    masks = torch.zeros(0, 4, 4, dtype=torch.bool)
    each.update(0, masks, masks)
    full = torch.ones(1, 4, 4, dtype=torch.bool)
    each.update(1, full, full)
    drawn = Resampling(each.metric, each.additions)
    assert drawn.units == 2
    known = drawn.values["iou"]
    assert 0.15 < np.isnan(known).mean() < 0.35 and np.nanmin(known) == 1  # a quarter draws nothing
