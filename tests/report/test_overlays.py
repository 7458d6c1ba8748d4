"""Masks and prompts drawn over images."""

import numpy as np
import pytest

from samtune.report.overlays import (
    AFTER,
    CELL,
    GAP,
    PANEL,
    TRUTH,
    Overlay,
    colour_of,
    draw_overlay,
    strip,
)  # fmt: skip


def grey(height, width):
    return np.full((height, width, 3), 100, np.uint8)


def near(pixel, colour):
    """Equal but for the blending of a smooth line one pixel thick."""
    return np.abs(pixel.astype(int) - colour).max() <= 40


def test_mask_is_tinted_with_a_solid_contour_and_the_image_is_left_alone():
    image, mask = grey(50, 70), np.zeros((50, 70), bool)
    mask[10:30, 20:50] = True
    drawn = draw_overlay(image, mask)
    assert np.all(image == 100)
    assert drawn.dtype == np.uint8
    assert np.all(drawn[0, 0] == 100)
    assert near(drawn[10, 35], AFTER)
    assert np.array_equal(drawn[20, 35], np.round(62 + 0.38 * np.array(AFTER)).astype(np.uint8))


def test_outline_shows_where_it_departs_from_the_mask():
    mask, truth = np.zeros((2, 50, 70), bool)
    mask[10:30, 20:50], truth[10:30, 20:60] = True, True
    drawn = draw_overlay(grey(50, 70), mask, outline=truth)
    assert near(drawn[20, 59], TRUTH)
    assert near(drawn[20, 20], AFTER)


def test_each_of_several_objects_has_its_colour_and_its_contour():
    numbers = np.zeros((50, 70), np.int32)
    numbers[10:30, 20:40], numbers[10:30, 40:60] = 1, 2  # they touch
    drawn = draw_overlay(grey(50, 70), numbers)
    tints = [np.round(62 + 0.38 * np.array(colour_of(k))).astype(np.uint8) for k in (0, 1)]
    assert np.array_equal(drawn[20, 30], tints[0]) and np.array_equal(drawn[20, 50], tints[1])
    assert near(drawn[20, 39], AFTER) and near(drawn[20, 40], AFTER)
    numbers[numbers == 1] = 0
    assert np.array_equal(
        draw_overlay(grey(50, 70), numbers), draw_overlay(grey(50, 70), numbers > 0)
    )


def test_box_lies_where_it_is_said():
    drawn = draw_overlay(grey(60, 80), boxes=[(10, 20, 50, 40)])
    for row, column in ((20, 30), (40, 30), (30, 10), (30, 50)):
        assert np.all(drawn[row, column] == 255)
    assert np.all(drawn[30, 30] == 100)


def test_positive_and_negative_points_differ_in_shape():
    drawn = draw_overlay(grey(60, 120), points=[(30, 30, 1), (90, 30, 0)])
    plus, cross = drawn[26:35, 26:35], drawn[26:35, 86:95]
    assert near(plus[4, 4], (0, 0, 0))
    assert near(cross[4, 4], (255, 255, 255))
    assert not np.array_equal(plus, 255 - cross)


def test_lines_grow_with_the_image():
    thin = (draw_overlay(grey(200, 200), boxes=[(50, 50, 150, 150)]) == 255).all(-1)[100].sum()
    thick = (
        (draw_overlay(grey(2000, 2000), boxes=[(500, 500, 1500, 1500)]) == 255).all(-1)[1000].sum()
    )
    assert thick >= 6 * thin > 0


@pytest.mark.parametrize(
    ("size", "panel"),
    [((1, 1), (PANEL, PANEL)), ((300, 200), (300, 200)), ((50, 100), (200, 400)),
     ((960, 1440), (320, PANEL)), ((2000, 10), (PANEL, 2))],
)  # fmt: skip
def test_panels_are_scaled_by_whole_factors_up_and_to_the_limit_down(size, panel):
    mask = np.ones(size, bool)
    row = strip(Overlay("a", np.zeros((*size, 3), np.uint8), after=mask, iou_after=0.5))
    cell = max(panel[1], CELL)
    assert row.shape == (28 + 24 + panel[0] + GAP, 2 * (cell + GAP) + GAP, 3)


def test_prompts_mark_the_middle_of_enlarged_pixels():
    row = strip(Overlay("a", grey(10, 10), points=[(4, 4, 1)]))
    picture = row[52:532, 8:488]
    ys, xs = np.nonzero((picture != 100).any(-1))
    assert (ys.min() + ys.max()) / 2 == pytest.approx(4.5 * 48, abs=1)
    assert (xs.min() + xs.max()) / 2 == pytest.approx(4.5 * 48, abs=1)


def test_long_names_stay_inside_the_strip():
    row = strip(Overlay("n" * 500 + "\n\x00", grey(100, 100)))
    assert np.all(row[:28, -GAP + 2 :] == 255)
    assert (row[:28] < 128).any()


@pytest.mark.parametrize("part", ["mask", "outline"])
def test_masks_of_another_frame_are_refused(part):
    with pytest.raises(ValueError, match="bring it into the image's frame"):
        draw_overlay(grey(5, 6), **{part: np.ones((6, 5), bool)})
