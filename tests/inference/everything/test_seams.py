import numpy as np
import pytest

from samtune.inference.everything.instances import Instances
from samtune.inference.everything.seams import joined_windows

SIZE = (40, 100)
LEFT, RIGHT = (0, 0, 60, 40), (40, 0, 100, 40)


def disc(x, y, r):
    ys, xs = np.mgrid[: SIZE[0], : SIZE[1]]
    return (ys - y) ** 2 + (xs - x) ** 2 <= r**2


def seen(window, *discs, scores=None):
    x0, y0, x1, y1 = window
    frame = np.zeros(SIZE, bool)
    frame[y0:y1, x0:x1] = True
    return window, Instances.of_masks([disc(*d) & frame for d in discs], SIZE, scores)


def test_an_object_across_a_seam_is_one():
    across, small = (50, 20, 15), (10, 10, 5)
    result = joined_windows([seen(LEFT, across, small), seen(RIGHT, across)], 0.5, 0.7)
    assert len(result) == 2
    masks = sorted(result.masks(), key=lambda mask: -mask.sum())
    assert np.array_equal(masks[0], disc(*across)) and np.array_equal(masks[1], disc(*small))


def test_what_one_window_cuts_and_another_holds_whole_is_taken_from_there():
    cut = (57, 20, 8)  # its window sees a part that its neighbour sees otherwise
    neighbour = [(57, 20, 8), (90, 10, 4)]
    result = joined_windows([seen(LEFT, cut), seen(RIGHT, *neighbour)], 0.99, 0.9)
    assert sorted(result.areas.tolist()) == sorted(int(disc(*d).sum()) for d in neighbour)


def test_neighbours_that_touch_stay_apart():
    first, second = (45, 8, 6), (52, 30, 8)
    result = joined_windows([seen(LEFT, first, second), seen(RIGHT, second, first)], 0.5, 0.7)
    assert sorted(result.areas.tolist()) == sorted(int(disc(*d).sum()) for d in (first, second))


def test_scores_are_weighted_by_pixels_and_nothing_is_joined_of_nothing():
    across = (50, 20, 15)
    parts = [seen(LEFT, across, scores=[0.4]), seen(RIGHT, across, scores=[0.8])]
    areas = [part.areas[0] for _, part in parts]
    score = joined_windows(parts, 0.5, 0.7).scores[0]
    assert score == pytest.approx(np.average([0.4, 0.8], weights=areas))
    nothing = [(window, Instances.none(SIZE)) for window in (LEFT, RIGHT)]
    assert len(joined_windows(nothing, 0.5, 0.7)) == 0
