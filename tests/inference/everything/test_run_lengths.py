import numpy as np
import pytest
from pycocotools import mask as coco

from samtune.inference.everything.run_lengths import area_of, box_of, lengths, packed, unpacked

# pycocotools 2.0 decodes through an old way into NumPy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def masks():
    rng = np.random.default_rng(0)
    yield np.zeros((1, 1), bool)
    yield np.ones((1, 1), bool)
    yield np.ones((7, 5), bool)
    yield np.zeros((7, 5), bool)
    for size in ((1, 9), (9, 1), (40, 30), (300, 70)):
        for share in (0.02, 0.5, 0.98):
            yield rng.random(size) < share


def test_run_lengths_are_those_of_pycocotools():
    for mask in masks():
        theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
        counts = packed(mask)
        assert counts == theirs["counts"].decode("ascii")
        size = (mask.shape[0], mask.shape[1])
        assert np.array_equal(unpacked(counts, size), mask)
        assert area_of(counts) == mask.sum() == lengths(counts)[1::2].sum()
        assert lengths(counts).sum() == mask.size


def test_a_window_is_packed_and_unpacked_without_the_image():
    rng = np.random.default_rng(1)
    size = (50, 60)
    for y0, x0, y1, x1 in ((0, 0, 50, 60), (0, 10, 50, 30), (7, 0, 9, 60), (49, 59, 50, 60)):
        whole = np.zeros(size, bool)
        whole[y0:y1, x0:x1] = rng.random((y1 - y0, x1 - x0)) < 0.7
        whole[y0, x0] = whole[y1 - 1, x1 - 1] = True
        counts = packed(whole[y0:y1, x0:x1], (x0, y0), size)
        assert counts == packed(whole)
        assert np.array_equal(unpacked(counts, size, (3, 2, 40, 50)), whole[2:50, 3:40])
        assert box_of(counts, size) == (x0, y0, x1, y1)
