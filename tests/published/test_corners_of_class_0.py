from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from changes import drawn

from samtune.data import Labels
from samtune.data.draws import Draws
from samtune.data.labels import label_objects
from samtune.data.transforms import cropped_rotated
from samtune.geometry import InputPolicy
from samtune.runs.words import from_words


@pytest.mark.parametrize(("name", "inside"), [("isbi2012", 1), ("m_building", 1), ("kvasir", 0)])
def test_corners_are_what_generalized_sam_trains_as_class_0(name, inside):
    """There masks of 255 are class 0 on the first two sets, as the corners are, and 1 on Kvasir."""
    config = from_words([f"gsam-vit_b-{name}"])
    white = label_objects(np.full((60, 60), 255, np.uint8), config.data, Path("mask.png"))
    assert int(white.map.min()) == 1 - inside
    data = replace(config.data, augment="none", crop=None)
    _, turned = cropped_rotated(
        np.full((60, 60, 3), 255, np.uint8),
        white,
        data,
        InputPolicy((60, 60), "stretch"),
        Draws(np.random.default_rng(0)),
    )
    assert turned.map.min() == 0
    assert (turned.map == 0).all() == bool(inside)
    assert turned.valid.all()


@pytest.mark.parametrize("voided", [False, True])
def test_empty_corners_may_be_background(voided):
    mask = np.zeros((40, 40), np.uint8)
    mask[4:16, 10:30] = 1
    valid = np.ones((40, 40), bool)
    valid[20:24, 18:22] = not voided
    labels = Labels(mask, np.zeros(1, np.int64), valid if voided else None)
    image = np.full((40, 40, 3), 90, np.uint8)
    plain = {"size": (40, 40), "rotate": 90.0, "masks": "binary"}
    for seed in range(5):
        _, left_out = drawn(image, labels, seed, **plain)
        moved, counted = drawn(image, labels, seed, **plain, corners="class_0")
        np.testing.assert_array_equal(counted.map, left_out.map)
        corners = moved[..., 0] == 0
        np.testing.assert_array_equal(counted.valid, left_out.valid | corners)
        assert counted.valid.all() != voided


@pytest.mark.parametrize("present", [False, True])
@pytest.mark.parametrize("background", [None, 0, 2])
def test_empty_corners_may_be_class_0(present, background):
    """As Generalized SAM fills them; an image need not have class 0 itself."""
    mask = np.full((40, 40), 1, np.uint8)
    mask[:, 20:] = 2
    classes = np.array([3, 0] if present else [3, 1], np.int64)
    settings = {"rotate": 90.0, "masks": "classes", "classes": 4, "background": background}
    image = np.full((40, 40, 3), 90, np.uint8)
    moved, labels = drawn(image, Labels(mask, classes), 3, (40, 40), **settings, corners="class_0")
    corners = moved[..., 0] == 0
    assert corners.mean() > 0.1 and labels.valid.all()
    if background == 0:
        assert not labels.map[corners].any()
    else:
        assert (labels.map[corners] > 0).all()
        assert (labels.classes[labels.map[corners] - 1] == 0).all()
    assert (labels.map[~corners] > 0).all()
