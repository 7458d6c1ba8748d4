import contextlib
import io
import json

import numpy as np
import pytest
from predictions import H, W, iou, pictures, predicted, read_back, shapes, written
from pycocotools.coco import COCO

from samtune.data.reading import read_mask
from samtune.report.classes import Classes

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.parametrize("tolerance", [0, 1])
def test_pycocotools_reads_objects_with_holes_and_regions(tmp_path, tolerance):
    records, masks = pictures(tmp_path / "in", 3), list(shapes().values())
    results = [
        predicted(records[0], masks),
        predicted(records[1], []),
        predicted(records[2], masks[:1]),
    ]
    folder, troubles = written("coco", results, tmp_path, tolerance=tolerance)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(folder / "annotations.json"))
    assert troubles == []
    assert [(i["file_name"], i["width"], i["height"]) for i in coco.loadImgs(coco.getImgIds())] == [
        (f"{k}.png", W, H) for k in range(3)
    ]
    assert coco.loadCats(coco.getCatIds()) == [{"id": 1, "name": "object"}]
    assert [len(coco.getAnnIds(i)) for i in (1, 2, 3)] == [3, 0, 1]
    for row, mask in zip(coco.loadAnns(coco.getAnnIds(1)), masks, strict=True):
        got = coco.annToMask(row).astype(bool)
        assert np.array_equal(got, mask) if not tolerance else iou(got, mask) > 0.9
        ys, xs = np.nonzero(mask)
        assert row["bbox"] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
        assert row["area"] == mask.sum() and row["iscrowd"] == 0 and row["score"] == 0.75
    kinds = [type(row["segmentation"]) for row in coco.loadAnns(coco.getAnnIds(1))]
    assert kinds == [list, dict, list]  # the ring has a hole
    assert len(coco.anns[3]["segmentation"]) == 2


def test_classes_become_regions_without_the_background(tmp_path):
    records, masks = pictures(tmp_path / "in"), shapes()
    maps = [~masks["two"] & ~masks["disc"], masks["two"], masks["disc"]]
    classes = Classes(("ground", "roof", "roof"), background=0)
    result = predicted(records[0], maps, classes=True)
    folder, _ = written("coco", [result], tmp_path, classes)
    tree = json.loads((folder / "annotations.json").read_text())
    assert tree["categories"] == [{"id": 1, "name": "roof 1"}, {"id": 2, "name": "roof 2"}]
    assert [row["category_id"] for row in tree["annotations"]] == [1, 1, 2]


def test_samtune_reads_what_it_wrote(tmp_path):
    records, masks = pictures(tmp_path / "in"), shapes()
    results = [predicted(records[0], [masks["disc"], masks["ring"]])]
    folder, _ = written("coco", results, tmp_path, tolerance=0)
    (folder / "images").symlink_to(tmp_path / "in")
    (record,), names = read_back(folder)
    assert names == ("object",)
    labels = read_mask(record.mask)
    assert np.array_equal(labels, masks["disc"] + 2 * masks["ring"])
