"""IoU and Dice against torchmetrics and closed forms; sums that do not depend on the split."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import binary_f1_score, binary_jaccard_index

from samtune.metrics import MaskMetrics, filled_box, inscribed_ellipse, iou_dice


@pytest.fixture
def random():
    return torch.Generator().manual_seed(0)


def masks(random, n, size=(9, 12), density=0.4):
    return (torch.rand(n, *size, generator=random) < density for _ in range(2))


def test_iou_and_dice_are_torchmetrics_own(random):
    predicted, target = masks(random, 6)
    iou, dice = iou_dice(predicted, target)
    for i in range(6):
        assert iou[i].item() == pytest.approx(binary_jaccard_index(predicted[i], target[i]).item())
        assert dice[i].item() == pytest.approx(binary_f1_score(predicted[i], target[i]).item())


def test_ignored_pixels_are_as_if_cut_out(random):
    predicted, target = masks(random, 4)
    valid = torch.zeros(9, 12, dtype=torch.bool)
    valid[2:7, 3:] = True
    cut = iou_dice(predicted[:, 2:7, 3:], target[:, 2:7, 3:])
    torch.testing.assert_close(iou_dice(predicted, target, valid), cut, rtol=0, atol=0)
    each = valid.expand(4, -1, -1)
    torch.testing.assert_close(iou_dice(predicted, target, each), cut, rtol=0, atol=0)


def test_degenerate_masks_follow_the_stated_policy():
    none, full = torch.zeros(1, 3, 3, dtype=torch.bool), torch.ones(1, 3, 3, dtype=torch.bool)
    one = none.clone()
    one[0, 1, 1] = True
    predicted = torch.cat([none, none, full, full, one])
    target = torch.cat([none, full, none, full, full])
    iou, dice = iou_dice(predicted, target)
    assert iou.tolist() == [1, 0, 0, 1, 1 / 9]
    assert dice.tolist() == [1, 0, 0, 1, 2 / 10]
    nowhere = torch.zeros(3, 3, dtype=torch.bool)
    assert iou_dice(full, none, nowhere)[0].tolist() == [1]


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    shape=st.tuples(st.integers(0, 4), st.integers(1, 8), st.integers(1, 8)),
    density=st.sampled_from([0.0, 0.1, 0.9, 1.0]),
)
def test_values_are_fractions_symmetric_and_tied_to_each_other(seed, shape, density):
    random = torch.Generator().manual_seed(seed)
    predicted, target = masks(random, shape[0], shape[1:], density)
    iou, dice = iou_dice(predicted, target)
    assert iou.shape == dice.shape == shape[:1]
    assert ((iou >= 0) & (iou <= dice) & (dice <= 1)).all()
    torch.testing.assert_close(dice, 2 * iou / (1 + iou))
    torch.testing.assert_close(iou_dice(target, predicted), (iou, dice), rtol=0, atol=0)
    assert torch.equal(iou == 1, (predicted == target).all(2).all(1))


@pytest.mark.parametrize(
    ("predicted", "target", "rule"),
    [
        (torch.zeros(1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.bool), "threshold"),
        (torch.ones(1, 2, 2).bool(), torch.ones(1, 2, 3).bool(), "bring both"),
        (torch.ones(2, 2).bool(), torch.ones(2, 2).bool(), "bring both"),
    ],
)
def test_masks_that_cannot_be_compared_are_refused(predicted, target, rule):
    with pytest.raises(ValueError, match=rule):
        iou_dice(predicted, target)


# --- streaming


def test_means_pools_and_classes_are_the_closed_forms(random):
    predicted, target = masks(random, 6)
    target[4] = False
    classes = torch.tensor([2, 0, 2, 2, 0, 7])
    metrics = MaskMetrics()
    metrics.update(predicted, target, classes=classes)
    result = metrics.compute()
    iou, dice = iou_dice(predicted, target)

    def expected(keep):
        p, t = predicted[keep], target[keep]
        return {
            "iou": pytest.approx(iou[keep].mean().item()),
            "dice": pytest.approx(dice[keep].mean().item()),
            "iou_pooled": pytest.approx(binary_jaccard_index(p, t).item()),
            "dice_pooled": pytest.approx(binary_f1_score(p, t).item()),
            "objects": int(keep.sum()),
            "empty": int((~t.any(2).any(1)).sum()),
        }

    assert list(result["by_class"]) == [0, 2, 7]
    for index, values in result.pop("by_class").items():
        assert values == expected(classes == index)
    assert result == expected(torch.ones(6, dtype=torch.bool))
    assert result["empty"] == 1


def test_without_classes_there_is_no_table_by_class(random):
    metrics = MaskMetrics()
    metrics.update(*masks(random, 3))
    assert metrics.compute()["by_class"] == {}
    assert metrics.compute()["objects"] == 3


def close(a, b):
    """Whether two results agree: counts exactly, fractions to the last digits of float64."""
    table = a.pop("by_class"), b.pop("by_class")
    assert a == pytest.approx(b, rel=1e-14, abs=0, nan_ok=True)
    assert table[0].keys() == table[1].keys()
    for index, row in table[0].items():
        assert row == pytest.approx(table[1][index], rel=1e-14, abs=0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), cuts=st.lists(st.integers(0, 10), max_size=4))
def test_the_result_does_not_depend_on_the_batches(seed, cuts):
    random = torch.Generator().manual_seed(seed)
    predicted, target = masks(random, 10, (4, 5))
    classes = torch.randint(0, 3, (10,), generator=random)
    valid = torch.rand(4, 5, generator=random) > 0.2
    whole, parts = MaskMetrics(max_classes=3), MaskMetrics(max_classes=3)
    whole.update(predicted, target, valid, classes)
    for a, b in pairwise([0, *sorted(cuts), 10]):
        parts.update(predicted[a:b], target[a:b], valid, classes[a:b])
    close(parts.compute(), whole.compute())


def halves(random, **kwargs):
    """One object over everything, and two over unequal parts of images of two sizes."""
    whole, first, second = MaskMetrics(), MaskMetrics(**kwargs), MaskMetrics()
    for part, n, size in ((first, 5, (6, 7)), (second, 2, (9, 4))):
        update = *masks(random, n, size), None, torch.arange(n)
        part.update(*update)
        whole.update(*update)
    return whole, first, second


def test_two_merged_are_one_over_all(random):
    whole, first, second = halves(random)
    first.merge_state(second)
    close(first.compute(), whole.compute())


def test_processes_add_up_and_keep_their_own_share(random):
    other = {}

    def gather(tensor, group):
        return [tensor, other[tensor.dtype]]

    kwargs = {"dist_sync_fn": gather, "distributed_available_fn": lambda: True}
    whole, first, second = halves(random, **kwargs)
    other.update({s.dtype: s for s in (second.counts, second.sums)})
    close(first.compute(), whole.compute())
    assert first.counts.sum(0)[0] == 5


def test_no_data_is_told_without_a_warning_and_reset_forgets(random):
    metrics = MaskMetrics()
    fresh = metrics.compute()
    assert fresh["objects"] == 0
    assert math.isnan(fresh["iou"])
    assert math.isnan(fresh["iou_pooled"])
    metrics.update(*masks(random, 3))
    assert metrics.compute()["objects"] == 3
    metrics.reset()
    close(metrics.compute(), fresh)


def test_an_image_without_prompts_adds_nothing(random):
    metrics = MaskMetrics()
    metrics.update(*masks(random, 0), None, torch.zeros(0, dtype=torch.long))
    assert metrics.compute()["objects"] == 0


@pytest.mark.parametrize(
    ("classes", "rule"),
    [([0, 3], "raise max_classes"), ([-1, 0], "must lie in 0 to 2"), ([0], "one per mask")],
)
def test_classes_that_do_not_fit_are_refused(classes, rule, random):
    metrics = MaskMetrics(max_classes=3)
    with pytest.raises(ValueError, match=rule):
        metrics.update(*masks(random, 2), None, torch.tensor(classes))
    assert metrics.compute()["objects"] == 0


# --- guesses without a model


def test_the_tight_box_of_a_rectangle_fills_it_exactly():
    mask = torch.zeros(1, 7, 9, dtype=torch.bool)
    mask[0, 2:5, 3:8] = True
    assert torch.equal(filled_box(torch.tensor([[3.0, 2, 8, 5]]), (7, 9)), mask)


def test_small_ellipses_are_drawn_by_their_pixel_centres():
    boxes = torch.tensor([[0.0, 0, 5, 5], [1, 1, 3, 3], [0, 0, 4, 2]])
    drawn = [["".join(".#"[p] for p in row) for row in m] for m in inscribed_ellipse(boxes, (5, 5))]
    assert drawn[0] == [".###.", "#####", "#####", "#####", ".###."]
    assert drawn[1] == [".....", ".##..", ".##..", ".....", "....."]
    assert drawn[2] == ["####.", "####.", ".....", ".....", "....."]


def test_areas_approach_the_geometry():
    box = torch.tensor([[10.3, 20.6, 190.1, 110.9]])
    area = (190.1 - 10.3) * (110.9 - 20.6)
    assert filled_box(box, (128, 200)).sum().item() == pytest.approx(area, rel=0.01)
    assert inscribed_ellipse(box, (128, 200)).sum().item() == pytest.approx(
        math.pi / 4 * area, rel=0.01
    )


@settings(max_examples=50, deadline=None)
@given(
    box=st.tuples(*[st.floats(-20, 30)] * 4),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
)
def test_the_ellipse_lies_in_its_box_and_mirrors_with_it(box, size):
    boxes = torch.tensor([box]).mul(8).round().div(8)  # exact under mirroring
    ellipse = inscribed_ellipse(boxes, size)
    assert not (ellipse & ~filled_box(boxes, size)).any()
    mirrored = torch.stack(
        [size[1] - boxes[:, 2], boxes[:, 1], size[1] - boxes[:, 0], boxes[:, 3]], 1
    )
    assert torch.equal(inscribed_ellipse(mirrored, size).flip(2), ellipse)


@pytest.mark.parametrize("guess", [filled_box, inscribed_ellipse])
def test_boxes_without_an_inside_give_no_pixel(guess):
    boxes = torch.tensor([[2.5, 2.5, 2.5, 2.5], [0, 2.5, 5, 2.5], [4, 4, 1, 1], [math.nan] * 4])
    assert not guess(boxes, (5, 5)).any()
    assert guess(boxes[:0], (5, 5)).shape == (0, 5, 5)
