import numpy as np
import pytest
from pycocotools import mask as coco

from samtune.errors import InputError
from samtune.inference.everything.instances import Instances

# pycocotools 2.0 decodes through an old way into NumPy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE = (20, 30)


def rectangle(x0, y0, x1, y1):
    mask = np.zeros(SIZE, bool)
    mask[y0:y1, x0:x1] = True
    return mask


@pytest.fixture
def instances():
    masks = [rectangle(2, 3, 12, 9), rectangle(0, 0, 0, 0), rectangle(4, 4, 6, 8)]
    masks += [rectangle(0, 0, 30, 20)]
    return Instances.of_masks(masks, SIZE, [0.5, 0.9, 0.7, 0.6], classes=[1, 2, 3, 1])


def test_masks_are_kept_with_what_is_known_of_each(instances):
    assert len(instances) == 3  # the empty one is left out
    assert instances.scores.tolist() == pytest.approx([0.5, 0.7, 0.6])
    assert instances.classes.tolist() == [1, 3, 1]
    assert instances.areas.tolist() == [60, 8, 600]
    assert instances.boxes.tolist() == [[2, 3, 12, 9], [4, 4, 6, 8], [0, 0, 30, 20]]
    assert np.array_equal(instances.mask(1), rectangle(4, 4, 6, 8))
    assert instances.part(1).shape == (4, 2) and instances.part(1).all()
    assert [mask.sum() for mask in instances.masks()] == [60, 8, 600]


def test_the_smallest_mask_is_seen_in_a_label_map(instances):
    labels = instances.label_map()
    assert labels.dtype == np.int32 and labels.shape == SIZE
    assert {int(k): int((labels == k).sum()) for k in np.unique(labels)} == {1: 52, 2: 8, 3: 540}
    equal = Instances.of_masks([rectangle(0, 0, 2, 2), rectangle(1, 0, 3, 2)], SIZE, [0.9, 0.2])
    assert equal.label_map()[0, :4].tolist() == [1, 1, 2, 0]


def test_a_label_map_comes_back(instances):
    labels = instances.label_map() * 7  # with gaps
    again = Instances.of_label_map(labels, instances.scores, classes=instances.classes)
    assert np.array_equal(again.label_map() * 7, labels)
    assert again.scores.tolist() == instances.scores.tolist()
    assert len(Instances.of_label_map(np.zeros((1, 1), int))) == 0
    assert Instances.of_label_map(np.ones((1, 1), np.uint8)).boxes.tolist() == [[0, 0, 1, 1]]
    with pytest.raises(ValueError, match="scores of 2 for 3 masks"):
        Instances.of_label_map(labels, [1, 2])


def test_instances_are_chosen_joined_and_put_in_order(instances):
    assert instances.by_score().scores.tolist() == pytest.approx([0.7, 0.6, 0.5])
    both = Instances.cat([instances.only([1]), instances.only(instances.areas > 50)])
    assert both.areas.tolist() == [8, 60, 600] and both.classes.tolist() == [3, 1, 1]
    nothing = Instances.none(SIZE)
    assert len(nothing) == len(nothing.only([])) == nothing.label_map().max() == 0
    assert Instances.cat([nothing, both]).classes is None  # unknown of a part
    with pytest.raises(ValueError, match="of one image"):
        Instances.cat([both, Instances.none((3, 3))])


def test_entries_and_records_hold_the_masks(instances):
    for i, entry in enumerate(instances.entries("a.png")):
        mask = coco.decode(entry["segmentation"]).astype(bool)
        assert np.array_equal(mask, instances.mask(i)) and entry["area"] == mask.sum()
        assert entry["bbox"] == coco.toBbox(entry["segmentation"]).tolist()
        assert entry["category_id"] == instances.classes[i]
    binary, plain, coded = (
        instances.records(mode) for mode in ("binary_mask", "uncompressed_rle", "coco_rle")
    )
    for i, rows in enumerate(zip(binary, plain, coded, strict=True)):
        assert np.array_equal(rows[0]["segmentation"], instances.mask(i))
        assert sum(rows[1]["segmentation"]["counts"][1::2]) == instances.areas[i]
        assert coco.area(rows[2]["segmentation"]) == instances.areas[i]
    assert binary[0]["bbox"] == [2, 3, 9, 5]
    assert binary[0]["crop_box"] == [0, 0, 30, 20]
    with pytest.raises(InputError, match="output_mode=polygon: must be one of binary_mask"):
        instances.records("polygon")
