"""Published conventions against the numbers that their own code gives."""

import math

import deterministic
import numpy as np
import pytest
import torch

from samtune.metrics import Seen, Suite
from samtune.metrics.config import EvalConfig
from samtune.metrics.saliency import SaliencyMetrics
from samtune.metrics.shadow import BalancedError

SIZE = (96, 128)


def seen(probability, target, **kwargs):
    """One image whose model frame is its own."""
    probability, target = torch.as_tensor(probability), torch.as_tensor(target)[None]
    view = Seen(probability[None] > 0.5, target, probability=probability, **kwargs)
    return Seen(view.predicted, target, probability=probability, frame=view, total=4)


def measured(names, *images):
    suite = Suite(EvalConfig(tuple(names)))
    for image in images:
        suite.update(image)
    return suite.compute()


@pytest.fixture
def example():
    target = np.zeros(SIZE, bool)
    target[20:60, 30:90] = True
    noise = np.random.RandomState(7).random_sample(SIZE)
    return target, {
        "A": noise,
        "B": 0.7 * target + 0.3 * noise,
        "C": np.roll(0.6 * target, (5, 9), (0, 1)) + 0.4 * noise,
    }


GOLDEN = {  # S, mean E, weighted F with beta^2 0.3, MAE, balanced error; of TS-SAM's code, whose
    # files of metrics are SAM-Adapter's to the byte
    "A": (0.33140516, 0.39093949, 0.17440159, 0.49515551, 0.49452872),
    "B": (0.88947604, 0.75334813, 0.49905754, 0.14853272, 0.0),
    "C": (0.67295022, 0.61988513, 0.33678832, 0.25811898, 0.15922330),
}


@pytest.mark.parametrize("which", GOLDEN)
@pytest.mark.parametrize("system", ["ts_sam", "sam_adapter"])
def test_side_networks(example, which, system):
    target, maps = example
    names = [f"{k}_{system}" for k in ("s_measure", "e_measure", "weighted_f", "mae", "ber")]
    found = measured(names, seen(maps[which], target))
    assert list(found.values()) == pytest.approx(GOLDEN[which], abs=1e-7)


STANDARD = {  # of the same maps: E max and adaptive, weighted F; F with beta^2 0.3, as in EVEN
    "A": (0.72294156, 0.26798530, 0.23340650, 0.01507732, 0.21495318, 0.24139111),
    "B": (1.00008139, 1.00008139, 0.58948321, 1.0, 0.75335588, 1.0),
    "C": (0.90731580, 0.89813893, 0.41223756, 0.72823048, 0.51661233, 0.74375),
}
EVEN = {  # F with beta^2 1, the default of the published code: adaptive, mean, max
    "A": (0.00732899, 0.25697898, 0.32693363),
    "B": (1.0, 0.74715385, 1.0),
    "C": (0.71233471, 0.51588698, 0.74375),
}
SIDES = {"A": (0.48541667, 0.50364078), "B": (0.0, 0.0), "C": (0.25625, 0.06219660)}


@pytest.mark.parametrize("which", STANDARD)
def test_the_standard_saliency_of_the_same_maps(example, which):
    target, maps = example
    names = ["e_max", "e_adaptive", "weighted_f", "f_adaptive", "f_mean", "f_max"]
    found = measured(names, seen(maps[which], target))
    assert [found[name] for name in names] == pytest.approx(STANDARD[which], abs=1e-8)


@pytest.mark.parametrize("which", EVEN)
def test_f_weighs_precision_and_recall_as_it_is_told(example, which):
    target, maps = example
    names = ["f_adaptive", "f_mean", "f_max"]
    metric = SaliencyMetrics(names, beta2=1.0)
    metric.update(seen(maps[which], target))
    found = metric.compute()
    assert [found[name] for name in names] == pytest.approx(EVEN[which], abs=1e-8)


@pytest.mark.parametrize("which", SIDES)
def test_the_errors_in_shadow_and_light_at_the_published_cut(example, which):
    target, maps = example
    metric = BalancedError(125 / 255)
    metric.update(seen(maps[which], target))
    found = metric.compute()
    both = found["shadow_error"], found["lit_error"]
    assert both == pytest.approx(SIDES[which], abs=1e-8)


def test_sam_adapter_by_its_own_measurement():
    target = np.zeros((128, 160), bool)
    target[30:90, 40:120] = True
    noise = deterministic.u01("metric", target.size).reshape(target.shape)
    image = seen(0.15 + 0.5 * target + 0.3 * noise, target)
    names = [f"{k}_sam_adapter" for k in ("s_measure", "e_measure", "weighted_f", "mae")]
    found = measured([*names, "e_adaptive"], image)
    golden = (0.86142231, 0.69628706, 0.48443352, 0.18819707, 0.96773776)
    assert list(found.values()) == pytest.approx(golden, abs=1e-8)
    metric = BalancedError(125 / 255)
    metric.update(seen(0.25 + 0.25 * target + 0.4 * noise, target))
    found = metric.compute()
    sides = found["shadow_error"], found["lit_error"], found["ber"]
    assert sides == pytest.approx((0, 0.403826530612, 0.201913265306), abs=1e-12)


def test_balanced_error_by_image_and_pooled(example):
    target, maps = example
    corner = np.zeros(SIZE, bool)
    corner[:4, :4] = True
    names = ["ber", "ber_ts_sam", "shadow_error", "lit_error"]
    images = seen(maps["B"], target), seen(maps["C"], corner)
    found = measured(names, *images)
    assert found["ber_ts_sam"] == pytest.approx(0.29889179, abs=1e-7)
    sides = []
    for image in images:
        metric = BalancedError(125 / 255)
        metric.update(image)
        each = metric.compute()
        sides.append((each["shadow_error"], each["lit_error"]))
    assert np.mean(sides, 0) == pytest.approx([0.5, 0.09778357], abs=1e-8)
    strict = [Seen((i.frame.probability > 125 / 255)[None], i.target) for i in images]
    found = measured(["ber", "shadow_error", "lit_error"], *strict)
    assert list(found.values()) == pytest.approx([0.05746288, 0.00662252, 0.10830325], abs=1e-7)


def test_an_image_without_shadow():
    empty = seen(np.full(SIZE, 0.6), np.zeros(SIZE, bool))
    found = measured(["ber_ts_sam", "ber", "ber_per_image", "shadow_error"], empty)
    assert math.isnan(found["ber_ts_sam"]) and math.isnan(found["shadow_error"])
    assert found["ber"] == found["ber_per_image"] == 1


@pytest.mark.parametrize("at", [(0, 0), (95, 127), (95, 3), (40, 50)])
def test_s_measure_of_a_single_pixel(at):
    target = np.zeros(SIZE, bool)
    target[at] = True
    found = measured(["s_measure", "s_measure_ts_sam"], seen(0.2 + 0.5 * target, target))
    assert found["s_measure_ts_sam"] == 0
    assert 0 < found["s_measure"] <= 1


def test_cat_sam_pools_the_foreground():
    target, none = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    target[:2] = True
    row, pixel = np.zeros((4, 4)), np.zeros((4, 4))
    row[0], pixel[3, 3] = 1, 1
    names = ["iou_cat_sam", "iou_per_image", "miou", "shadow_error", "lit_error"]
    found = measured(names, seen(row, target), seen(pixel, none))
    assert found["iou_cat_sam"] == pytest.approx(4 / 9)
    assert found["iou_per_image"] == 0.25
    assert 2 * found["miou"] - found["iou_cat_sam"] == pytest.approx(0.821429, abs=1e-6)
    wrong = 8 * found["shadow_error"] + 24 * found["lit_error"]  # of all 32 pixels
    assert 1 - wrong / 32 == pytest.approx(0.84375)


def test_cat_sam_counts_what_was_not_asked_for():
    masks = torch.zeros(1, 4, 4, dtype=torch.bool)
    masks[0, 0] = True
    whole = masks[0].clone()
    whole[3, 3] = True
    image = Seen(masks, masks, whole=whole)
    assert measured(["iou_cat_sam"], image)["iou_cat_sam"] == pytest.approx(4 / 5)
    # and no other metric does
    assert measured(["miou", "ber"], image) == {"miou": 1, "ber": 0}


def test_kyyle_smooths():
    target = np.zeros((4, 4), bool)
    target[0] = True
    found = measured(["iou_kyyle", "dice_kyyle"], seen(np.zeros((4, 4)), target))
    assert found["iou_kyyle"] == pytest.approx(1e-3 / 4.001)
    assert found["dice_kyyle"] == pytest.approx(1e-3 / 4.001)


def gsam(predicted, target, classes, index=0, total=4):
    masks = [torch.tensor(m) == torch.arange(classes)[:, None] for m in (predicted, target)]
    view = Seen(*(m[:, None] for m in masks), classes=torch.arange(classes), mapped=True)
    return Seen(view.predicted, view.target, mapped=True, frame=view, index=index, total=total)


def test_gsam_gives_an_absent_class_minus_one():
    suite = Suite(EvalConfig(("miou_gsam", "miou_gsam_dropped")), maps=True, classes=3)
    suite.update(gsam([0, 0, 1, 1], [0, 1, 1, 1], 3, index=0, total=5))
    first = (1 / 2 + 2 / 3 - 1) / 3
    assert suite.compute()["miou_gsam"] == pytest.approx(first, abs=1e-6)
    suite.update(gsam([2, 2, 2, 2], [2, 2, 2, 2], 3, index=4, total=5))  # of no full batch
    found = suite.compute()
    assert found["miou_gsam"] == pytest.approx((1 / 2 + 2 / 3 + 1) / 3, abs=1e-6)
    assert found["miou_gsam_dropped"] == pytest.approx(first, abs=1e-6)


def test_gsam_takes_one_half_as_inside():
    target = np.array([[True, True, False, False]])
    found = measured(["miou_gsam"], seen(np.array([[0.5, 0.9, 0.4, 0.5]]), target))
    assert found["miou_gsam"] == pytest.approx((1 / 2 + 2 / 3) / 2, abs=1e-6)


def test_gsam_softly_of_classes_by_batches_of_four():
    """Against the equation, written out over whole batches."""
    random = torch.Generator().manual_seed(5)
    logits, label = torch.randn(9, 3, 4, 5, generator=random), torch.zeros(9, 4, 5).long()
    label[:4] = torch.randint(0, 3, (4, 4, 5), generator=random)
    label[4:8, :2] = 1  # class 2 is absent from the second batch; the ninth image is of none
    valid = torch.rand(9, 4, 5, generator=random) > 0.1
    suite = Suite(EvalConfig(("miou_gsam_soft",)), maps=True, classes=3)
    for i in reversed(range(9)):
        truth = label[i] == torch.arange(3)[:, None, None]
        met = truth.flatten(1).any(1).nonzero()[:, 0]
        shares, view = logits[i].softmax(0), truth[met]
        frame = Seen(view, view, valid[i], classes=met, mapped=True, class_probabilities=shares)
        suite.update(Seen(view, view, mapped=True, frame=frame, index=i, total=9))
    scores = []
    for batch in (slice(0, 4), slice(4, 8)):
        keep = valid[batch, None]
        p = logits[batch].softmax(1) * keep
        y = torch.nn.functional.one_hot(label[batch], 3).permute(0, 3, 1, 2) * keep
        both = (p * y).sum((0, 2, 3))
        scores.append(both / ((p**2).sum((0, 2, 3)) + (y**2).sum((0, 2, 3)) - both))
    expected = float(torch.stack(scores).mean())
    assert suite.compute()["miou_gsam_soft"] == pytest.approx(expected, abs=1e-6)


def test_gsam_softly_of_a_foreground():
    p, y = np.array([[0.25, 1.0, 0.0, 0.5]]), np.array([[True, True, False, False]])
    images = [seen(p, y) for _ in range(4)]
    front = 1.25 / (0.0625 + 1 + 0.25 + 2 - 1.25)
    back = 1.5 / (0.5625 + 1 + 0.25 + 2 - 1.5)
    found = measured(["miou_gsam_soft"], *images)
    assert found["miou_gsam_soft"] == pytest.approx((front + back) / 2)
    few = Seen(images[0].predicted, images[0].target, frame=images[0].frame, total=3)
    assert math.isnan(measured(["miou_gsam_soft"], few)["miou_gsam_soft"])
