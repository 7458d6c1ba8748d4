from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from samtune.ops.tiling import around, extent, least_crop, starts, weights

cuts = st.tuples(st.integers(1, 400), st.integers(1, 120), st.floats(0, 0.9))


@settings(deadline=None)
@given(cuts)
def test_windows_reach_from_end_to_end_and_overlap(cut):
    length, window, overlap = cut
    begins = starts(length, window, overlap)
    if window >= length:
        assert begins == [0]
        return
    assert begins[0] == 0 and begins[-1] == length - window
    steps = [b - a for a, b in pairwise(begins)]
    assert max(steps) <= max(1, window * (1 - overlap)) + 1


@settings(deadline=None)
@given(cuts)
def test_weights_sum_to_one_everywhere(cut):
    length, window, overlap = cut
    table = weights(length, min(window, length), starts(length, window, overlap))
    assert torch.allclose(table.sum(0), torch.ones(length, dtype=torch.float64), atol=1e-12)
    assert (table >= 0).all()


def test_a_window_alone_counts_alone_and_fades_under_a_neighbour():
    one, two = weights(100, 60, [0, 40])
    assert (one[:40] == 1).all() and (two[60:] == 1).all()
    assert (one[40:60].diff() < 0).all() and one[59] < 0.01
    [left] = weights(100, 60, [0])
    assert (left[:60] == 1).all() and (left[60:] == 0).all()


def test_the_extent_of_a_tile():
    assert extent((64, 64), 1.0, (200, 50)) == (64, 50)
    assert extent((64, 64), 0.5, (200, 150)) == (128, 128)


@pytest.mark.parametrize("box", [(40, 40, 50, 60), (-5, -5, 8, 3), (90, 190, 99, 199)])
def test_a_crop_lies_in_the_image_and_holds_the_box(box):
    y0, x0, y1, x1 = around(box, 0.5, least_crop((64, 64)), (200, 100))
    assert y0 >= 0 and x0 >= 0 and y1 <= 200 and x1 <= 100
    assert x0 <= max(box[0], 0) and y0 <= max(box[1], 0) and x1 >= box[2] and y1 >= box[3]
    assert y1 - y0 == x1 - x0 >= 16


def test_a_crop_has_its_margin_around():
    assert around((40, 40, 60, 50), 0.5, (1, 1), (200, 200)) == (25, 30, 65, 70)
    assert around((0, 0, 200, 100), 0.5, (1, 1), (200, 100)) == (0, 0, 200, 100)
