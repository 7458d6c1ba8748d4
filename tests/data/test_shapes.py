import cv2
import numpy as np
import pytest
from PIL import Image

from samtune.data import DataConfig, splits
from samtune.data.shapes import measure, widths_of


@pytest.mark.parametrize("wide", [1, 3, 5, 9])
def test_a_curve_is_as_wide_as_it_is_whatever_way_it_winds(wide):
    canvas = np.ones((200, 200), np.uint8)
    turns = np.linspace(0, 4 * np.pi, 400)
    curve = np.stack(
        [100 + (10 + 6 * turns) * np.cos(turns), 100 + (10 + 6 * turns) * np.sin(turns)]
    )
    cv2.polylines(canvas, [curve.T.round().astype(np.int32)], False, 0)
    near = cv2.distanceTransform(canvas, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) < wide / 2
    assert widths_of(near.astype(np.uint8), 1) == pytest.approx([wide], rel=0.2)


def test_each_object_of_a_map_has_its_width_also_beside_others_and_at_the_border():
    rows, columns = np.mgrid[:120, :120]
    disc = np.hypot(rows - 60, columns - 60) < 30
    labels = np.zeros((120, 120), np.int32)
    labels[disc & (columns < 60)], labels[disc & (columns >= 60)] = 1, 2
    labels[:, :4], labels[0:0] = 4, 3
    halves = widths_of(labels, 4)
    assert halves[0] == pytest.approx(halves[1], rel=0.1) and 15 < halves[0] < 25
    assert halves[2] == 0  # no pixel
    assert halves[3] == pytest.approx(8 / (np.pi / 4))  # only its inner edge is an outline
    assert widths_of(np.where(disc, 1, 0), 1) == pytest.approx([30], rel=0.05)
    assert widths_of(np.ones((10, 20), int), 1) == [10]


def test_a_bounded_part_of_the_masks_is_measured(tmp_path):
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for i in range(12):
        mask = np.zeros((40, 60), np.uint8)
        mask[10:20, 5 : 25 + i] = 255 if i else 0
        Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / "images" / f"{i:02}.png")
        Image.fromarray(mask).save(tmp_path / "masks" / f"{i:02}.png")
    data = DataConfig(root=str(tmp_path), val_fraction=0.1, test_fraction=0.1)
    records = [record for part in splits(data).values() for record in part]
    records.sort(key=lambda record: record.name)
    shapes = measure(records, data)
    assert (shapes.images, len(shapes)) == (12, 11)  # one mask has no object
    assert shapes.lengths.tolist() == [float(20 + i) for i in range(1, 12)]
    assert (shapes.sizes == [40, 60]).all()
    few = measure(records, data, most_images=3)
    assert few.images == 3 and few.lengths.tolist() == [26.0, 31.0]
