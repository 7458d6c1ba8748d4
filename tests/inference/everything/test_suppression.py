import numpy as np
import pytest
import torch
from plain_everything import iou

from samtune.inference.everything import suppression
from samtune.inference.everything.instances import Instances
from samtune.inference.everything.suppression import suppressed_boxes, suppressed_masks


def one_by_one(boxes, scores, threshold):
    stays = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(iou(boxes[i], boxes[k]) <= threshold for k in stays):
            stays.append(i)
    return stays


@pytest.mark.parametrize("block", [7, 1024])
def test_boxes_are_suppressed_as_one_by_one(block, monkeypatch):
    monkeypatch.setattr(suppression, "BLOCK", block)
    rng = np.random.default_rng(0)
    for count in (0, 1, 2, 150):
        corners = rng.integers(0, 30, (count, 2))
        boxes = np.concatenate([corners, corners + rng.integers(0, 12, (count, 2))], 1)
        scores = rng.integers(0, 20, count) / 20  # with ties
        for threshold in (0.0, 0.3, 0.7, 1.0):
            mine = suppressed_boxes(torch.tensor(boxes), torch.tensor(scores), threshold)
            assert mine.tolist() == one_by_one(boxes.tolist(), scores.tolist(), threshold)


def test_masks_are_compared_where_boxes_say_too_little():
    lower = np.tri(20, dtype=bool)
    size, upper = (20, 20), ~lower
    almost = lower.copy()
    almost[10, 3] = False
    instances = Instances.of_masks([lower, upper, almost], size, [0.5, 0.6, 0.9])
    boxes, scores = torch.from_numpy(instances.boxes), torch.from_numpy(instances.scores)
    assert len(suppressed_boxes(boxes, scores, 0.7)) == 1
    assert suppressed_masks(instances, 0.7).tolist() == [2, 1]
    assert suppressed_masks(Instances.none(size), 0.7).tolist() == []
