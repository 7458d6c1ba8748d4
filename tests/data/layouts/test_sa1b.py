import json

import numpy as np
import pytest
from pycocotools import mask as coco

from samtune.data import DataConfig, read_sample, scan, splits
from samtune.data.layouts.base import layout_of


def entry(top, left, bottom, right):
    mask = np.zeros((12, 16), np.uint8, order="F")
    mask[top:bottom, left:right] = 1
    counts = coco.encode(mask)["counts"].decode()
    return {"segmentation": {"size": [12, 16], "counts": counts}, "area": int(mask.sum())}


@pytest.fixture(params=["", "sa_000000"])
def sa1b(request, tmp_path, save_image, make_picture):
    """Four images, in the folder or in one below it, of a large mask over a small one."""
    folder = tmp_path / request.param
    for i in range(4):
        save_image(folder / f"sa_{i}.jpg", make_picture(seed=i))
        image = {"image_id": i, "file_name": f"sa_{i}.jpg", "height": 12, "width": 16}
        tree = {"image": image, "annotations": [entry(2, 2, 5, 5), entry(1, 1, 11, 15)]}
        (folder / f"sa_{i}.json").write_text(json.dumps(tree))
    return tmp_path


def test_masks_become_objects(sa1b, completed, record_of):
    assert layout_of(sa1b).name == "sa1b"
    record, config = record_of(sa1b, "sa_2")
    labels = read_sample(record, config).labels
    assert (labels.map[3, 3], labels.map[8, 8], labels.map[0, 0]) == (1, 2, 0)
    assert labels.classes.tolist() == [0, 0]
    assert record_of(sa1b, "sa_2", objects="mask")[1].masks == "instance"
    assert scan([record], config).objects == 2


def test_what_is_wrong(sa1b, completed, record_of, refused):
    record, config = record_of(sa1b, "sa_2")
    for text, words in (
        ("{", ["cannot be read"]),
        ("{}", ["not a file of SA-1B", "download"]),
        (json.dumps({"image": {"height": 1, "width": 1}, "annotations": [{}]}), ["not a file of"]),
    ):
        record.mask.path.write_text(text + " " * len(words[0]))
        refused(["sa_2.json", *words], read_sample, record, config)
    record.image.unlink()
    refused([sa1b, "without a picture", "sa_2.json"], splits, config)
    (record.image.parent / "sa_1.json").unlink()
    refused([sa1b, "without a JSON file", "sa_1.jpg"], splits, config)
    for path in record.image.parent.glob("sa_*.json"):
        path.unlink()
    refused([sa1b, "sa_*.json"], splits, DataConfig(root=str(sa1b), layout="sa1b"))
