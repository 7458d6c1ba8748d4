"""Instances: what shares pixels, what matches, and what is left out."""

import time

import numpy as np
import pytest
import torch
from pycocotools import mask as coco

from samtune.metrics import Seen
from samtune.metrics.instance_result import InstanceResult, overlaps_of, run_lengths_of_map
from samtune.metrics.instances import AveragePrecision, InstanceScores
from samtune.metrics.matching import best_sum_pairs, closest_pairs, largest_number


def runs(*masks):
    """Run lengths of masks."""
    return [coco.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]


def squares(count, side=3, gap=1, shift=0):
    """A label map of squares in rows of a hundred; the shift moves every second one."""
    rows = -(-count // 100)
    step = side + gap
    labels = np.zeros((rows * step, min(count, 100) * step), np.int32)
    for k in range(count):
        y, x = k // 100 * step, k % 100 * step + (shift if k % 2 else 0)
        labels[y : y + side, x : x + side] = k + 1
    return labels


def result(predicted, target, **others):
    """An image from two label maps; every mask has its number as its score."""
    masks = run_lengths_of_map(predicted, int(predicted.max(initial=0)))
    scores = np.arange(len(masks), dtype=float)
    targets = run_lengths_of_map(target, int(target.max(initial=0)))
    return InstanceResult(masks, targets, scores=scores, **others)


def scores_of(*images):
    metrics = InstanceScores(["aji_plus"]), AveragePrecision()
    for image in images:
        for metric in metrics:
            metric.update(image)
    return metrics[0].compute() | metrics[1].compute()


def test_the_objects_of_a_map_become_run_lengths():
    random = np.random.default_rng(0)
    for shape in ((7, 5), (1, 1), (1, 9), (9, 1)):
        labels = random.integers(0, 4, shape)
        masks = run_lengths_of_map(labels, 5)
        assert masks == runs(*(labels == k + 1 for k in range(5)))
    assert run_lengths_of_map(np.zeros((4, 4), int), 0) == []


def test_overlaps_are_those_of_the_pixels():
    random = np.random.default_rng(1)
    masks, targets = random.random((2, 9, 20, 30)) > 0.7
    targets[3] = masks[4] = False
    ignored = random.random((20, 30)) > 0.8
    targets &= ~ignored
    overlaps = overlaps_of(runs(*masks), runs(*targets), *runs(ignored))
    common = np.zeros((9, 9), int)
    common[overlaps.row, overlaps.column] = overlaps.pixels
    assert np.array_equal(common, np.einsum("dhw,ghw->dg", masks * 1, targets * 1))
    assert np.array_equal(overlaps.predicted, (masks & ~ignored).sum((1, 2)))
    assert np.array_equal(overlaps.target, targets.sum((1, 2)))
    order = random.permutation(9)
    again = overlaps.in_order(order).only(np.arange(9) > 1, np.arange(9) < 7)
    assert np.array_equal(
        sorted(zip(again.row, again.column, again.pixels, strict=True)),
        [(d, g, common[order[2:], :7][d, g]) for d, g in np.argwhere(common[order[2:], :7])],
    )


def test_the_largest_number_of_matches_is_found_also_where_masks_and_targets_overlap():
    from scipy.sparse import coo_array, csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    for seed in range(60):
        random = np.random.default_rng(seed)
        row, column = np.nonzero(random.random((random.integers(1, 14), 9)) < 0.25)
        graph = csr_array(coo_array((np.ones(len(row), int), (row, column)), shape=(14, 9)))
        best = (maximum_bipartite_matching(graph, perm_type="column") >= 0).sum()
        assert largest_number(row, column) == best


def test_the_closest_and_the_best_sum_differ_where_one_mask_is_torn_between_two():
    target = np.zeros((1, 20), int)
    target[:, :10], target[:, 10:] = 1, 2
    predicted = np.zeros((1, 20), bool)
    masks = predicted.copy(), predicted.copy()
    masks[0][:, 2:9] = True  # lies in the first alone
    masks[1][:, 5:14] = True  # closer to the first than to the second
    overlaps = overlaps_of(runs(*masks), run_lengths_of_map(target, 2))
    assert closest_pairs(overlaps).tolist() == [0, 2]
    assert sorted(best_sum_pairs(overlaps).tolist()) == [0, 2]
    masks[0][:, 5:9] = False  # now the second mask is closest to the first target
    overlaps = overlaps_of(runs(*masks), run_lengths_of_map(target, 2))
    pairs = {name: {(int(overlaps.row[k]), int(overlaps.column[k])) for k in chosen}
             for name, chosen in (("closest", closest_pairs(overlaps)),
                                  ("best", best_sum_pairs(overlaps)))}  # fmt: skip
    assert pairs["closest"] == {(1, 0)} and pairs["best"] == {(0, 0), (1, 1)}


def test_degenerate_images_have_the_stated_values():
    nothing, some = np.zeros((40, 40), int), squares(4, 5)
    whole = np.ones((30, 30), int)
    perfect = scores_of(result(some, some), result(whole, whole))
    names = ("ap", "ap50", "ap75", "msa", "sa50", "sa75", "pq", "sq", "rq", "aji", "aji_plus")
    assert [perfect[name] for name in names] == pytest.approx([1] * len(names))
    assert perfect["count_error"] == perfect["count_bias"] == perfect["count_error_relative"] == 0
    missed = scores_of(result(nothing[:6, :24], some))
    assert all(missed[name] == 0 for name in names) and missed["count_bias"] == -4
    assert missed["count_error_relative"] == 1
    invented = scores_of(result(some, nothing[:6, :24]))
    assert {invented[name] for name in ("msa", "pq", "aji", "aji_plus")} == {0}
    assert invented["count_bias"] == invented["count_error"] == 4
    assert np.isnan(invented["ap"]) and np.isnan(invented["count_error_relative"])
    empty = scores_of(result(nothing, nothing))
    assert all(np.isnan(empty[name]) for name in (*names, "count_error_relative"))
    assert empty["count_error"] == empty["count_bias"] == 0
    pixel = np.ones((1, 1), int)
    assert scores_of(result(pixel, pixel))["msa"] == 1
    # an image with neither adds nothing to means over images, but to errors of counts
    both = scores_of(result(some, some), result(nothing, nothing))
    assert both["msa"] == both["aji"] == 1 and both["count_error"] == 0


def test_a_mask_that_is_mostly_ignored_counts_only_if_it_matches():
    target, predicted = np.zeros((2, 20, 20), int)
    ignored = np.zeros((20, 20), bool)
    ignored[:, 10:] = True
    target[2:8, 2:8] = predicted[2:8, 2:8] = 1
    predicted[12:18, 8:18] = 2  # a fifth of it lies in the counted half
    crowd = {"ignored": runs(ignored)[0]}
    scores = scores_of(result(predicted, target, **crowd))
    assert scores["msa"] == scores["pq"] == scores["aji"] == 1 and scores["count_bias"] == 0
    assert scores["ap50"] == pytest.approx(1) and scores["ap"] < 1  # COCO counts it from 0.85 on
    without = scores_of(result(predicted, target))
    assert without["sa50"] == 0.5 and without["count_bias"] == 1
    ignored[:, 4:] = True  # most of the match too: its counted part is the target's
    cut = scores_of(result(predicted, target * ~ignored, ignored=runs(ignored)[0]))
    assert cut["msa"] == 1 and cut["count_error"] == 0


def test_average_precision_counts_all_masks_of_an_automatic_mode_and_100_prompted_ones():
    labels = squares(150)
    assert scores_of(result(labels, labels))["ap"] == pytest.approx(1)
    masks = torch.from_numpy(labels == np.arange(1, 151)[:, None, None])
    prompted = Seen(masks, masks, scores=torch.ones(150))
    assert scores_of(prompted)["ap"] == pytest.approx(67 / 101)


def test_sizes_are_those_of_targets_and_of_masks_without_one():
    """Half of the small targets are missed, and a medium mask is invented."""
    target, predicted = np.zeros((2, 200, 200), int)
    target[:20, :20], target[:20, 30:50], target[50:170, 50:170] = 1, 2, 3
    predicted[:20, :20], predicted[50:170, 50:170], predicted[180:200, :60] = 1, 2, 3
    scores = scores_of(result(predicted, target))
    assert scores["msa"] == 0.5 and scores["msa_large"] == scores["aji_large"] == 1
    assert scores["msa_small"] == scores["aji_small"] == 0.5
    assert scores["msa_medium"] == scores["aji_medium"] == scores["pq_medium"] == 0
    assert scores["pq_small"] == pytest.approx(1 / 1.5)
    sizes = ("_small", "_medium", "_large")
    assert [scores[f"count_error{size}"] for size in sizes] == [1, 1, 0]


def test_thousands_of_instances_take_seconds_and_no_dense_masks():
    target, predicted = squares(3000, 9, 1), squares(3000, 9, 1, shift=1)
    image, start = result(predicted, target), time.process_time()
    scores = scores_of(image)
    assert time.process_time() - start < 8
    assert image.overlaps.row.size == 3000 and scores["sa75"] == 1
    # half of them fit, the others overlap by 8 of 9 columns: an IoU of 0.8, and no more
    assert scores["msa"] == pytest.approx(np.mean([1] * 7 + [1 / 3] * 3))
